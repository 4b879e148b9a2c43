"""What type checkers must make of the public names. Checked, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any, TypedDict, assert_type
from uuid import UUID

import httpx
from pydantic import BaseModel

from supabase_chunks import (
    AsyncChunk,
    AsyncChunksClient,
    AsyncJob,
    AsyncWorker,
    Chunk,
    ChunkRecord,
    ChunksClient,
    ChunkStatus,
    Claim,
    Completion,
    EmailAccount,
    EmailFolder,
    Health,
    Job,
    JobFailed,
    JobStatus,
    Kind,
    Lease,
    Progress,
    Purged,
    ResponseError,
    Result,
    Retry,
    Throughput,
    Timeline,
    Worker,
)


class Page(BaseModel):
    """A payload, and a result."""

    rows: int


class Shape(TypedDict):
    """A payload that stays a dictionary."""

    rows: int


def sync(client: ChunksClient) -> None:
    """Use the sync client."""
    assert_type(ChunksClient.from_env(), ChunksClient)
    assert_type(
        ChunksClient("https://x", "k", http_client=httpx.Client(), retry=Retry(attempts=2)), ChunksClient
    )
    assert_type(client.as_user(lambda: "token"), ChunksClient)
    job = client.trigger_sync("email", payload={"account": "work"}, job_key="work")
    assert_type(job, Job)
    assert_type(client.trigger_sync("custom", chunks=({"n": n} for n in range(3))), Job)
    assert_type(client.trigger_sync("custom", chunks=[Page(rows=1)]), Job)
    assert_type(client.job("6f2c8d3e-0000-4000-8000-000000000000"), Job)
    assert_type(client.jobs(status=JobStatus.FAILED), list[Job])
    assert_type(client.jobs(status="failed"), list[Job])
    client.jobs(status="complete")  # type: ignore[arg-type]  # no state of a job
    job.chunks(status="running")  # type: ignore[arg-type]  # a job's, and not a chunk's
    assert_type(job.chunks(status=ChunkStatus.FAILED), list[ChunkRecord])
    assert_type(job.id, UUID)
    assert_type(job.created, bool)
    assert_type(job.progress(), Progress)
    assert_type(job.watch(interval=1), Iterator[Progress])
    assert_type(job.wait(progress=True), Progress)
    assert_type(job.wait(progress=lambda progress: print(progress.percent_complete)), Progress)
    assert_type(job.cancel(), Progress)
    assert_type(job.chunks(status="failed"), list[ChunkRecord])
    assert_type(job.results(), list[Any])
    assert_type(job.results(model=Page), list[Page])
    assert_type(job.results(model=int), list[int])
    assert_type(job.timeline(), Timeline)
    assert_type(job.throughput(), Throughput)
    assert_type(client.save_kind("k"), Kind)
    assert_type(client.remove_kind("k"), bool)
    assert_type(client.kinds(), list[Kind])
    assert_type(client.email.save_account("a", host="h", username="u", password="p"), UUID)
    assert_type(client.email.accounts(), list[EmailAccount])
    assert_type(client.email.folders("a"), list[EmailFolder])
    assert_type(client.cleanup_stuck_chunks(stuck_after=timedelta(minutes=5)), int)
    assert_type(client.health(), Health)
    assert_type(client.health().extensions["pg_net"], str | None)
    assert_type(client.health().stalled_jobs[0].id, UUID)
    assert_type(client.configure("https://x", "k").watchdog.scheduled, bool)
    assert_type(client.purge(), Purged)
    claim = client.queue.claim("w", kinds=["custom"])
    assert_type(claim, Claim | None)
    if claim is not None:
        assert_type(client.queue.complete(claim, Page(rows=1)), Completion)
        assert_type(client.queue.extend(claim), Lease)
    assert_type(client.queue.claim_batch("w", 10), list[Claim])
    with client as entered:
        assert_type(entered, ChunksClient)


async def asynchronous(client: AsyncChunksClient) -> None:
    """Use the async client."""

    async def token() -> str:
        return "token"

    async def source() -> AsyncIterator[dict[str, int]]:
        yield {"n": 1}

    assert_type(client.as_user(token), AsyncChunksClient)
    job = await client.trigger_sync("custom", chunks=source())
    assert_type(job, AsyncJob)
    assert_type(await job.progress(), Progress)
    assert_type(job.watch(), AsyncIterator[Progress])
    assert_type(await job.wait(), Progress)
    assert_type(await job.results(model=Page), list[Page])
    assert_type(await client.jobs(), list[AsyncJob])
    assert_type(await client.queue.claim("w"), Claim | None)
    async with client as entered:
        assert_type(entered, AsyncChunksClient)


def function(chunk: Chunk) -> Result:
    """Handle a chunk."""
    assert_type(chunk.attempt, int)
    assert_type(chunk.payload, dict[str, Any])
    assert_type(chunk.job_id, UUID)
    assert_type(chunk.idempotency_key, str)
    assert_type(chunk.cancel_requested, bool)
    chunk.report(3)
    return Result({"rows": 1}, next_chunks=[{"page": 2}])


async def coroutine(chunk: Chunk) -> dict[str, int]:
    """Handle a chunk."""
    return {"index": chunk.index}


def paged(chunk: Chunk[Page]) -> int:
    """Handle a chunk whose payload is a page."""
    assert_type(chunk.payload, Page)
    return chunk.payload.rows


async def paged_async(chunk: AsyncChunk[Page]) -> int:
    """Handle one whose methods are awaited."""
    assert_type(chunk.payload, Page)
    await chunk.save({"row": 1})
    return chunk.payload.rows


def shaped(chunk: Chunk[Shape]) -> int:
    """Handle a chunk whose payload stays a dictionary."""
    assert_type(chunk.payload["rows"], int)
    return chunk.payload["rows"]


def workers(client: ChunksClient, asynchronous_client: AsyncChunksClient) -> None:
    """Set up workers."""
    assert_type(Worker(client, function, kinds=["custom"]).run_until_idle(), int)
    Worker(client, coroutine, kinds=["custom"], concurrency=8, prefetch=8)
    AsyncWorker(asynchronous_client, coroutine, kinds=["custom"])
    AsyncWorker(asynchronous_client, function, kinds=["custom"]).stop()
    Worker(client, lambda chunk: chunk.payload["page"], kinds=["custom"])
    Worker(client, paged, kinds=["custom"], payload=Page)
    Worker(client, shaped, kinds=["custom"], payload=Shape)
    Worker(client, lambda chunk: chunk.payload.rows, kinds=["custom"], payload=Page)
    AsyncWorker(asynchronous_client, paged, kinds=["custom"], payload=Page)
    AsyncWorker(asynchronous_client, paged_async, kinds=["custom"], payload=Page)
    Worker(client, paged, kinds=["custom"])  # type: ignore[arg-type]  # nobody makes pages of the payloads
    Worker(client, paged, kinds=["custom"], payload=Shape)  # type: ignore[arg-type]  # no pages either
    Worker(client, {"custom": paged}, kinds=["custom"])  # type: ignore[call-overload]  # no function


def failures(job: Job) -> None:
    """Handle errors."""
    try:
        job.wait()
    except JobFailed as error:
        assert_type(error.errors, tuple[ChunkRecord, ...])
        assert_type(error.progress, Progress | None)
    except ResponseError as error:
        assert_type(error.status, int | None)
        assert_type(error.retry_after, float | None)
