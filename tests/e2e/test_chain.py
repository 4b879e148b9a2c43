"""A job goes from chunk to chunk: by the processor's draining, and by the database's webhooks alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from supabase_chunks import ChunksClient
from supabase_chunks.local import LocalStack
from tests.handlers import write_functions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from supabase_chunks.models import Progress

# What the real pg_net sleeps between two batches, in seconds.
PG_NET_PACE = 1.0

HANDLER = """
import { serveHandler } from "../_shared/serve.ts";

export default serveHandler(({ payload }) => ({ result: payload.n, items_processed: 1 }));
"""


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The functions, and a handler that does nothing."""
    return write_functions(tmp_path_factory.mktemp("project") / "functions", "idle", HANDLER)


@pytest.fixture(scope="module")
def draining(functions: Path) -> Iterator[LocalStack]:
    """A stack whose processor drains."""
    with LocalStack(functions=functions) as stack:
        yield stack


@pytest.fixture(scope="module")
def chaining(functions: Path) -> Iterator[LocalStack]:
    """A stack whose processor does one chunk an invocation."""
    with LocalStack(functions=functions, functions_env={"CHUNKS_PER_INVOCATION": "1"}) as stack:
        yield stack


def run(stack: LocalStack, chunks: int, max_concurrency: int) -> Progress:
    """Run a job to its end; every chunk's effect is there once."""
    with ChunksClient(stack.url, stack.secret_key) as client:
        client.save_kind("idle", handler="idle", max_concurrency=max_concurrency)
        job = client.trigger_sync("idle", chunks=[{"n": n} for n in range(chunks)])
        progress = job.wait(timeout=60)
        assert progress.items_processed == chunks
        assert sorted(job.results()) == list(range(chunks))
    return progress


def webhooks(stack: LocalStack, job: Progress) -> int:
    """How many webhooks were sent for a job."""
    with psycopg.connect(stack.db_url) as connection:
        row = connection.execute(
            "select count(*) from chunk_private.dispatches where job_id = %s", [job.id]
        ).fetchone()
    assert row is not None
    count: int = row[0]
    return count


def seconds(job: Progress) -> float:
    """From the first claim to the end."""
    assert job.started_at is not None
    assert job.completed_at is not None
    return (job.completed_at - job.started_at).total_seconds()


def test_draining_needs_a_webhook_an_invocation_only(draining: LocalStack) -> None:
    job = run(draining, chunks=200, max_concurrency=4)
    assert webhooks(draining, job) <= 4 + 2


def test_draining_does_not_wait_for_the_pace_of_webhooks(draining: LocalStack) -> None:
    draining.set_webhooks(pace=PG_NET_PACE)
    try:
        job = run(draining, chunks=200, max_concurrency=1)
        # By webhooks alone it would be some 200 s.
        assert seconds(job) < 200 * PG_NET_PACE / 4
    finally:
        draining.set_webhooks(pace=0.0)


@pytest.mark.parametrize("max_concurrency", [1, 4])
def test_one_chunk_an_invocation_goes_on_by_webhooks_alone(
    chaining: LocalStack, max_concurrency: int
) -> None:
    job = run(chaining, chunks=40, max_concurrency=max_concurrency)
    assert 40 <= webhooks(chaining, job) <= 40 + 2


def test_the_chain_of_webhooks_holds_at_their_real_pace(chaining: LocalStack) -> None:
    chaining.set_webhooks(pace=PG_NET_PACE)
    try:
        job = run(chaining, chunks=8, max_concurrency=2)
        assert 8 <= webhooks(chaining, job) <= 8 + 2
    finally:
        chaining.set_webhooks(pace=0.0)
