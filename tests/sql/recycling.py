"""Using a database again for the next test, which is a tenth of the cost of a new one, if it can be made as it was.

The rows of all tables and the sequences are put back. Who has changed the schema or the planner's statistics, or left
much behind, gets the database thrown away.
"""

from __future__ import annotations

from typing import Any

import psycopg

# What dead rows may take of the tables before a fresh database is better.
_MOST_BYTES = 1_000_000
_NOTING = """
create table tests.changes (what text);
create function tests.note_change() returns event_trigger language plpgsql security definer as $$
begin
  insert into tests.changes values (tg_tag);
end
$$;
create event trigger tests_note_change on ddl_command_end execute function tests.note_change();
create event trigger tests_note_drop on sql_drop execute function tests.note_change();
"""
_TABLES = """
select c.oid::regclass::text as name, c.oid::int as number, array(
  select quote_ident(a.attname) from pg_attribute a
  where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' order by a.attnum
) as columns
from pg_class c where c.relkind = 'r' and c.relnamespace::regnamespace::text !~ '^(pg_|information_schema|tests$)' or c.oid = 'tests.ends'::regclass
order by 1
"""
_SEQUENCES = """
select format('%I.%I', s.schemaname, s.sequencename) as name from pg_sequences s order by 1
"""
_STATISTICS = """
select coalesce(sum(c.reltuples::float8 + c.relpages), 0) from pg_class c
where c.relkind in ('r', 'i') and c.relnamespace::regnamespace::text in ('public', 'chunk_private')
"""
# Of a connection: as it was when it was opened. What it has compiled and planned stays.
_AFRESH = """
close all; reset session authorization; reset role; reset all; unlisten *;
select pg_advisory_unlock_all(); discard temp; discard sequences;
"""


def prepare(connection: psycopg.Connection[Any]) -> None:
    """Make `tests.restore()` in a template: the last that is changed in it."""
    restoring: list[str] = []
    size: list[str] = []
    for name, number, columns in connection.execute(_TABLES).fetchall():
        restoring.append(f"delete from {name};")
        size.append(f"pg_relation_size({number})")
        if connection.execute(f"select 1 from {name} limit 1").fetchone():
            kept, listed = f"tests.kept_{number}", ", ".join(columns)
            connection.execute(f"create table {kept} as table {name}")
            restoring.append(
                f"insert into {name} ({listed}) overriding system value select {listed} from {kept};"
            )
    for (name,) in connection.execute(_SEQUENCES).fetchall():
        last, called = connection.execute(f"select last_value, is_called from {name}").fetchone() or (
            1,
            False,
        )
        restoring.append(f"perform setval('{name}', {last}, {str(called).lower()});")
    (statistics,) = connection.execute(_STATISTICS).fetchone() or (0,)
    connection.execute(
        f"""
        create function tests.restore() returns boolean language plpgsql
        set session_replication_role = replica set lock_timeout = '1s' as $$
        begin
          if exists (select from tests.changes) or exists (
            select from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase where d.datname = current_database()
          ) or ({_STATISTICS}) <> {statistics} or {" + ".join(size)} > {_MOST_BYTES} then
            return false;
          end if;
          {" ".join(restoring)}
          return true;
        end
        $$"""
    )
    connection.execute(_NOTING)


def afresh(connection: psycopg.Connection[Any]) -> bool:
    """Make a connection as if it were new; False when it is of no use any more."""
    if connection.closed or connection.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
        return False
    try:
        connection.rollback()
        connection.autocommit = True
        connection.execute(_AFRESH)
    except psycopg.Error:
        return False
    return True


def restored(connection: psycopg.Connection[Any]) -> bool:
    """Put everything back; False when that cannot be done."""
    try:
        (done,) = connection.execute("select tests.restore()").fetchone() or (False,)
    except psycopg.Error:
        return False
    return bool(done)
