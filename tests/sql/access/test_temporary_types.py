"""Whoever may run SQL as a signed-in user may make types: none of them runs within our functions, as their owner."""

from __future__ import annotations

import uuid

import pytest

from tests.sql.access.test_catalog import PRIVATE_FOR_USERS
from tests.sql.cleanup.hooks import KEY, configure
from tests.sql.database import Database, Session

ANNA = str(uuid.uuid4())
PASSWORD = "p4ss-of-somebody-else"

# Domains in the session's temporary schema, named like every type that a function of ours could name. Whoever checks a
# value of one of them says who it runs as, and what is in the Vault for that role.
ATTACK = """
create function pg_temp.spy() returns pg_catalog.bool language plpgsql as $spy$
begin
  if current_user <> 'authenticated' then
    raise warning 'SPY % %', current_user,
      (select pg_catalog.string_agg(s.decrypted_secret, ' ') from vault.decrypted_secrets s);
  end if;
  return true;
end
$spy$;
do $make$
declare
  of record;
begin
  for of in
    select t.typname as name from pg_catalog.pg_type t
    where t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace and t.typtype = 'b' and t.typarray <> 0
      and pg_catalog.has_type_privilege(t.oid, 'usage')
    union select 'boolean' union select 'integer' union select 'bigint'
  loop
    execute pg_catalog.format('create domain pg_temp.%I as pg_catalog.%I check (pg_temp.spy())', of.name,
      case of.name when 'boolean' then 'bool' when 'integer' then 'int4' when 'bigint' then 'int8' else of.name end);
  end loop;
end
$make$;
"""
OWN_TABLE = """
create temporary table pages (parent_sync_job_id pg_catalog.uuid);
create trigger pages_become_chunks after insert on pages referencing new table as new_rows
for each statement execute function public.enqueue_chunks_from_rows();
"""


@pytest.fixture(params=["db", "db_15"])
def attacked(request: pytest.FixtureRequest) -> Database:
    """A database with a key and somebody's password in its Vault, on PostgreSQL 18 and 15."""
    made: Database = request.getfixturevalue(request.param)
    service = made.connect()
    configure(service)
    login = {"name": "work", "host": "mail.example", "username": "bert", "password": PASSWORD}
    service.call("save_sync_kind", kind="mailbox", user_startable=True, limit_by="account")
    service.call("save_email_account", **login, owner_id=uuid.uuid4())
    return made


def spying(attacked: Database) -> tuple[Session, list[str]]:
    """A user's session with the domains, and what was heard of them."""
    heard: list[str] = []
    anna = attacked.connect("authenticated", user=ANNA, settings="-c client_min_messages=warning")
    anna.connection.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
    anna.execute(ATTACK)
    return anna, heard


def call_everything(anna: Session) -> set[str]:
    """Call every function that users may call, so that it does its work; return their names."""
    request = str(uuid.uuid4())
    job = anna.start(chunks=[{}, {}], sealed=False, job_key="k", request_id=request, payload={"a": 1})["id"]
    anna.start(chunks=[{}, {}], sealed=False, job_key="k", request_id=request)
    anna.call("append_sync_chunks", parent_sync_job_id=job, chunks=[{}], request_id=request, items_total=3)
    anna.execute(OWN_TABLE)
    anna.execute("insert into pages values (%s)", job)
    limited = anna.start("mailbox", payload={"account": "a"}, chunks=[{}, {}], sealed=False)["id"]
    anna.execute("insert into pages values (%s)", limited)
    anna.progress(job)
    anna.progress(limited)
    steering = ("pause_sync_job", "resume_sync_job", "retry_failed_chunks", "cancel_sync_job")
    for action in steering:
        anna.control(action, job)
        anna.control(action, limited)
    anna.start(total_items=100, chunk_size=10)
    account = {"name": "mine", "host": "mail.example", "username": "anna", "password": "p4ss"}
    anna.call("save_email_account", **account)
    anna.call("save_email_account", **account)
    anna.call("remove_email_account", name="mine")
    anna.rows(
        "select * from public.chunk_processing_status, public.chunk_processing_queue, public.sync_kinds"
    )
    appending = ("append_sync_chunks", "enter_own_jobs", "settle_jobs")
    return {
        "waiting_for",
        "start_sync_job",
        *appending,
        *steering,
        "save_email_account",
        "remove_email_account",
    }


def test_a_users_types_run_in_no_function_of_ours(attacked: Database) -> None:
    anna, heard = spying(attacked)
    assert call_everything(anna) == PRIVATE_FOR_USERS
    assert heard == []


def test_the_attack_is_one(attacked: Database) -> None:
    """With an empty search path a type is looked up in the temporary schema first: then the other test would hear it."""
    attacked.connect("postgres").execute(
        "create function public.unsafe(value text) returns boolean language plpgsql security definer set search_path = ''"
        " as $$ begin return value::uuid is not null; end $$;"
        "grant execute on function public.unsafe to authenticated"
    )
    anna, heard = spying(attacked)
    anna.call("unsafe", value=ANNA)
    assert [line.split()[:2] for line in heard] == [["SPY", "postgres"]]
    assert KEY in heard[0]
    assert PASSWORD in heard[0]
