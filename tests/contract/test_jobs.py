"""Syncs from start to end on the real stack, each case through both clients."""

from __future__ import annotations

import threading
import tracemalloc
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from pydantic import BaseModel

import supabase_chunks as sc
from tests.contract.conftest import both, done, listed, worker_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supabase_chunks.local import LocalStack
    from tests.contract.proxy import Proxy


def double(chunk: sc.Chunk) -> dict[str, int]:
    return {"doubled": chunk.payload["n"] * 2}


class Doubled(BaseModel):
    doubled: int


async def test_a_sync_is_started_worked_and_waited_for(client: Any, kind: str) -> None:
    job = await done(client.trigger_sync(kind, chunks=[{"n": n} for n in range(25)], payload={"for": "us"}))
    assert job.created
    before = await done(job.progress())
    assert (before.status, before.total_chunks, before.pending_chunks) == ("pending", 25, 25)
    assert before.payload == {"for": "us"}
    assert await done(worker_for(client, double, kinds=[kind]).run_until_idle()) == 25
    end = await done(job.wait(timeout=10))
    assert (end.status, end.completed_chunks, end.percent_complete) == ("completed", 25, 100)
    assert await done(job.results(model=Doubled)) == [Doubled(doubled=n * 2) for n in range(25)]
    assert len(await done(job.timeline())) == 25


async def test_a_sync_without_chunks_is_one_with_the_jobs_payload(client: Any, kind: str) -> None:
    job = await done(client.trigger_sync(kind, payload={"n": 21}))
    (chunk,) = await done(job.chunks())
    assert chunk.payload == {"n": 21}
    assert await done(worker_for(client, double, kinds=[kind]).run_until_idle()) == 1
    assert await done(job.results()) == [{"doubled": 42}]


async def test_what_was_tried_before_is_kept_and_drawn(client: Any, kind: str, stack: LocalStack) -> None:
    ann = str(uuid.uuid4())

    def handler(chunk: sc.Chunk) -> None:
        if chunk.index and chunk.attempt == 1:
            raise sc.RetryLater(0, "one hiccup")
        if chunk.index == 2:
            raise sc.PermanentFailure("never")

    job = await done(client.trigger_sync(kind, chunks=[{}] * 3, owner_id=ann))
    assert await done(job.attempts()) == []
    await done(worker_for(client, handler, kinds=[kind]).run_until_idle())
    attempts = await done(job.attempts())
    assert sorted((each.chunk_index, each.attempt, each.outcome, each.error) for each in attempts) == [
        (1, 1, "retrying", "one hiccup"),
        (2, 1, "retrying", "one hiccup"),
        (2, 2, "failed", "never"),
    ]
    timeline = await done(job.timeline())
    assert sorted(span.chunk_index for span in timeline.before) == [1, 2]
    assert all(span.end is not None for span in timeline)
    theirs = client.as_user(stack.user_token(ann)).job(job.id)
    assert await done(theirs.attempts()) == attempts
    others = client.as_user(stack.user_token(str(uuid.uuid4()))).job(job.id)
    with pytest.raises(sc.JobNotFound):
        await done(others.attempts())


async def test_watch_gives_snapshots_that_only_grow_until_the_end(client: Any, kind: str) -> None:
    job = await done(client.trigger_sync(kind, chunks=[{"n": n} for n in range(30)]))
    gate = threading.Semaphore(0)

    def handler(chunk: sc.Chunk) -> None:
        gate.acquire(timeout=10)

    with sc.ChunksClient(client._credentials.url, client._credentials.key) as other:
        worker = sc.Worker(other, handler, kinds=[kind], concurrency=3)
        thread = threading.Thread(target=worker.run_until_idle)
        thread.start()
        seen = []
        watch = job.watch(interval=0.02, timeout=20)
        if hasattr(watch, "__aiter__"):
            async for progress in watch:
                seen.append(progress)
                gate.release(3)
        else:
            for progress in watch:
                seen.append(progress)
                gate.release(3)
        thread.join()
    assert seen[-1].status == "completed"
    counts = [progress.completed_chunks for progress in seen]
    assert counts == sorted(counts)
    assert len(seen) > 3
    for progress in seen:
        assert progress.total_chunks == 30
        assert progress.ended_chunks + progress.pending_chunks + progress.processing_chunks == 30


async def test_a_long_iterable_arrives_whole_in_order_and_is_never_held_whole(client: Any, kind: str) -> None:
    count = 20_000

    def chunks() -> Iterator[dict[str, object]]:
        for n in range(count):
            yield {"n": n, "text": "x" * 100}

    tracemalloc.start()
    try:
        job = await done(client.trigger_sync(kind, chunks=chunks()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000, "two pages and a request, not twenty thousand chunks"
    progress = await done(job.progress())
    assert progress.total_chunks == count
    assert not progress.stalled, "the last page has sealed it"
    rows = await done(job.chunks(limit=1500))
    assert [row.payload["n"] for row in rows] == list(range(1500))
    await done(job.cancel())


async def test_sizes_make_chunks_of_offset_and_limit(client: Any, kind: str) -> None:
    job = await done(client.trigger_sync(kind, total_items=25, chunk_size=10))
    rows = await done(job.chunks())
    assert [row.payload for row in rows] == [
        {"offset": 0, "limit": 10},
        {"offset": 10, "limit": 10},
        {"offset": 20, "limit": 5},
    ]


async def test_a_job_key_finds_the_running_job(client: Any, kind: str) -> None:
    first = await done(client.trigger_sync(kind, chunks=[{"n": 1}], job_key="nightly"))
    second = await done(client.trigger_sync(kind, chunks=[{"n": n} for n in range(1500)], job_key="nightly"))
    assert (first.created, second.created) == (True, False)
    assert first.id == second.id
    assert (await done(first.progress())).total_chunks == 1
    await done(first.cancel())
    third = await done(client.trigger_sync(kind, chunks=[{"n": 1}], job_key="nightly"))
    assert third.created
    assert third.id != first.id


@pytest.mark.parametrize("which", ["sync", "async"])
@pytest.mark.parametrize("count", [3, 2500])
async def test_a_lost_reply_makes_no_second_job_and_loses_no_page(
    stack: LocalStack, proxy: Proxy, kind: str, which: str, count: int
) -> None:
    async with both(which, proxy.url, stack.secret_key) as client:
        proxy.lose_the_next_reply_to("start_sync_job")
        job = await done(client.trigger_sync(kind, chunks=[{"n": n} for n in range(count)]))
        assert proxy.lost == 1
        assert job.created
        assert len(await done(client.jobs(kind=kind))) == 1
        assert (await done(job.progress())).total_chunks == count


@pytest.mark.parametrize("which", ["sync", "async"])
async def test_a_lost_reply_to_a_page_adds_it_once(
    stack: LocalStack, proxy: Proxy, kind: str, which: str
) -> None:
    async with both(which, proxy.url, stack.secret_key) as client:
        proxy.lose_the_next_reply_to("append_sync_chunks")
        job = await done(client.trigger_sync(kind, chunks=[{"n": n} for n in range(1500)]))
        assert proxy.lost == 1
        assert (await done(job.progress())).total_chunks == 1500


async def test_pause_resume_and_cancel_may_be_repeated(client: Any, kind: str) -> None:
    job = await done(client.trigger_sync(kind, chunks=[{"n": n} for n in range(5)]))
    worker = worker_for(client, double, kinds=[kind])
    for _ in range(2):
        assert (await done(job.pause())).status == "paused"
    assert await done(worker.run_until_idle()) == 0
    for _ in range(2):
        assert (await done(job.resume())).status in ("pending", "running")
    for _ in range(2):
        assert (await done(job.cancel())).cancelled_chunks == 5
    with pytest.raises(sc.JobCancelled):
        await done(job.wait())
    with pytest.raises(sc.InvalidState):
        await done(job.pause())


async def test_a_failed_job_tells_its_errors_and_only_the_failed_chunks_are_retried(
    client: Any, kind: str
) -> None:
    runs: list[int] = []
    broken = True

    def handler(chunk: sc.Chunk) -> str:
        runs.append(chunk.index)
        if chunk.index % 2 and broken:
            raise sc.PermanentFailure(f"chunk {chunk.index} is broken")
        return "fine"

    job = await done(client.trigger_sync(kind, chunks=[{"n": n} for n in range(6)]))
    worker = worker_for(client, handler, kinds=[kind])
    await done(worker.run_until_idle())
    with pytest.raises(sc.JobFailed, match="3 of 6 chunks failed") as caught:
        await done(job.wait())
    assert [chunk.error for chunk in caught.value.errors] == [f"chunk {n} is broken" for n in (1, 3, 5)]
    broken, before = False, len(runs)
    assert (await done(job.retry_failed())).failed_chunks == 0
    await done(worker.run_until_idle())
    assert sorted(runs[before:]) == [1, 3, 5]
    assert (await done(job.wait())).status == "completed"


async def test_lists_go_past_the_servers_thousand_rows(client: Any, kind: str) -> None:
    def handler(chunk: sc.Chunk) -> None:
        raise sc.PermanentFailure("no")

    job = await done(client.trigger_sync(kind, chunks=({"n": n} for n in range(2500)), max_concurrency=1000))
    await done(worker_for(client, handler, kinds=[kind], concurrency=8, prefetch=92).run_until_idle())
    failed = await done(job.chunks(status="failed"))
    assert [chunk.chunk_index for chunk in failed] == list(range(2500))


async def test_jobs_are_listed_newest_first_and_filtered(client: Any, kind: str) -> None:
    made = [(await done(client.trigger_sync(kind, chunks=[{"n": n}]))).id for n in range(5)]
    await done(client.job(made[0]).cancel())
    assert [job.id for job in await done(client.jobs(kind=kind))] == made[::-1]
    assert [job.id for job in await done(client.jobs(kind=kind, status="cancelled"))] == made[:1]
    assert [job.id for job in await done(client.jobs(kind=kind, limit=2))] == made[:2:-1]


@pytest.mark.parametrize("part", ["postgrest", "postgres"])
async def test_watch_survives_a_crash(client: Any, kind: str, stack: LocalStack, part: str) -> None:
    job = await done(client.trigger_sync(kind, chunks=[{"n": 1}]))
    restarted = threading.Event()

    def restart_and_work() -> None:
        stack.kill(part)
        stack.wait_until_ready()
        restarted.set()
        with sc.ChunksClient(stack.url, stack.secret_key) as other:
            sc.Worker(other, double, kinds=[kind]).run_until_idle()

    helper = threading.Thread(target=restart_and_work)
    helper.start()
    seen = await listed(job.watch(timeout=30))
    helper.join()
    assert restarted.is_set()
    assert seen[-1].status == "completed"


async def test_the_errors_of_the_database_are_typed(client: Any, kind: str) -> None:
    with pytest.raises(sc.JobNotFound):
        await done(client.job(uuid.uuid4()).progress())
    for read in ("chunks", "results", "timeline", "throughput"):
        with pytest.raises(sc.JobNotFound):
            await done(getattr(client.job(uuid.uuid4()), read)())
    with pytest.raises(sc.JobNotFound):
        await done(client.trigger_next_chunk_processing(job_id=uuid.uuid4()))
    with pytest.raises(sc.UnknownKind, match=r"there are .*custom"):
        await done(client.trigger_sync("no-such-kind"))
    for call in (
        client.trigger_sync,
        lambda name: client.jobs(kind=name),
        lambda name: client.sync_state(name, "k"),
    ):
        with pytest.raises(sc.UnknownKind, match="did you mean 'custom'"):
            await done(call("cutsom"))
    with pytest.raises(sc.InvalidArgument, match="priority"):
        await done(client.trigger_sync(kind, priority=9))
    with pytest.raises(sc.LimitExceeded):
        await done(client.trigger_sync(kind, total_items=1_000_000_000, chunk_size=1))
    with pytest.raises(sc.UnknownKind, match="no-such-kind"):
        await done(worker_for(client, double, kinds=["no-such-kind"]).run_until_idle())


async def test_wait_says_that_a_kind_without_handler_needs_a_worker(
    client: Any, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supabase_chunks._wait._UNCLAIMED_AFTER", 0.1)
    job = await done(client.trigger_sync(kind, chunks=[{"n": 1}]))
    with pytest.raises(sc.WaitTimeout):
        await done(job.wait(timeout=1, progress=True))
    assert f"the kind '{kind}' has no handler" in capsys.readouterr().err
    assert (await done(job.progress())).status == "pending", "waiting leaves the job alone"


async def test_maintenance_calls_answer(client: Any, kind: str) -> None:
    health = await done(client.health())
    assert health.extensions
    assert await done(client.cleanup_stuck_chunks()) >= 0
    assert await done(client.trigger_next_chunk_processing()) == 0
    assert (await done(client.purge())).more is False
    assert kind in [known.kind for known in await done(client.kinds())]


async def test_jobs_made_in_the_same_instant_are_all_listed_once(
    client: Any, kind: str, stack: LocalStack
) -> None:
    with psycopg.connect(stack.db_url, autocommit=True) as connection:
        connection.execute(
            "select public.start_sync_job(%s, '[]'::jsonb) from generate_series(1, 1200)", [kind]
        )
    jobs = await done(client.jobs(kind=kind, limit=None))
    assert len(jobs) == len({job.id for job in jobs}) == 1200
    assert len({job.snapshot.created_at for job in jobs}) == 1
