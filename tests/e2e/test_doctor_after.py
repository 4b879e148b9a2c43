"""`supabase-chunks doctor` while and after the trouble: watchdog, disk, a copied project, a pg_net that hangs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from supabase_chunks.local import LocalStack
from tests.e2e.patient import Patient
from tests.polling import until

if TYPE_CHECKING:
    from collections.abc import Iterator

WATCHDOG = "where jobname = 'supabase-chunks-watchdog'"
AGO = (
    "update chunk_private.watchdog set last_pass_at = last_pass_at - interval '1 hour',"
    " scheduled_at = scheduled_at - interval '1 hour', server_began = server_began"
)
EVERY_SECOND = f"update cron.job set schedule = '1 second' {WATCHDOG}"
EVERY_HALF_MINUTE = f"update cron.job set schedule = '30 seconds' {WATCHDOG}"
RUNNING = "where status = 'running' and start_time < now() - interval '1 s'"
EMAIL = {"account": "nobody"}


@pytest.fixture(scope="module")
def patient() -> Iterator[Patient]:
    """A whole project, healthy at the start of each test."""
    with LocalStack() as stack:
        yield Patient(stack)


@pytest.fixture
def old_server(patient: Patient) -> Iterator[None]:
    """Health as it is when the server has run for a day: nothing is excused by a start just now."""
    with psycopg.connect(patient.stack.db_url) as admin:
        (made,) = admin.execute(
            "select pg_get_functiondef('chunk_private.watchdog_health'::regproc)"
        ).fetchone() or ("",)
    began = "pg_postmaster_start_time()"
    assert began in made
    with patient.ill(made.replace(began, f"{began} - interval '1 day'"), made):
        yield


@pytest.mark.usefixtures("old_server")
class TestWatchdog:
    """A schedule says little: does it come round?"""

    def test_it_last_ran_an_hour_ago(self, patient: Patient) -> None:
        patient.client.cleanup_stuck_chunks()
        # pg_cron looks at another database.
        elsewhere = f"update cron.job set database = 'another' {WATCHDOG}"
        here = f"update cron.job set database = current_database() {WATCHDOG}"
        with patient.ill(f"{elsewhere};; {AGO}", here):
            patient.finds("watchdog", "has not run for 60 min", "cleanup --every 30s")
        patient.client.cleanup_stuck_chunks()
        assert patient.examine()[0] == 0

    def test_it_never_ran(self, patient: Patient) -> None:
        elsewhere = f"update cron.job set database = 'another' {WATCHDOG}"
        here = f"update cron.job set database = current_database() {WATCHDOG}"
        with patient.ill(
            f"{elsewhere};; {AGO};; update chunk_private.watchdog set last_pass_at = null", here
        ):
            patient.finds("watchdog", "has not run yet", "restart the database")
        patient.client.cleanup_stuck_chunks()

    def test_it_hangs(self, patient: Patient) -> None:
        """Its run waits for a row that somebody's open transaction has; the advice ends it."""
        job = patient.client.trigger_sync("custom", chunks=[{}])
        assert patient.client.queue.claim("lost", kinds=["custom"]) is not None
        patient.execute(
            "update public.chunk_processing_queue set locked_until = now() - interval '1 s' where locked_until is not null"
        )
        with psycopg.connect(patient.stack.db_url) as somebody:
            somebody.execute(
                "update chunk_private.job_counters set open_chunks = open_chunks where job_id = %s", (job.id,)
            )
            patient.execute(EVERY_SECOND)
            until(lambda: patient.rows(f"select 1 from cron.job_run_details {RUNNING}"))
            patient.execute(f"{EVERY_HALF_MINUTE};; {AGO}")
            patient.execute(
                f"update cron.job_run_details set start_time = start_time - interval '1 hour' {RUNNING}"
            )
            patient.finds("watchdog", "has been hanging for 60 min", "pg_cancel_backend")
            # Here a run is logged in as the superuser, who alone may cancel it then; with pg_cron as the job's owner.
            patient.execute(patient.examine()[1]["watchdog"]["fix"])
            until(lambda: not patient.rows(f"select 1 from cron.job_run_details {RUNNING}"))
        with patient.ill(EVERY_SECOND, EVERY_HALF_MINUTE):
            until(lambda: patient.examine()[1]["watchdog"]["ok"])
        assert job.progress().pending_chunks == 1
        job.cancel()


def test_the_disk_is_full_and_the_database_read_only(patient: Patient) -> None:
    database = "alter database postgres {} default_transaction_read_only{}"
    writes = "set session characteristics as transaction read write;; "
    with patient.ill(database.format("set", " = on"), writes + database.format("reset", "")):
        code, checks = patient.examine()
        assert (code, checks["writes"]["ok"]) == (1, False)
        assert "read-only" in checks["writes"]["detail"]
        fix, _, rest = checks["writes"]["fix"].partition(";")
        assert "larger disk" in rest
        with psycopg.connect(patient.stack.postgres_url, autocommit=True) as owner:
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                owner.execute("select public.purge_sync_jobs('7 days')")
            owner.execute(fix.encode())
            owner.execute("select public.purge_sync_jobs('7 days')")
    patient.client.cleanup_stuck_chunks()


def test_a_restored_copy_would_wake_the_original(patient: Patient) -> None:
    patient.client.configure("https://abcdefghijklmnopqrst.supabase.co", patient.stack.secret_key)
    patient.finds("vault", "but to another project", "supabase-chunks configure")
    _, checks = patient.examine()
    assert "abcdefghijklmnopqrst" not in str(checks)
    # What Docker's inner network calls it is no other project.
    for inner in ("http://kong:8000", "http://supabase_kong_demo:8000", "http://host.docker.internal:54321"):
        patient.client.configure(inner, patient.stack.secret_key)
        assert patient.examine()[0] == 0
    patient.client.configure(patient.stack.url.upper().replace("HTTP", "http"), patient.stack.secret_key)
    assert patient.examine()[0] == 0
    patient.client.configure(patient.stack.url, patient.stack.secret_key)


def test_pg_net_hangs(patient: Patient) -> None:
    first = patient.client.trigger_sync("email", payload=EMAIL)
    patient.stack.set_webhooks(pace=3600)
    try:
        jobs = [first, *(patient.client.trigger_sync("email", payload=EMAIL) for _ in range(3))]
        # One batch at most is sent, and then it sleeps.
        jobs.append(patient.client.trigger_sync("email", payload=EMAIL, job_key="last"))
        until(lambda: patient.rows("select 1 from net.http_request_queue"))
        patient.execute("update chunk_private.dispatches set created_at = created_at - interval '2 minutes'")
        patient.finds("webhooks", "pg_net does not send", "select net.worker_restart();")
        patient.type_fix("webhooks")
        until(lambda: not patient.rows("select 1 from net.http_request_queue"))
    finally:
        patient.stack.set_webhooks(pace=0.0)
        patient.execute("select net.worker_restart()")
        patient.end(*jobs)
    assert patient.examine()[0] == 0


def test_a_slow_processor_is_not_a_wrong_address(patient: Patient) -> None:
    patient.stack.set_webhooks(drop=1.0)
    job = patient.client.trigger_sync("email", payload=EMAIL)
    try:
        slow = "Timeout of 10000 ms reached. Total time: 10001 ms"
        patient.execute(f"update chunk_private.dispatches set answered_at = now(), error = '{slow}'")
        patient.finds("webhooks", "Timeout of 10000 ms", "logs of background-sync-processor", also="jobs")
        # A later one that went well has the last word.
        patient.stack.set_webhooks(drop=0.0)
        other = patient.client.trigger_sync("email", payload=EMAIL)
        until(lambda: other.progress().started_at)
        until(lambda: patient.client.cleanup_stuck_chunks() or patient.examine()[1]["webhooks"]["ok"])
    finally:
        patient.stack.set_webhooks(drop=0.0)
        patient.end(job)


def test_what_was_put_right_is_told(patient: Patient) -> None:
    job = patient.client.trigger_sync("custom", chunks=[{}, {}])
    patient.execute(f"delete from chunk_private.job_counters where job_id = '{job.id}'")
    patient.client.cleanup_stuck_chunks()
    code, checks = patient.examine()
    assert code == 0
    assert str(job.id) in checks["healed"]["detail"]
    job.cancel()
