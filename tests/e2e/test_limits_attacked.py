"""Python workers and Edge Functions at once on one limit key, watched from outside, with all that can go wrong."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from supabase_chunks import Chunk, ChunksClient, Throttled, Worker
from supabase_chunks.local import LocalStack
from tests.e2e.crowded import CrowdedApi, crowded_api
from tests.e2e.handlers import copy_functions, write_handler
from tests.polling import until
from tests.sql import invariants
from tests.sql.database import Session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from supabase_chunks import Job

KEY = "api.example.com"
PLACES, RATE = 5, 60
WORKERS = 4  # of four threads each
# What a request may be late on its way: it is let through by the database's clock, and comes by the network.
LATE = 0.15
HANDLER = """
import { serveHandler, Throttled } from "../_shared/serve.ts";

export default serveHandler(async ({ payload }, { pace, signal }) => {
  await pace();
  await (await fetch(payload.url, { signal })).text();
  if (Math.random() < payload.trouble) throw new Throttled(0);
  if (Math.random() < payload.trouble) throw new Error("as the chunk asks");
  return { items_processed: 1 };
});
"""


@pytest.fixture(scope="session")
def crowded() -> Iterator[CrowdedApi]:
    """What all of them ask."""
    with crowded_api(0.03) as api:
        yield api


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack with a handler of the kind `edge`, and a kind for Python."""
    functions: Path = copy_functions(tmp_path_factory.mktemp("attacked"))
    write_handler(functions, "edge", HANDLER)
    # Small budgets, so that webhooks start most of it.
    with LocalStack(functions=functions, functions_env={"CHUNKS_PER_INVOCATION": "5"}) as stack:
        with ChunksClient(stack.url, stack.secret_key) as client:
            for kind, handler in (("edge", "edge"), ("python", "")):
                client.save_kind(
                    kind,
                    handler=handler,
                    max_concurrency=8,
                    max_retries=50,
                    retry_delay_seconds=0,
                    lease_seconds=15,
                )
        yield stack


class Watch:
    """Looks at the database, again and again: how many chunks of the key are processing, and whether all is well."""

    def __init__(self, stack: LocalStack) -> None:
        self.most = 0
        self.looks = 0
        self.broken: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, args=(stack.db_url,))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self, dsn: str) -> None:
        with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
            session = Session(connection)
            while not self._stop.wait(0.005):
                self.looks += 1
                processing = session.value(
                    "select count(*) from public.chunk_processing_queue q"
                    " join public.sync_jobs j on j.id = q.parent_sync_job_id"
                    " where j.limit_key = %s and q.status = 'processing'",
                    KEY,
                )
                self.most = max(self.most, processing)
                if self.looks % 20 == 0:
                    self.broken += invariants.broken(session)


def make_handler(trouble: float) -> Any:
    """What a chunk does in Python: the same as the Edge Function."""
    dice = random.Random(1)

    def handler(chunk: Chunk) -> None:
        chunk.pace()
        httpx.get(chunk.payload["url"]).raise_for_status()
        if dice.random() < trouble:
            raise Throttled(0)
        if dice.random() < trouble:
            raise ValueError("as the chunk asks")

    return handler


@contextmanager
def workers(stack: LocalStack, trouble: float) -> Iterator[None]:
    """Sixteen threads of Python workers, while the block lasts."""
    with ExitStack() as opened:
        running = []
        for _ in range(WORKERS):
            client = opened.enter_context(ChunksClient(stack.url, stack.secret_key))
            worker = Worker(client, make_handler(trouble), kinds=["python"], handle_signals=False)
            running.append(worker)
        pool = opened.enter_context(ThreadPoolExecutor(WORKERS))
        for worker in running:
            pool.submit(worker.run)
        try:
            yield
        finally:
            for worker in running:
                worker.stop()


def meddle(stack: LocalStack, client: ChunksClient, jobs: list[Job], until_: float) -> None:
    """Pause, resume, cancel, retry and purge; lose workers; roll callers back."""
    dice = random.Random(2)
    cancelled, *others = jobs
    lose_at = time.monotonic()
    cancel_at = time.monotonic() + 0.3 * (until_ - time.monotonic())
    with psycopg.connect(stack.db_url, row_factory=dict_row) as connection:
        caller = Session(connection)
        while time.monotonic() < until_:
            job = dice.choice(others)
            act = dice.randrange(5)
            if act == 0:
                progress = job.progress()
                if progress.status in ("pending", "running"):
                    job.pause()
                    job.resume()
            elif act == 1 and time.monotonic() > lose_at:
                lose_at = time.monotonic() + 2  # each holds a place for a second at least
                client.queue.claim("lost", kinds=["python"], lease_seconds=1)
            elif act == 2:
                if (chunk := caller.claim(kinds=["python"])) is not None:
                    caller.complete(chunk, claim_next=True)
                connection.rollback()
            elif act == 3:
                client.cleanup_stuck_chunks()
                client.purge(older_than=timedelta(hours=1))
            elif job.progress().status in ("pending", "running"):
                job.retry_failed()
            if cancelled.progress().status not in ("cancelled", "completed") and time.monotonic() > cancel_at:
                cancelled.cancel()
            time.sleep(0.05)


def attack(stack: LocalStack, api: CrowdedApi, *, chunks: int, meddling: float) -> None:
    """Let all of it loose, and see that every job ends and the limit held at each look."""
    api.arrivals.clear()
    api.most_inside = 0
    with ChunksClient(stack.url, stack.secret_key) as client, Watch(stack) as watch:
        client.save_limit(KEY, max_concurrency=PLACES, rate=RATE)
        jobs = [
            client.trigger_sync(
                kind,
                chunks=[{"url": api.url + path, "trouble": 0.05}] * chunks,
                limit_key=KEY,
                priority=priority,
            )
            for kind, path, priority in (
                ("python", "cancelled", 0),
                ("python", "", 1),
                ("edge", "", 0),
                ("edge", "", 1),
            )
        ]
        with workers(stack, 0.05):
            meddle(stack, client, jobs, time.monotonic() + meddling)
            statuses = [job.wait(timeout=60 + 2 * meddling, raise_on_failure=False).status for job in jobs]
    assert watch.broken == []
    assert watch.looks > 50
    assert 1 < watch.most <= PLACES
    assert 1 < api.most_inside <= PLACES
    assert len(api.arrivals) > chunks
    assert api.most_within(1 - LATE) <= RATE
    with psycopg.connect(stack.db_url, autocommit=True, row_factory=dict_row) as connection:
        session = Session(connection)
        session.cleanup()
        assert session.value("select count(*) from chunk_private.slots where limit_key = %s", KEY) == 0
        assert invariants.not_level(session) == []
        assert invariants.broken(session) == []
    assert statuses[1:] == ["completed"] * 3
    assert statuses[0] in ("cancelled", "completed")


def test_a_limit_holds_against_everything_at_once(attacked: LocalStack, crowded: CrowdedApi) -> None:
    attack(attacked, crowded, chunks=25, meddling=1.5)


@pytest.mark.soak
def test_a_limit_holds_for_a_minute(attacked: LocalStack, crowded: CrowdedApi) -> None:
    attack(attacked, crowded, chunks=400, meddling=60.0)


def test_a_freed_place_is_taken_by_one_webhook(attacked: LocalStack, crowded: CrowdedApi) -> None:
    with (
        ChunksClient(attacked.url, attacked.secret_key) as client,
        psycopg.connect(attacked.db_url, autocommit=True, row_factory=dict_row) as connection,
    ):
        session = Session(connection)
        client.save_limit("one", max_concurrency=1)
        client.trigger_sync("python", chunks=[{}], limit_key="one", priority=3)
        held = client.queue.claim("by hand", kinds=["python"])
        assert held is not None
        work = [{"url": crowded.url, "trouble": 0}]
        job = client.trigger_sync("edge", chunks=work, limit_key="one")
        sent = "select count(*) from chunk_private.dispatches where job_id = %s"
        assert session.value(sent, job.id) == 0
        assert job.progress().waiting_for is not None
        client.queue.complete(held)
        assert job.wait(timeout=20).status == "completed"
        assert session.value(sent, job.id) == 1


def test_hundreds_of_jobs_of_one_key_start_with_a_handful_of_webhooks(
    attacked: LocalStack, crowded: CrowdedApi
) -> None:
    with psycopg.connect(attacked.db_url, autocommit=True, row_factory=dict_row) as connection:
        session = Session(connection)
        session.call("save_sync_limit", key="crowd", max_concurrency=4)
        session.execute(
            "select public.start_sync_job('edge', limit_key => 'crowd', max_concurrency => 1, owner_id => null,"
            " payload => jsonb_build_object('url', %s::text, 'trouble', 0)) from generate_series(1, 300)",
            crowded.url,
        )
        webhooks = (
            "select count(*) from chunk_private.dispatches d join public.sync_jobs j on j.id = d.job_id"
            " where j.limit_key = 'crowd'"
        )
        assert session.value(webhooks) <= 4
        ended = "select count(*) from public.sync_jobs where limit_key = 'crowd' and completed_at is not null"
        until(lambda: session.value(ended) >= 20, "they take turns")
        # One call a transaction: together they would wait for gates while they have the key.
        for row in session.rows(
            "select id from public.sync_jobs where limit_key = 'crowd' and completed_at is null"
        ):
            try:
                session.control("cancel_sync_job", row["id"])
            except psycopg.Error as error:
                assert error.sqlstate == "SC005"  # noqa: PT017 - it has ended meanwhile
        assert session.value("select count(*) from chunk_private.slots where limit_key = 'crowd'") == 0
