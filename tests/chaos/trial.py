"""A job whose every chunk leaves a mark in a table, so that what a fault did can be counted afterwards."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
from psycopg.rows import dict_row

from supabase_chunks import ChunksClient
from supabase_chunks.local import LocalStack
from tests.polling import until
from tests.sql import invariants
from tests.sql.database import Session
from tests.sql.server import FINISHES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from supabase_chunks.jobs import Job
    from supabase_chunks.models import Progress

KIND = "marks"
CHUNKS = 200
# Short, so that a killed worker is missed soon; far longer than a chunk.
LEASE_SECONDS = 4

# As a handler should be: repeating it changes nothing but the count of runs.
SCHEMA = """
create table public.marks (
  job uuid, chunk int, n int, runs int not null default 1, primary key (job, chunk)
);
grant select, insert, update on public.marks to service_role;
create function public.leave_mark(job uuid, chunk int, n int) returns int
language sql set search_path = ''
as $$
  insert into public.marks as m (job, chunk, n) values ($1, $2, $3)
  on conflict (job, chunk) do update set n = excluded.n, runs = m.runs + 1
  returning m.runs
$$;
revoke execute on function public.leave_mark from public;
grant execute on function public.leave_mark to service_role;
notify pgrst, 'reload schema';
"""

HANDLER = """
import { serveHandler } from "../_shared/serve.ts";

export default serveHandler(async ({ job_id, chunk_index, attempt, payload }, { rpc }) => {
  if (payload.url) {
    const response = await fetch(payload.url);
    await response.body?.cancel();
    if (!response.ok) throw new Error("the service is down");
  }
  if (payload.ms) await new Promise((resolve) => setTimeout(resolve, payload.ms));
  if (attempt <= (payload.failures ?? 0)) throw new Error("as the chunk asks");
  await rpc("leave_mark", { job: job_id, chunk: chunk_index, n: payload.n });
  return { result: payload.n, items_processed: 1 };
});
"""


@contextmanager
def marking(functions: Path, **environment: str) -> Iterator[LocalStack]:
    """A stack with that handler and its table."""
    with LocalStack(functions=functions, functions_env=environment) as stack:
        with psycopg.connect(stack.postgres_url, autocommit=True) as owner:
            owner.execute(SCHEMA)
            owner.execute(FINISHES)
        # PostgREST hears of the new function a moment later.
        mark = {"job": "00000000-0000-0000-0000-000000000000", "chunk": 0, "n": 0}
        url, headers = f"{stack.url}/rest/v1/rpc/leave_mark", {"apikey": stack.secret_key}
        until(
            lambda: httpx.post(url, headers=headers, json=mark).status_code == 200,
            "the handler's function is known",
        )
        with ChunksClient(stack.url, stack.secret_key) as client:
            client.save_kind(
                KIND,
                handler=KIND,
                max_concurrency=4,
                max_retries=20,
                lease_seconds=LEASE_SECONDS,
                retry_delay_seconds=1,
            )
        yield stack


class Trial:
    """One job on a stack that is going to be hurt."""

    def __init__(self, stack: LocalStack, client: ChunksClient, name: str) -> None:
        self.stack = stack
        self.client = client
        self.name = name
        self.job: Job
        self._last_fault = time.monotonic()

    def start(
        self, *, ms: int = 0, chunks: int = CHUNKS, failures: Callable[[int], int] = lambda n: 0
    ) -> None:
        """Start the job.

        Args:
            ms: How long each chunk takes.
            chunks: How many.
            failures: How often the n-th fails before it succeeds.
        """
        payloads = [{"n": n * n, "ms": ms, "failures": failures(n)} for n in range(chunks)]
        self.job = self.client.trigger_sync(KIND, chunks=payloads)

    def done(self, chunks: int) -> None:
        """Wait until so many chunks are completed."""
        until(lambda: self.progress().completed_chunks >= chunks, f"{chunks} chunks are completed")

    def progress(self) -> Progress:
        """How far it is; the call itself is repeated while parts of the stack are down."""
        return self.job.progress()

    def restart_clock_of_watchdog(self) -> None:
        """Let the stack's cron run its next pass half a minute from now: it counts from when it first sees a job."""
        with psycopg.connect(self.stack.postgres_url, autocommit=True) as owner:
            owner.execute("select cron.unschedule('supabase-chunks-watchdog')")
            owner.execute("select chunk_private.schedule_watchdog()")

    def fault(self) -> None:
        """Note that the last fault is now."""
        self._last_fault = time.monotonic()

    def comes_home(self, within: float, *, clean: bool = False) -> None:
        """The job ends completed, each chunk's effect is there once, every counter is right.

        Args:
            within: Seconds from the last fault.
            clean: Run the watchdog's pass each second, as a project without pg_cron would from elsewhere; else
                only the stack's own cron does.
        """
        deadline = self._last_fault + within
        next_pass = time.monotonic()
        while not (progress := self.progress()).ended:
            assert time.monotonic() < deadline, f"not home {within:g} s after the last fault: {progress}"
            if clean and time.monotonic() >= next_pass:
                self.client.cleanup_stuck_chunks()
                next_pass = time.monotonic() + 1
            time.sleep(0.1)
        seconds = time.monotonic() - self._last_fault
        runs = self._check(progress)
        print(
            f"{self.name}: home {seconds:.1f} s after the last fault; {progress.total_chunks} chunks,"
            f" {runs} runs, {self.webhooks()} webhooks"
        )

    def webhooks(self) -> int:
        """How many webhooks were asked for."""
        query = "select count(*) as n from chunk_private.dispatches where job_id = %s"
        return int(self._rows(query, self.job.id)[0]["n"])

    def waiting_webhooks(self) -> int:
        """How many requests wait in pg_net."""
        return int(self._rows("select count(*) as n from net.http_request_queue")[0]["n"])

    def locked_until(self) -> Any:
        """The end of the first chunk's lease, which each heartbeat moves; None when it has none."""
        query = "select locked_until from public.chunk_processing_queue where parent_sync_job_id = %s and chunk_index = 0"
        return self._rows(query, self.job.id)[0]["locked_until"]

    def invocations(self) -> int:
        """By how many calls of the processor the chunks were completed."""
        query = "select count(distinct worker_id) as n from public.chunk_processing_queue where parent_sync_job_id = %s"
        return int(self._rows(query, self.job.id)[0]["n"])

    def _check(self, progress: Progress) -> int:
        total = progress.total_chunks
        assert progress.status == "completed", progress
        counted = {name: count for name, count in progress if name.endswith("_chunks") and count}
        assert counted == {"total_chunks": total, "completed_chunks": total}
        assert progress.items_processed == total
        assert sorted(self.job.results()) == [n * n for n in range(total)]
        marks = self._rows(
            "select chunk, n, runs from public.marks where job = %s order by chunk", self.job.id
        )
        assert [(mark["chunk"], mark["n"]) for mark in marks] == [(n, n * n) for n in range(total)]
        (job,) = self._rows(
            "select tests.finishes(id) as finishes from public.sync_jobs where id = %s", self.job.id
        )
        assert job["finishes"] == 1
        with psycopg.connect(self.stack.db_url, autocommit=True, row_factory=dict_row) as connection:
            invariants.check(Session(connection))
        return sum(mark["runs"] for mark in marks)

    def _rows(self, query: Any, *parameters: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self.stack.db_url, autocommit=True, row_factory=dict_row) as connection:
            return connection.execute(query, parameters).fetchall()
