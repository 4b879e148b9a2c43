"""Checkpoints and state on the real stack, through both clients."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

import supabase_chunks as sc
from tests.contract.conftest import done, worker_for
from tests.polling import until

if TYPE_CHECKING:
    from pathlib import Path

    from supabase_chunks.local import LocalStack

# A handler that dies by SIGKILL on its way through the pages of one chunk, whenever the file says so.
WALK = """
import os, signal, sys
from supabase_chunks import ChunksClient, Worker

def handler(chunk):
    page = (chunk.checkpoint or {"page": 0})["page"]
    while page < 9:
        with open(sys.argv[2], "a") as walked:
            walked.write(f"{page}\\n")
        if page in (3, 6) and not os.path.exists(f"{sys.argv[2]}.{page}"):
            open(f"{sys.argv[2]}.{page}", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        page += 1
        chunk.save({"page": page}, items=page)
    return {"pages": page}

Worker(ChunksClient.from_env(), handler, kinds=[sys.argv[1]], lease_seconds=1).run_until_idle()
"""


async def test_a_later_attempt_goes_on_where_the_last_one_saved(client: Any, kind: str) -> None:
    seen: list[Any] = []

    async def handler(chunk: Any) -> object:
        seen.append(chunk.checkpoint)
        if chunk.checkpoint is None:
            await done(chunk.save({"page": 5}, items=50))
            assert chunk.checkpoint == {"page": 5}
            raise sc.RetryLater(0)
        return sc.Result(None, items_processed=80)

    job = await done(client.trigger_sync(kind))
    await done(worker_for(client, handler, kinds=[kind]).run_until_idle())
    assert seen == [None, {"page": 5}]
    progress = await done(job.wait(timeout=5))
    assert (progress.items_processed, progress.completed_chunks) == (80, 1)


async def test_a_function_in_a_thread_saves_too(client: Any, kind: str) -> None:
    def handler(chunk: sc.Chunk) -> object:
        chunk.save({"page": 1})
        return chunk.state()

    job = await done(client.trigger_sync(kind))
    await done(worker_for(client, handler, kinds=[kind]).run_until_idle())
    assert (await done(job.wait(timeout=5))).status == "completed"


async def test_to_continue_costs_no_attempt_and_leaves_others_room(client: Any, kind: str) -> None:
    attempts: list[int] = []

    def handler(chunk: sc.Chunk) -> object:
        attempts.append(chunk.attempt)
        page = (chunk.checkpoint or {"page": 0})["page"] + 1
        return {"pages": page} if page == 30 else sc.Continue({"page": page}, items=page)

    job = await done(client.trigger_sync(kind, max_retries=0))
    await done(worker_for(client, handler, kinds=[kind]).run_until_idle())
    (chunk,) = await done(job.chunks())
    assert (chunk.status, chunk.result, chunk.items_processed) == ("completed", {"pages": 30}, 29)
    assert attempts == [1] * 30


async def test_a_checkpoint_that_cannot_be_stored_is_named(client: Any, kind: str) -> None:
    def handler(chunk: sc.Chunk) -> object:
        if chunk.index == 0:
            return sc.Continue({"a": "x" * 9000})
        if chunk.index == 1:
            return sc.Continue([1])
        chunk.save({"text": "\ud800"})
        return None

    job = await done(client.trigger_sync(kind, chunks=[{}, {}, {}], max_retries=0))
    await done(worker_for(client, handler, kinds=[kind]).run_until_idle())
    rows = await done(job.chunks())
    assert [row.status for row in rows] == ["failed"] * 3
    assert "checkpoint has 9009 bytes" in rows[0].error
    assert "checkpoint: must be a JSON object, not list" in rows[1].error
    assert "checkpoint.text" in rows[2].error


async def test_whoever_has_lost_the_claim_saves_nothing(client: Any, kind: str) -> None:
    job = await done(client.trigger_sync(kind))
    queue = client.queue
    old = await done(queue.claim("one", kinds=[kind]))
    assert (await done(queue.extend(old, checkpoint={"by": "old"}))).ok
    await done(queue.fail(old, "lost", retry_after_seconds=0))
    new = await done(queue.claim("two", kinds=[kind]))
    assert new.checkpoint == {"by": "old"}

    async def handler(chunk: Any) -> None:
        raise AssertionError("never called")

    worker = worker_for(client, handler, kinds=[kind])
    (chunk,) = worker._core.take([old])
    if isinstance(chunk, sc.Chunk | sc.AsyncChunk):
        with pytest.raises(sc.LeaseLost):
            await done(chunk.save({"by": "old again"}))
        assert chunk.cancel_requested
    assert not (await done(queue.extend(old, checkpoint={"by": "old again"}))).ok
    await done(queue.release(new, checkpoint={"by": "new"}, items_processed=3))
    assert (await done(queue.claim("three", kinds=[kind]))).checkpoint == {"by": "new"}
    assert (await done(job.progress())).items_processed == 3


def test_a_killed_worker_repeats_at_most_the_page_it_was_on(
    stack: LocalStack, kind: str, tmp_path: Path
) -> None:
    client = sc.ChunksClient(stack.url, stack.secret_key)
    job = client.trigger_sync(kind, max_retries=1)
    walked = tmp_path / "walked"
    environment = {**os.environ, "SUPABASE_URL": stack.url, "SUPABASE_SECRET_KEY": stack.secret_key}
    deaths = 0
    while job.progress().status != "completed":
        command = [sys.executable, "-c", textwrap.dedent(WALK), kind, str(walked)]
        deaths += subprocess.run(command, env=environment, timeout=60).returncode == -signal.SIGKILL
        until(lambda: client.cleanup_stuck_chunks() or job.progress().processing_chunks == 0)
    assert deaths == 2
    assert [int(line) for line in walked.read_text().split()] == [0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8]
    (chunk,) = job.chunks()
    assert (chunk.result, chunk.items_processed) == ({"pages": 9}, 9)


async def test_the_next_sync_starts_where_the_last_one_ended(client: Any, kind: str) -> None:
    key = str(uuid4())
    found: list[Any] = []

    async def handler(chunk: Any) -> object:
        state = await done(chunk.state()) or {"since": 0}
        found.append(state["since"])
        if chunk.payload.get("fails"):
            raise sc.PermanentFailure("the source is down")
        return sc.Result(None, next_state={"since": state["since"] + 1})

    async def nightly(**payload: Any) -> Any:
        job = await done(client.trigger_sync(kind, payload=payload, job_key=key))
        await done(worker_for(client, handler, kinds=[kind]).run_until_idle())
        return job

    await nightly()
    await nightly()
    await nightly(fails=True)
    assert await done(client.sync_state(kind, key)) == {"since": 2}
    await nightly()
    assert found == [0, 1, 2, 2]
    await done(client.save_sync_state(kind, key, None))
    assert await done(client.sync_state(kind, key)) is None
    with pytest.raises(sc.LimitExceeded, match="state"):
        await done(client.save_sync_state(kind, key, {"a": "x" * 70_000}))
    with pytest.raises(sc.UnknownKind):
        await done(client.save_sync_state("unheard-of", key, {}))
