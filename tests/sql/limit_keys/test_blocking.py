"""Being throttled: the chunk goes back without an attempt, its key is blocked, and nobody polls meanwhile."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.sql import invariants
from tests.sql.cleanup.hooks import configure, sent
from tests.sql.database import Row, Session, refused
from tests.sql.limit_keys.test_places import KEY, check, limit, start

HOUR = timedelta(hours=1)


def throttle(service: Session, chunk: Row, seconds: int = 60, **report: Any) -> Any:
    """Report a chunk throttled."""
    return service.fail(chunk, "429 Too Many Requests", throttled_seconds=seconds, **report)


def block(service: Session, seconds: int, reason: str | None = None) -> Any:
    """Block KEY."""
    return service.call("block_sync_limit", key=KEY, seconds=seconds, reason=reason)


def blocked_for(service: Session) -> float:
    """Seconds that KEY is blocked for."""
    until: datetime = service.value("select blocked_until from public.sync_limits where key = %s", KEY)
    return (until - datetime.now(UTC)).total_seconds()


def test_a_throttled_chunk_costs_no_attempt_and_blocks_its_key(service: Session) -> None:
    limit(service)
    first, second = start(service), start(service)
    chunk = service.claimed()
    answer = throttle(service, chunk)
    assert (answer["outcome"], answer["chunk_status"], answer["next"]) == ("throttled", "pending", None)
    assert throttle(service, chunk)["outcome"] == "throttled"
    assert 50 < blocked_for(service) <= 60
    assert service.claim() is None
    assert service.claim(second) is None
    row = service.chunks(first)[0]
    assert (row["attempts"], row["has_failed"], row["error"]) == (0, False, None)
    assert [a["outcome"] for a in service.attempts(chunk["chunk_id"])] == ["throttled"]
    check(service)
    service.pass_time(timedelta(seconds=61))
    check(service)
    assert service.drain() == 6


def test_without_a_key_only_the_chunk_waits(service: Session) -> None:
    job = service.start(chunks=[{}, {}], max_concurrency=1)["id"]
    throttle(service, service.claimed())
    other = service.claimed()
    assert other["chunk_index"] == 1
    assert service.claim() is None
    service.complete(other)
    invariants.check(service)
    service.pass_time(timedelta(seconds=61))
    assert service.claimed(job)["attempt"] == 1


def test_a_report_blocks_for_an_hour_at_most_and_never_shortens_a_block(service: Session) -> None:
    limit(service)
    start(service)
    held = [service.claimed() for _ in range(2)]
    throttle(service, held[0], 86400)
    assert 3590 < blocked_for(service) <= 3600
    throttle(service, held[1], 5)
    assert blocked_for(service) > 3590
    check(service)


def test_many_in_one_report(service: Session) -> None:
    limit(service, 4)
    start(service, 4)
    held = [service.claimed() for _ in range(3)]
    items = [
        {
            "chunk_id": c["chunk_id"],
            "claim_token": str(c["claim_token"]),
            "success": False,
            "error": "slow down",
        }
        | {"throttled_seconds": seconds}
        for c, seconds in zip(held, (10, 30, 20), strict=True)
    ]
    answers = service.call("complete_chunk_jobs_safe", completions=items)
    assert [(a["outcome"], a["chunk_status"]) for a in answers] == [("throttled", "pending")] * 3
    assert 25 < blocked_for(service) <= 30
    check(service)


def test_the_hundred_and_first_time_without_progress_counts(service: Session) -> None:
    service.call("save_chunk_settings", settings={"max_throttled": 2})
    service.start(chunks=[{}], max_retries=0)
    for _ in range(2):
        assert throttle(service, service.claimed(), 0)["outcome"] == "throttled"
    chunk = service.claimed()
    service.extend(chunk, checkpoint={"page": 1})
    for _ in range(3):
        answer = throttle(service, chunk, 0)
        chunk = service.claim() or chunk
    assert answer["outcome"] == "failed"
    assert "too often" in service.attempts(chunk["chunk_id"])[-1]["error"]
    assert service.value("select count(*) from chunk_private.chunk_attempts where outcome = 'throttled'") == 4


def test_a_key_blocked_for_an_hour_wakes_nobody(service: Session, admin: Session) -> None:
    configure(service)
    limit(service)
    block(service, 3600, "quota")
    jobs = [start(service, 2, "web") for _ in range(3)]
    for _ in range(3):
        service.cleanup()
    assert sent(admin) == []
    state = "select coalesce(sum(n_tup_upd), 0) from pg_stat_all_tables where relname = 'slots'"
    service.execute("select pg_stat_force_next_flush()")
    before = admin.value(state)
    for _ in range(20):
        assert service.claim(kinds=None) is None
    service.execute("select pg_stat_force_next_flush()")
    assert admin.value(state) == before
    assert {c["attempts"] for job in jobs for c in service.chunks(job)} == {0}
    check(service)
    service.pass_time(HOUR)
    service.cleanup()
    assert len(sent(admin)) == 2
    assert service.drain(kinds=None) == 6


def test_the_end_of_a_block_is_noticed_by_a_claim_at_once(service: Session) -> None:
    limit(service)
    start(service)
    block(service, 1)
    assert service.claim() is None
    end = time.monotonic() + 10
    while (chunk := service.claim()) is None and time.monotonic() < end:
        time.sleep(0.02)
    assert chunk is not None
    check(service)


def test_a_short_block_is_waited_for_by_the_webhook(service: Session, admin: Session) -> None:
    configure(service)
    limit(service)
    block(service, 10)
    start(service, 2, "web")
    assert [5 <= body["wait_seconds"] <= 10 for body in sent(admin)] == [True, True]


@pytest.mark.parametrize("seconds", [0, 7200])
def test_a_block_can_be_ended_and_lengthened(service: Session, admin: Session, seconds: int) -> None:
    configure(service)
    limit(service)
    start(service, 4, "web")
    block(service, 3600, "quota")
    service.call("append_sync_chunks", parent_sync_job_id=start(service, 1, "web"), chunks=[{}])
    assert service.call("list_sync_limits", key=KEY)[0]["blocked_reason"] == "quota"
    shown = block(service, seconds)
    assert (shown["blocked_until"] is None) is (seconds == 0)
    check(service)
    service.pass_time(HOUR)
    service.cleanup()
    assert (service.claim(kinds=None) is None) is (seconds > 0)
    check(service)


def test_what_a_job_waits_for_is_seen_and_is_not_stalled(service: Session) -> None:
    limit(service, 1)
    first, second = start(service), start(service)
    chunk = service.claimed()
    assert service.progress(first)["waiting_for"] is None
    expected = {"key": KEY, "until": None, "reason": None, "processing": 1, "max_concurrency": 1}
    assert service.progress(second)["waiting_for"] == expected
    throttle(service, chunk, 600)
    service.pass_time(timedelta(minutes=5))
    for job in (first, second):
        progress = service.progress(job)
        assert progress["stalled"] is False
        assert progress["waiting_for"]["until"] is not None
        assert progress["waiting_for"]["reason"] == "429 Too Many Requests"
    assert service.call("chunk_system_health")["blocked_limits"][0]["key"] == KEY
    service.pass_time(timedelta(minutes=6))
    # One has its turn, the other waits for it.
    assert [service.progress(job)["waiting_for"] for job in (first, second)].count(None) == 1


def test_what_makes_no_sense_is_refused(service: Session) -> None:
    start(service)
    chunk = service.claimed()
    with refused("SC003", "throttled_seconds"):
        service.complete(chunk, throttled_seconds=1)
    with refused("SC003", "throttled_seconds"):
        service.fail(chunk, throttled_seconds=-1)
    with refused("SC003", "seconds"):
        block(service, -1)
    with refused("SC003", "key"):
        service.call("block_sync_limit", key="", seconds=1)
    with refused("SC003", "max_concurrency"):
        limit(service, 0)
