"""How soon a place of a limit key is taken that somebody else has freed, with nothing beside it."""

from __future__ import annotations

import asyncio
import queue
import random
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import supabase_chunks as sc
from supabase_chunks.local import LocalStack

FREED = 30


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    """A project without Edge Functions."""
    with LocalStack(functions=None) as running:
        yield running


@contextmanager
def sync_worker(stack: LocalStack, kind: str, took: queue.Queue[float]) -> Iterator[None]:
    """A worker in threads that keeps what it takes."""
    ended = threading.Event()

    def handler(_chunk: sc.Chunk) -> None:
        took.put(time.monotonic())
        ended.wait()

    with sc.ChunksClient(stack.url, stack.secret_key) as client:
        worker = sc.Worker(client, handler, kinds=[kind], concurrency=FREED + 4, handle_signals=False)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            yield
        finally:
            worker.stop()
            ended.set()
            thread.join()


@contextmanager
def async_worker(stack: LocalStack, kind: str, took: queue.Queue[float]) -> Iterator[None]:
    """The same in tasks."""
    ready: queue.Queue[tuple[asyncio.AbstractEventLoop, asyncio.Event, sc.AsyncWorker]] = queue.Queue()

    async def work() -> None:
        ended = asyncio.Event()

        async def handler(_chunk: sc.AsyncChunk) -> None:
            took.put(time.monotonic())
            await ended.wait()

        async with sc.AsyncChunksClient(stack.url, stack.secret_key) as client:
            worker = sc.AsyncWorker(
                client, handler, kinds=[kind], concurrency=FREED + 4, handle_signals=False
            )
            ready.put((asyncio.get_running_loop(), ended, worker))
            await worker.run()

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    loop, ended, worker = ready.get(timeout=10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(worker.stop)
        loop.call_soon_threadsafe(ended.set)
        thread.join()


@pytest.mark.parametrize("running", [sync_worker, async_worker])
def test_a_freed_place_is_taken_within_a_tenth_of_a_second(
    stack: LocalStack, running: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a worker that would ask once a second, of a job of which chunks are processing, too."""
    monkeypatch.setattr("supabase_chunks._backoff._FIRST_IDLE", 1.0)
    key, theirs, ours = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("key", "theirs", "ours"))
    took: queue.Queue[float] = queue.Queue()
    with sc.ChunksClient(stack.url, stack.secret_key) as client:
        for kind in (theirs, ours):
            client.save_kind(kind, max_concurrency=FREED + 4)
        client.save_limit(key, max_concurrency=FREED + 1)
        client.trigger_sync(theirs, chunks=[{}] * FREED, limit_key=key)
        held = client.queue.claim_batch("theirs", FREED, kinds=[theirs])
        assert len(held) == FREED
        job = client.trigger_sync(ours, chunks=[{}] * (FREED + 4), limit_key=key)
        delays = []
        with running(stack, ours, took):  # type: ignore[operator]  # one of the two above
            took.get(timeout=10)
            for claim in held:
                time.sleep(random.uniform(0.02, 0.08))  # at any moment of its pauses
                assert took.empty()
                freed = time.monotonic()
                client.queue.complete(claim)
                delays.append(took.get(timeout=5) - freed)
        job.cancel()
    seen = f"median {statistics.median(delays) * 1000:.0f} ms, longest {max(delays) * 1000:.0f} ms"
    assert max(delays) <= 0.1, seen
