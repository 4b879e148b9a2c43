"""Installing as a project's owner does, and what an installation has made, as text."""

from __future__ import annotations

from pathlib import Path

import psycopg

from tests.sql.database import Database, Session

# The names of the migrations that each release has added.
RELEASES = {
    name: files.split()
    for name, _, files in (
        line.partition(":")
        for line in (Path(__file__).parent / "releases.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
}


def install(database: Database, files: list[Path]) -> None:
    """Run files as the owner of a project does: no superuser, one transaction, nothing on the search_path."""
    run(database, [path.read_text(encoding="utf-8") for path in files])


def run(database: Database, texts: list[str]) -> None:
    """Run SQL as `install` does."""
    with psycopg.connect(database.dsn) as connection:
        connection.execute("set session authorization postgres")
        assert connection.execute(
            "select rolsuper from pg_roles where rolname = current_user"
        ).fetchone() == (False,)
        connection.execute("set local search_path = ''")
        for text in texts:
            connection.execute(text.encode())


def schema(admin: Session) -> list[object]:
    """Functions, types, columns, constraints, indexes, triggers, comments, policies and rights, as text."""
    ours = "in ('public'::regnamespace, 'chunk_private'::regnamespace)"
    return [
        admin.rows(
            f"select pg_get_functiondef(oid), proacl::text from pg_proc where pronamespace {ours} order by oid::regprocedure::text"
        ),
        admin.rows(
            f"select oid::regclass::text, relkind, relacl::text, reloptions, relrowsecurity from pg_class where relnamespace {ours} order by 1"
        ),
        admin.rows(
            "select a.attrelid::regclass::text, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,"
            " pg_get_expr(d.adbin, d.adrelid) as default from pg_attribute a join pg_class c on c.oid = a.attrelid"
            " left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum"
            f" where c.relnamespace {ours} and a.attnum > 0 and not a.attisdropped order by 1, a.attnum"
        ),
        admin.rows(
            f"select viewname, definition from pg_views where schemaname::regnamespace {ours} order by 1"
        ),
        admin.rows(
            f"select conname, pg_get_constraintdef(oid) from pg_constraint where connamespace {ours} order by conname"
        ),
        admin.rows(
            "select indexdef from pg_indexes where schemaname in ('public', 'chunk_private') order by indexname"
        ),
        admin.rows(
            "select pg_get_triggerdef(t.oid) from pg_trigger t join pg_class c on c.oid = t.tgrelid"
            f" where not t.tgisinternal and c.relnamespace {ours} order by 1"
        ),
        admin.rows(
            "select pg_describe_object(classoid, objoid, objsubid) as what, description from pg_description"
            " where pg_describe_object(classoid, objoid, objsubid) ~ 'chunk|sync|email' order by 1"
        ),
        admin.rows("select p.* from pg_policies p order by p.policyname, p.tablename"),
        admin.rows("select jobname, schedule, command from cron.job order by jobname"),
    ]
