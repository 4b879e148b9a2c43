"""`supabase-chunks doctor`: what it can find in the database, brought about for real."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest
from click.testing import CliRunner

from supabase_chunks import Worker
from supabase_chunks.cli import cli
from supabase_chunks.doctor import reach
from supabase_chunks.local import LocalStack
from tests.e2e.patient import Patient
from tests.polling import until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def patient() -> Iterator[Patient]:
    """A whole project, healthy at the start of each test."""
    with LocalStack() as stack:
        yield Patient(stack)


def test_a_healthy_project_passes_every_check(patient: Patient) -> None:
    code, checks = patient.examine()
    assert code == 0, checks
    assert set(checks) == {
        *(
            "database",
            "writes",
            "migrations",
            "grants",
            "pg_net",
            "pg_cron",
            "supabase_vault",
            "watchdog",
            "vault",
        ),
        *(
            "function background-sync-processor",
            "function sync-emails",
            "webhooks",
            "jobs",
            "claims",
            "limits",
        ),
        *("transactions", "dead rows", "healed", "users"),
    }
    assert not [check for check in checks.values() if check["fix"]]


def test_it_claims_no_chunk(patient: Patient) -> None:
    job = patient.client.trigger_sync("custom", chunks=[{"n": 1}])
    patient.examine()
    assert job.progress().pending_chunks == 1
    assert job.chunks()[0].attempts == 0
    job.cancel()


def test_people_get_a_line_a_check(patient: Patient) -> None:
    known = {"SUPABASE_URL": patient.stack.url, "SUPABASE_SECRET_KEY": patient.stack.secret_key}
    with patient.ill("delete from vault.secrets where name = 'project_url'", "select 1"):
        done = CliRunner().invoke(cli, ["doctor"], env=known)
    assert done.exit_code == 1
    assert "✗ vault: it has no project_url\n    supabase-chunks configure\n" in done.stdout
    assert "✓ pg_net: " in done.stdout
    assert "1 of 19 checks failed." in done.stderr
    assert CliRunner().invoke(cli, ["configure"], env=known).exit_code == 0
    assert CliRunner().invoke(cli, ["doctor"], env=known).exit_code == 0


def test_nobody_answers(patient: Patient) -> None:
    patient.finds("database", "does not answer", "SUPABASE_URL", SUPABASE_URL="http://127.0.0.1:9")


def test_the_key_is_wrong(patient: Patient) -> None:
    patient.finds("key", "refuses it", SUPABASE_SECRET_KEY="sb_secret_wrong")


def test_the_key_is_a_publishable_one(patient: Patient) -> None:
    patient.finds("key", "publishable", SUPABASE_SECRET_KEY=patient.stack.publishable_key)


def test_a_legacy_key_is_as_good(patient: Patient) -> None:
    code, checks = patient.examine(SUPABASE_SECRET_KEY=patient.stack.service_role_key)
    assert code == 0, checks


def test_the_migrations_are_of_another_version(patient: Patient) -> None:
    body = "create or replace function chunk_private.version() returns text language sql immutable as "
    with patient.ill(f"{body} $$ select '0.0.9' $$", f"{body} $$ select '0.1.0' $$"):
        patient.finds("migrations", "version 0.0.9, and this package is 0.1.0", "supabase db push")


def test_every_function_for_a_secret_key_is_looked_for(patient: Patient) -> None:
    granted = """
        select p.proname from pg_proc p
        where p.pronamespace = 'public'::regnamespace and p.prorettype <> 'trigger'::regtype
          and has_function_privilege('service_role', p.oid, 'execute')
    """
    with psycopg.connect(patient.stack.db_url) as database:
        names = {name for (name,) in database.execute(granted)}
    assert names == reach.FUNCTIONS


def test_a_grant_is_missing(patient: Patient) -> None:
    function = "function public.purge_sync_jobs(interval, int)"
    reload = ";; notify pgrst, 'reload schema'"
    harm = f"revoke execute on {function} from service_role{reload}"
    with patient.ill(harm, f"grant execute on {function} to service_role{reload}"):
        until(lambda: not patient.examine()[1]["grants"]["ok"])
        patient.finds("grants", "purge_sync_jobs", "grant execute")
    until(lambda: patient.examine()[0] == 0)


@pytest.mark.parametrize(
    ("name", "schema", "function"),
    [("pg_net", "net", "http_post"), ("supabase_vault", "vault", "create_secret")],
)
def test_an_extension_is_missing(patient: Patient, name: str, schema: str, function: str) -> None:
    moved = f"drop extension if exists {name};; alter function {schema}.{function} rename to gone"
    with patient.ill(moved, f"alter function {schema}.gone rename to {function}"):
        patient.finds(name, "without it", f"create extension {name}")


def test_pg_cron_is_missing(patient: Patient) -> None:
    moved = "drop extension if exists pg_cron;; alter schema cron rename to gone"
    with patient.ill(moved, "alter schema gone rename to cron"):
        code, checks = patient.examine()
        assert code == 1
        assert {name for name in checks if not checks[name]["ok"]} == {"pg_cron", "watchdog"}
        assert "cleanup --every" in checks["watchdog"]["fix"]


def test_the_watchdog_is_not_scheduled(patient: Patient) -> None:
    unscheduled = "set role postgres;; select cron.unschedule('supabase-chunks-watchdog')"
    with patient.ill(unscheduled, "select chunk_private.schedule_watchdog()"):
        patient.finds("watchdog", "not scheduled", "supabase-chunks configure")


def test_the_watchdog_is_switched_off(patient: Patient) -> None:
    switch = "update cron.job set active = {} where jobname = 'supabase-chunks-watchdog'"
    with patient.ill(switch.format("false"), switch.format("true")):
        patient.finds("watchdog", "switched off", "cron.alter_job")
        patient.type_fix("watchdog")
        assert patient.examine()[1]["watchdog"]["ok"]


def test_the_last_run_of_the_watchdog_failed(patient: Patient) -> None:
    job = "where jobname = 'supabase-chunks-watchdog'"
    command = "update cron.job set schedule = '1 second', command = 'select public.{}()' " + job
    try:
        with patient.ill(command.format("cleanup_of_yesterday"), command.format("cleanup_stuck_chunks")):
            until(lambda: not patient.examine()[1]["watchdog"]["ok"])
            patient.finds("watchdog", "last run failed", "does not exist", "cron.job_run_details")
        until(lambda: patient.examine()[0] == 0)
    finally:
        patient.execute(f"update cron.job set schedule = '30 seconds' {job}")


@pytest.mark.parametrize(
    ("entry", "words"), [("project_url", "no project_url"), ("chunk_processor_key", "no processor_key")]
)
def test_the_vault_lacks_an_entry(patient: Patient, entry: str, words: str) -> None:
    patient.execute(f"delete from vault.secrets where name = '{entry}'")
    patient.finds("vault", words, "supabase-chunks configure")
    patient.client.configure(patient.stack.url, patient.stack.secret_key)
    assert patient.examine()[0] == 0


def test_the_handler_of_a_kind_is_not_deployed(patient: Patient) -> None:
    patient.client.save_kind("orders", handler="sync-orders")
    try:
        patient.finds("function sync-orders", "not deployed", "functions deploy sync-orders --use-api")
    finally:
        patient.execute("delete from public.sync_kinds where kind = 'orders'")


def test_a_transaction_is_open_for_long(patient: Patient) -> None:
    with psycopg.connect(patient.stack.postgres_url) as somebody:
        somebody.execute("select 1")
        until(lambda: not patient.examine("--max-transaction", "1s")[1]["transactions"]["ok"])
        patient.finds("transactions", "open for", "pg_stat_activity", options=("--max-transaction", "1s"))


def test_dead_rows_pile_up(patient: Patient) -> None:
    for _ in range(3):
        job = patient.client.trigger_sync("custom", chunks=[{"n": number} for number in range(100)])
        job.cancel()
    until(lambda: not patient.examine("--max-dead-rows", "10")[1]["dead rows"]["ok"])
    patient.finds("dead rows", "in the queue", "vacuum", options=("--max-dead-rows", "10"))


class TestPythonWorkersOnly:
    """A project in which nobody has deployed a function, nor configured webhooks."""

    @pytest.fixture(scope="class")
    @staticmethod
    def patient() -> Iterator[Patient]:
        with LocalStack(functions=None) as stack:
            patient = Patient(stack)
            patient.execute("delete from vault.secrets")
            yield patient

    def test_it_is_well_without_what_only_edge_functions_need(self, patient: Patient) -> None:
        patient.client.save_kind("reports")
        job = patient.client.trigger_sync("reports", chunks=[{"page": 1}])
        Worker(patient.client, lambda chunk: None, kinds=["reports"]).run_until_idle()
        assert job.wait().completed_chunks == 1
        code, checks = patient.examine()
        assert code == 0, checks
        assert not [check for check in checks.values() if check["fix"]]
        for name in ("vault", "functions"):
            assert "no kind in use has an Edge Function" in checks[name]["detail"]

    @pytest.mark.parametrize(
        ("name", "function"), [("pg_net", "net.http_post"), ("supabase_vault", "vault.create_secret")]
    )
    def test_so_it_is_without_their_extensions(self, patient: Patient, name: str, function: str) -> None:
        schema, _, renamed = function.partition(".")
        moved = f"drop extension if exists {name};; alter function {function} rename to gone"
        with patient.ill(moved, f"alter function {schema}.gone rename to {renamed}"):
            code, checks = patient.examine()
        assert code == 0, checks
        assert checks[name]["detail"].startswith("missing, and not needed")

    @pytest.mark.parametrize("begun", ["a kind with a handler", "an email account", "an email sync"])
    def test_with_the_first_edge_kind_all_is_looked_at(self, patient: Patient, begun: str) -> None:
        client = patient.client
        if begun == "a kind with a handler":
            client.save_kind("orders", handler="sync-orders")
        elif begun == "an email account":
            client.email.save_account("work", host="imap.example.com", username="me", password="…")
        else:
            client.trigger_sync("email", payload={"account": "work"}).cancel()
        code, checks = patient.examine()
        assert code == 1
        wrong = {name for name, check in checks.items() if not check["ok"]}
        assert {"vault", "function background-sync-processor"} <= wrong
        assert checks["vault"]["fix"] == "supabase-chunks configure"
        if begun == "a kind with a handler":
            client.remove_kind("orders")
        elif begun == "an email account":
            client.email.remove_account("work")
        else:
            client.purge(older_than=timedelta(0))
        assert patient.examine()[0] == 0


def test_nothing_is_installed() -> None:
    with LocalStack(migrations=None, functions=None) as stack:
        Patient(stack).finds("database", "not installed", "supabase-chunks init")
