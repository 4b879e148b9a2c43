"""Each trouble of docs/operating.md is made, shows as it says there, and goes by the advice typed as it stands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from datetime import timedelta

import psycopg
import pytest
from click.testing import CliRunner

from supabase_chunks import LimitExceeded, PermanentFailure, Worker
from supabase_chunks.cli import cli
from supabase_chunks.jobs import Job
from supabase_chunks.local import LocalStack
from tests.documents import ROOT
from tests.e2e.patient import Patient
from tests.polling import until

PAGE = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
TABLE = PAGE.partition("| what you see | what to do |\n|---|---|\n")[2].partition("\n\n")[0]
ROWS = dict(re.fullmatch(r"\| (.*) \| (.*) \|", line).groups() for line in TABLE.splitlines())  # type: ignore[union-attr]
MAIL = {"account": "nobody"}
USER = "7c0e4f5e-6f0b-4b53-9d5a-0d1f8f6f2a10"


class Ward(Patient):
    """A patient who is treated by the book."""

    def advice(self, row: str, number: int = 0) -> str:
        """The n-th thing in backticks in what a row says to do."""
        (found,) = (what for seen, what in ROWS.items() if row in seen)
        return re.findall(r"`([^`]+)`", found)[number]

    def type(self, text: str, job: Job | None = None) -> str:
        """Type an advice: a statement, as the project's owner, or a command in a shell."""
        if text.startswith(("select", "set")):
            with psycopg.connect(self.stack.postgres_url, autocommit=True) as owner:
                owner.execute(text.encode())
            return ""
        program, *arguments = shlex.split(text.replace("JOB", str(job.id) if job else "JOB"))
        assert program == "supabase-chunks"
        done = CliRunner().invoke(cli, arguments, env=self.environment)
        assert done.exit_code in {0, 1}, done.output
        return done.output

    @property
    def environment(self) -> dict[str, str]:
        return {"SUPABASE_URL": self.stack.url, "SUPABASE_SECRET_KEY": self.stack.secret_key}

    def reason(self, job: Job) -> str:
        """Why a job is stalled, after a pass."""
        self.client.cleanup_stuck_chunks()
        return job.progress().stalled_reason or ""

    def shows(self, job: Job, words: str) -> None:
        """Assert that the job comes to say so, and that a row of the page begins so."""
        assert any(seen.strip("`").startswith(words) for seen in ROWS), words
        until(lambda: words in self.reason(job))

    def long_ago(self) -> None:
        """Let two minutes pass, for what waits."""
        for moved in (
            "chunk_private.slots set ready_at = ready_at",
            "chunk_private.job_counters set last_activity_at = last_activity_at",
        ):
            self.execute(f"update {moved} - interval '2 minutes'")


@pytest.fixture(scope="module")
def ward() -> Iterator[Ward]:
    """A whole project."""
    with LocalStack() as stack:
        made = Ward(stack)
        made.client.save_kind("rows", max_retries=0)
        yield made


def one_failed(ward: Ward) -> Job:
    job = ward.client.trigger_sync("rows", chunks=[{}])

    def fail(chunk: object) -> None:
        raise PermanentFailure("the cause")

    Worker(ward.client, fail, kinds=["rows"]).run_until_idle()
    assert job.progress().failed_chunks == 1
    return job


def failed_chunks(ward: Ward) -> None:
    job = one_failed(ward)
    ward.type(ward.advice("failed chunks"), job)
    assert job.progress().pending_chunks == 1
    job.cancel()


def unwanted(ward: Ward) -> None:
    job = ward.client.trigger_sync("rows", chunks=[{}])
    ward.type(ward.advice("nobody wants"), job)
    assert job.progress().status == "cancelled"


def in_need_of_rest(ward: Ward) -> None:
    job = ward.client.trigger_sync("rows", chunks=[{}])
    ward.type(ward.advice("needs rest"), job)
    assert job.progress().status == "paused"
    ward.type(ward.advice("needs rest", 1), job)
    assert job.progress().status == "pending"
    job.cancel()


def refused_key(ward: Ward) -> None:
    ward.client.configure(ward.stack.url, "sb_secret_of_yesterday")
    job = ward.client.trigger_sync("email", payload=MAIL)
    ward.shows(job, "webhook failed: HTTP 401")
    ward.type(ward.advice("HTTP 401"))
    until(lambda: job.progress().ended)


def missing_processor(ward: Ward) -> None:
    """Deploying needs a project that is hosted; that the command exists is tried with the documents' other ones."""
    elsewhere = ward.stack.url + "/rest/v1"
    ward.execute(
        "select vault.update_secret(id, '" + elsewhere + "') from vault.secrets where name = 'project_url'"
    )
    job = ward.client.trigger_sync("email", payload=MAIL)
    ward.shows(job, "webhook failed: HTTP 404")
    assert ward.advice("HTTP 404") == "supabase functions deploy --use-api"
    ward.type("supabase-chunks configure")
    until(lambda: job.progress().ended)


def slow_processor(ward: Ward) -> None:
    ward.stack.set_webhooks(drop=1.0)
    job = ward.client.trigger_sync("email", payload=MAIL)
    timeout = "Timeout of 10000 ms reached"
    ward.execute(
        f"update chunk_private.dispatches set answered_at = now(), error = '{timeout}' where job_id = '{job.id}'"
    )
    ward.shows(job, f"webhook failed: {timeout}")
    assert "logs" in ward.examine()[1]["webhooks"]["fix"]
    ward.stack.set_webhooks(drop=0.0)
    job.cancel()


def hung_pg_net(ward: Ward) -> None:
    ward.stack.set_webhooks(pace=3600)
    jobs = [ward.client.trigger_sync("email", payload=MAIL) for _ in range(2)]
    queued = "select 1 from net.http_request_queue"
    until(lambda: ward.rows(queued))
    ward.execute("update chunk_private.dispatches set created_at = created_at - interval '2 minutes'")
    assert "pg_net does not send" in ward.examine()[1]["webhooks"]["detail"]
    ward.type(ward.advice("pg_net does not send"))
    until(lambda: not ward.rows(queued))
    ward.stack.set_webhooks(pace=0.0)
    ward.execute("select net.worker_restart()")
    until(lambda: all(job.progress().ended for job in jobs))


def no_worker(ward: Ward) -> None:
    job = ward.client.trigger_sync("rows", chunks=[{}])
    ward.long_ago()
    ward.shows(job, "no worker has claimed a chunk")
    Worker(ward.client, lambda chunk: None, kinds=["rows"]).run_until_idle()
    assert job.progress().status == "completed"


def lost_workers(ward: Ward) -> None:
    off = "select cron.alter_job((select jobid from cron.job where jobname = 'supabase-chunks-watchdog'), active => false)"
    job = ward.client.trigger_sync("rows", chunks=[{}])
    assert ward.client.queue.claim("lost", kinds=["rows"]) is not None
    ward.type(off)
    ward.execute(
        "update public.chunk_processing_queue set locked_until = now() - interval '2 minutes' where locked_until is not null"
    )
    assert (job.progress().stalled_reason or "").startswith("lost workers: every lease has run out")
    said = ward.type(ward.advice("lost workers"))
    assert "its schedule is switched off" in said
    ward.type(ward.advice("switched off"))
    assert ward.examine()[1]["watchdog"]["ok"]
    ward.client.cleanup_stuck_chunks()
    assert job.progress().status == "failed"


def unsealed(ward: Ward) -> None:
    started = ward.rows("select public.start_sync_job('rows', '[]', sealed => false) ->> 'id'")
    job = ward.client.job(started[0][0])
    ward.long_ago()
    ward.execute(
        f"update public.sync_jobs set created_at = created_at - interval '2 minutes' where id = '{job.id}'"
    )
    ward.shows(job, "waiting for more chunks")
    ward.execute(f"select public.append_sync_chunks('{job.id}', '[]', seal => true)")
    assert job.progress().status == "completed"


def read_only(ward: Ward) -> None:
    ward.execute("alter database postgres set default_transaction_read_only = on")
    try:
        assert "the database is read-only" in ward.examine()[1]["writes"]["detail"]
        with psycopg.connect(ward.stack.postgres_url, autocommit=True) as owner:
            owner.execute(ward.advice("read-only").encode())
            owner.execute("select public.purge_sync_jobs('1 day')")
    finally:
        ward.execute(
            "set session characteristics as transaction read write;; alter database postgres reset default_transaction_read_only"
        )


def copied(ward: Ward) -> None:
    ward.client.configure("https://abcdefghijklmnopqrst.supabase.co", ward.stack.secret_key)
    assert "webhooks do not go to" in ward.examine()[1]["vault"]["detail"]
    ward.type(ward.advice("webhooks do not go to"))
    assert ward.examine()[1]["vault"]["ok"]


def full_user(ward: Ward) -> None:
    ward.client.save_kind("rows", user_startable=True)
    ward.execute("select public.save_chunk_settings('{\"user_max_kept_chunks\": 10}')")
    user = ward.client.as_user(ward.stack.user_token(USER))
    user.trigger_sync("rows", chunks=[{}] * 7).cancel()
    assert ward.examine()[1]["users"]["ok"]
    user.trigger_sync("rows", chunks=[{}]).cancel()
    assert "the user " + USER + " has 8 of 10 chunks" in ward.examine()[1]["users"]["detail"]
    with pytest.raises(LimitExceeded, match="in 30 days"):
        user.trigger_sync("rows", chunks=[{}] * 3)
    ward.type(ward.advice("has` nearly as many"))
    user.trigger_sync("rows", chunks=[{}] * 3).cancel()


def down(ward: Ward) -> None:
    ward.stack.set_webhooks(drop=1.0)
    job = ward.client.trigger_sync("email", payload=MAIL)
    until(lambda: not ward.rows("select 1 from net.http_request_queue"))
    ward.stack.set_webhooks(drop=0.0)
    ward.type(ward.advice("everything was down"))
    until(lambda: job.progress().ended)


def by_hand(ward: Ward) -> None:
    job = ward.client.trigger_sync("rows", chunks=[{}, {}])
    ward.execute(f"delete from chunk_private.slots where job_id = '{job.id}'")
    ward.type(ward.advice("changed by hand"))
    Worker(ward.client, lambda chunk: None, kinds=["rows"]).run_until_idle()
    assert job.progress().completed_chunks == 2


TROUBLES: dict[str, Callable[[Ward], None]] = {
    "failed chunks": failed_chunks,
    "a job that nobody wants": unwanted,
    "the foreign system needs rest": in_need_of_rest,
    "HTTP 401": refused_key,
    "HTTP 404": missing_processor,
    "Timeout": slow_processor,
    "pg_net does not send": hung_pg_net,
    "no worker has claimed": no_worker,
    "lost workers": lost_workers,
    "its schedule is switched off": lost_workers,
    "waiting for more chunks": unsealed,
    "read-only": read_only,
    "webhooks do not go to": copied,
    "the user … has": full_user,
    "everything was down": down,
    "changed by hand": by_hand,
}


def test_every_trouble_of_the_page_is_made() -> None:
    for seen in ROWS:
        assert [name for name in TROUBLES if name in seen], seen
    assert len(ROWS) == len(TROUBLES)


@pytest.mark.parametrize("name", dict.fromkeys(TROUBLES[name].__name__ for name in TROUBLES))
def test_a_trouble_goes_by_the_advice_as_it_stands(ward: Ward, name: str) -> None:
    make = next(make for make in TROUBLES.values() if make.__name__ == name)
    make(ward)
    assert ward.examine()[0] == 0, ward.examine()
    assert ward.client.purge(older_than=timedelta(0)).more is False
