"""Limits across jobs and being throttled, on the real stack, through both clients and workers."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

import supabase_chunks as sc
from tests.contract.conftest import done, worker_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supabase_chunks.local import LocalStack


@pytest.fixture
def key(sync_client: sc.ChunksClient) -> Iterator[str]:
    """A limit key that no other test has."""
    key = f"an API of {uuid.uuid4().hex[:8]}"
    yield key
    sync_client.block_limit(key, 0)
    sync_client.save_limit(key)


async def test_what_is_set_of_a_key_is_listed(client: Any, key: str) -> None:
    saved = await done(client.save_limit(key, max_concurrency=3, rate=100, per_seconds=60))
    assert (saved.key, saved.max_concurrency, saved.rate, saved.per_seconds) == (key, 3, 100, 60)
    blocked = await done(client.block_limit(key, 59.5, reason="maintenance"))
    assert blocked.blocked_reason == "maintenance"
    assert key in [limit.key for limit in await done(client.limits())]
    assert (await done(client.block_limit(key, 0))).blocked_until is None
    await done(client.save_limit(key))
    assert key not in [limit.key for limit in await done(client.limits())]


async def test_bad_limits_are_named(client: Any, key: str) -> None:
    for wrong in ({"max_concurrency": 0}, {"rate": 0}, {"rate": 1, "per_seconds": 0}):
        with pytest.raises(sc.InvalidArgument, match=list(wrong)[-1]):
            await done(client.save_limit(key, **wrong))
    with pytest.raises(sc.InvalidArgument, match="seconds"):
        await done(client.block_limit(key, 700_000))
    with pytest.raises(sc.InvalidArgument, match="key"):
        await done(client.save_limit("", rate=1))


async def test_jobs_of_one_key_never_have_more_at_once(client: Any, kind: str, key: str) -> None:
    await done(client.save_limit(key, max_concurrency=2))
    jobs = [
        await done(client.trigger_sync(kind, chunks=[{"n": n} for n in range(4)], limit_key=key))
        for _ in range(3)
    ]
    running, most = 0, 0

    def handler(chunk: sc.Chunk) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.02)
        running -= 1

    await done(worker_for(client, handler, kinds=[kind], concurrency=8).run_until_idle())
    assert most == 2
    assert [(await done(job.progress())).status for job in jobs] == ["completed"] * 3


async def test_being_throttled_costs_no_attempt_and_holds_all_of_the_key_back(
    client: Any, kind: str, key: str
) -> None:
    first = await done(client.trigger_sync(kind, chunks=[{}] * 2, limit_key=key, max_retries=0))
    second = await done(client.trigger_sync(kind, chunks=[{}], limit_key=key, max_retries=0))
    calls: list[float] = []

    async def handler(chunk: Any) -> None:
        calls.append(time.monotonic())
        assert chunk.attempt == 1
        if len(calls) == 1:
            raise sc.Throttled(1, "429 Too Many Requests")

    worker = worker_for(client, handler, kinds=[kind], concurrency=1)
    await done(worker.run_until_idle())
    assert worker.summary() == "3 completed, 1 throttled"
    assert calls[1] - calls[0] > 0.9
    assert len(calls) == 4
    for job in (first, second):
        assert (await done(job.wait(timeout=5))).status == "completed"
    attempts = [*(await done(first.attempts())), *(await done(second.attempts()))]
    assert [(attempt.outcome, attempt.error) for attempt in attempts] == [
        ("throttled", "429 Too Many Requests")
    ]


async def test_without_a_key_only_the_chunk_waits(client: Any, kind: str) -> None:
    job = await done(client.trigger_sync(kind, chunks=[{"n": 0}, {"n": 1}], max_retries=0))
    order: list[int] = []

    async def handler(chunk: Any) -> None:
        order.append(chunk.index)
        if order == [0]:
            raise sc.Throttled(1)

    await done(worker_for(client, handler, kinds=[kind], concurrency=1).run_until_idle())
    assert order == [0, 1, 0]
    assert (await done(job.wait(timeout=5))).status == "completed"


async def test_requests_keep_to_the_pace(client: Any, kind: str, key: str) -> None:
    await done(client.save_limit(key, rate=5))
    await done(client.trigger_sync(kind, chunks=[{}] * 4, limit_key=key))
    asked: list[float] = []

    async def handler(chunk: Any) -> None:
        for _ in range(2):
            await done(chunk.pace())
            asked.append(time.monotonic())
        if chunk.index == 0:
            with pytest.raises(sc.InvalidArgument, match="n must be between 1 and 5"):
                await done(chunk.pace(6))

    await done(worker_for(client, handler, kinds=[kind], concurrency=4).run_until_idle())
    asked.sort()
    assert len(asked) == 8
    # 5 a second are 0.2 s apart, as the database counts; what comes late is not made up for.
    assert asked[-1] - asked[0] > 7 * 0.2 - 0.1


async def test_a_job_without_a_key_has_no_pace(client: Any, kind: str) -> None:
    job = await done(client.trigger_sync(kind))

    async def handler(chunk: Any) -> None:
        await done(chunk.pace(1000))

    await done(worker_for(client, handler, kinds=[kind]).run_until_idle())
    assert (await done(job.wait(timeout=5))).status == "completed"


async def test_who_waits_hears_of_the_block_and_not_of_missing_workers(
    client: Any, kind: str, key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("supabase_chunks._wait._UNCLAIMED_AFTER", 0.1)
    await done(client.block_limit(key, 60, reason="quota used up"))
    job = await done(client.trigger_sync(kind, limit_key=key))
    progress = await done(job.progress())
    assert not progress.stalled
    assert progress.waiting_for.key == key
    assert progress.waiting_for.reason == "quota used up"
    assert progress.waiting_for.until is not None
    with pytest.raises(sc.WaitTimeout):
        await done(job.wait(timeout=0.6, interval=0.1, progress=True))
    said = capsys.readouterr()
    assert f"the limit key {key} is blocked (quota used up)" in said.out + said.err
    assert "nobody has claimed" not in said.out + said.err
    await done(job.cancel())


async def test_a_user_has_no_keys_of_others_and_sees_no_counts(
    stack: LocalStack, sync_client: sc.ChunksClient, key: str
) -> None:
    kind = f"theirs-{uuid.uuid4().hex[:8]}"
    sync_client.save_kind(kind, user_startable=True, limit_by="account", limit_each=1)
    owner = str(uuid.uuid4())
    with sc.ChunksClient(stack.url, stack.publishable_key, access_token=stack.user_token(owner)) as user:
        with pytest.raises(sc.InvalidArgument, match="limit_key"):
            user.trigger_sync(kind, limit_key=key)
        for refused in (user.limits, lambda: user.save_limit(key, rate=1), lambda: user.block_limit(key, 1)):
            with pytest.raises(sc.PermissionDenied):
                refused()
        jobs = [user.trigger_sync(kind, payload={"account": "work"}) for _ in range(2)]
        claim = sync_client.queue.claim("w", kinds=[kind])
        assert claim is not None
        assert sync_client.queue.claim("w", kinds=[kind]) is None
        waiting = next(job for job in jobs if job.id != claim.parent_sync_job_id)
        seen = user.job(waiting.id).progress().waiting_for
        assert seen is not None
        assert (seen.key, seen.until) == (f"{kind}:{owner}:work", None)
        assert (seen.reason, seen.processing, seen.max_concurrency) == (None, None, None)
        by_service = sync_client.job(waiting.id).progress().waiting_for
        assert by_service is not None
        assert (by_service.processing, by_service.max_concurrency) == (1, 1)
        answer = sync_client.queue.fail(claim, "slow down", throttled_seconds=1)
        assert answer.outcome == sc.Outcome.THROTTLED
        for job in jobs:
            job.cancel()
