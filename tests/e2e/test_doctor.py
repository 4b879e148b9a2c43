"""`supabase-chunks doctor`: everything that it can find, brought about for real."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from click.testing import CliRunner

from supabase_chunks import ChunksClient, assets
from supabase_chunks.cli import cli
from supabase_chunks.local import LocalStack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Patient:
    """A project that is made ill, and examined."""

    def __init__(self, stack: LocalStack) -> None:
        self.stack = stack
        self.client = ChunksClient(stack.url, stack.secret_key)

    def examine(self, *options: str, **environment: str) -> tuple[int, dict[str, dict[str, Any]]]:
        """The exit code, and the checks by name."""
        known = {"SUPABASE_URL": self.stack.url, "SUPABASE_SECRET_KEY": self.stack.secret_key}
        done = CliRunner().invoke(cli, ["doctor", "--json", *options], env={**known, **environment})
        assert "Traceback" not in done.output
        assert self.stack.secret_key not in done.output
        return done.exit_code, {check["name"]: check for check in json.loads(done.stdout)}

    def finds(
        self, name: str, *words: str, also: str = "", options: tuple[str, ...] = (), **environment: str
    ) -> None:
        """Assert that this check alone (or what follows from it, too) fails, in these words, with a fix."""
        code, checks = self.examine(*options, **environment)
        failed = {check for check in checks if not checks[check]["ok"]}
        assert (code, failed) == (1, {name, also} - {""}), checks
        text = f"{checks[name]['detail']} | {checks[name]['fix']}"
        assert checks[name]["fix"]
        for word in words:
            assert word in text

    @contextmanager
    def ill(self, harm: str, cure: str) -> Iterator[None]:
        """With something changed in the database, as its superuser."""
        self._execute(harm)
        try:
            yield
        finally:
            self._execute(cure)

    def _execute(self, sql: str) -> None:
        with psycopg.connect(self.stack.db_url, autocommit=True) as database:
            for statement in sql.split(";;"):
                database.execute(statement.encode())


def until(look: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def patient() -> Iterator[Patient]:
    """A whole project, healthy at the start of each test."""
    with LocalStack() as stack:
        yield Patient(stack)


def test_a_healthy_project_passes_every_check(patient: Patient) -> None:
    code, checks = patient.examine()
    assert code == 0, checks
    assert set(checks) == {
        *("database", "migrations", "grants", "pg_net", "pg_cron", "supabase_vault", "watchdog", "vault"),
        *("function background-sync-processor", "function sync-emails", "webhooks", "jobs", "claims"),
        *("transactions", "dead rows"),
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
    assert "1 of 15 checks failed." in done.stderr
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
    moved = f"alter function {schema}.{function} rename to gone"
    with patient.ill(moved, f"alter function {schema}.gone rename to {function}"):
        patient.finds(name, "without it", f"create extension {name}")


def test_pg_cron_is_missing(patient: Patient) -> None:
    with patient.ill("alter schema cron rename to gone", "alter schema gone rename to cron"):
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
        patient.finds("watchdog", "switched off", "active = true")


def test_webhooks_go_nowhere_and_a_job_waits(patient: Patient) -> None:
    patient.client.configure("http://127.0.0.1:9", patient.stack.secret_key)
    job = patient.client.trigger_sync("email", payload={"account": "nobody"})

    def answered() -> object:
        patient.client.cleanup_stuck_chunks()
        return not patient.examine()[1]["webhooks"]["ok"]

    try:
        until(answered)
        patient.finds("webhooks", "the last one failed", "configure --project-url", also="jobs")
        until(lambda: not patient.examine("--max-wait", "0s")[1]["claims"]["ok"])
    finally:
        job.cancel()
        patient.client.configure(patient.stack.url, patient.stack.secret_key)
        with psycopg.connect(patient.stack.db_url) as database:
            database.execute("truncate chunk_private.dispatches")


def test_webhooks_carry_a_key_that_is_refused(patient: Patient) -> None:
    patient.client.configure(patient.stack.url, "sb_secret_of_yesterday")
    job = patient.client.trigger_sync("email", payload={"account": "nobody"})

    def answered() -> object:
        patient.client.cleanup_stuck_chunks()
        return not patient.examine()[1]["webhooks"]["ok"]

    try:
        until(answered)
        patient.finds("webhooks", "HTTP 401", "supabase-chunks configure", also="jobs")
    finally:
        job.cancel()
        patient.client.configure(patient.stack.url, patient.stack.secret_key)
        with psycopg.connect(patient.stack.db_url) as database:
            database.execute("truncate chunk_private.dispatches")


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


class TestFunctions:
    """What can be wrong with deployed functions, each served for real."""

    @staticmethod
    def _deployed(folder: Path) -> Path:
        copy = folder / "functions"
        shutil.copytree(assets.functions_dir(), copy, ignore=shutil.ignore_patterns("node_modules"))
        return copy

    def test_the_processor_is_not_deployed(self, tmp_path: Path) -> None:
        functions = self._deployed(tmp_path)
        shutil.rmtree(functions / "background-sync-processor")
        with LocalStack(functions=functions) as stack:
            name = "function background-sync-processor"
            Patient(stack).finds(name, "not deployed", "functions deploy background-sync-processor")

    def test_a_function_is_of_another_version_and_another_one_fails(self, tmp_path: Path) -> None:
        functions = self._deployed(tmp_path)
        (functions / "_shared" / "version.ts").write_text('export const VERSION = "0.0.9";\n')
        (functions / "sync-emails" / "index.ts").write_text(
            'export default { fetch: () => new Response("no", { status: 500 }) };\n'
        )
        with LocalStack(functions=functions) as stack:
            code, checks = Patient(stack).examine()
            assert code == 1
            processor, handler = checks["function background-sync-processor"], checks["function sync-emails"]
            assert "version 0.0.9" in processor["detail"]
            assert "functions deploy background-sync-processor" in processor["fix"]
            assert "HTTP 500" in handler["detail"]

    def test_a_function_refuses_the_key(self, tmp_path: Path) -> None:
        functions = self._deployed(tmp_path)
        (functions / "sync-emails" / "index.ts").write_text(
            'export default { fetch: () => new Response("no", { status: 401 }) };\n'
        )
        with LocalStack(functions=functions) as stack:
            Patient(stack).finds("function sync-emails", "refuses the key", "verify_jwt = false")


def test_nothing_is_installed() -> None:
    with LocalStack(migrations=None, functions=None) as stack:
        Patient(stack).finds("database", "not installed", "supabase-chunks init")
