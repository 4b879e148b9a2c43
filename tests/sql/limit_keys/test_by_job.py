"""Claims by a job's id: with a limit key nothing stands still where workers name their jobs, and the jobs take turns."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from tests.sql.cleanup.hooks import configure, sent
from tests.sql.database import Database, Row, Session
from tests.sql.limit_keys.test_blocking import block
from tests.sql.limit_keys.test_places import KEY, check, limit, start
from tests.sql.threads import together

A_MOMENT = timedelta(seconds=3)


def claim(service: Session, job: str, how: str = "one", size: int = 1) -> Row | None:
    """Claim by a job's id, one chunk or a batch."""
    if how == "one":
        return service.claim(job)
    batch = service.call(
        "claim_chunk_jobs_safe", worker_id="w", batch_size=size, parent_sync_job_id=job, kinds=["plain"]
    )
    return batch[0] if batch else None


@pytest.mark.parametrize("how", ["one", "batch"])
def test_a_job_goes_on_though_another_is_awake_that_nobody_works_on(service: Session, how: str) -> None:
    limit(service, 1)
    nobodys, job = start(service), start(service)
    assert claim(service, job, how) is None  # somebody may still come for the one that was woken
    service.pass_time(A_MOMENT)
    for _ in range(3):
        chunk = claim(service, job, how)
        assert chunk is not None
        assert claim(service, job, how) is None
        check(service)
        service.complete(chunk)
        check(service)
    assert service.progress(job)["status"] == "completed"
    assert service.drain(nobodys) == 3


def test_jobs_that_are_asked_for_take_turns(service: Session) -> None:
    limit(service, 1)
    start(service)
    jobs = [start(service, 4) for _ in range(3)]
    service.pass_time(A_MOMENT)
    order: list[int] = []
    held: tuple[int, Row] | None = None
    for turn in range(100):
        number = turn % 3
        if held is not None and held[0] == number:
            service.complete(held[1])
            held = None  # and asks again at once
        chunk = service.claim(jobs[number])
        if chunk is not None:
            order.append(number)
            held = number, chunk
    assert len(order) == 12
    assert all(Counter(order[at : at + 3]) == {0: 1, 1: 1, 2: 1} for at in range(0, 12, 3)), order
    check(service)


def test_who_does_not_ask_any_more_is_not_waited_for(service: Session) -> None:
    limit(service, 1)
    start(service)
    gone, job = start(service), start(service)
    service.pass_time(A_MOMENT)
    chunk = service.claimed(job)
    assert service.claim(gone) is None
    service.complete(chunk)
    assert service.claim(job) is None
    service.pass_time(A_MOMENT)
    service.complete(service.claimed(job))
    assert service.claimed(job)


def test_a_batch_gets_what_there_is_room_for(service: Session) -> None:
    limit(service, 4)
    start(service, 4)
    job = start(service, 9)
    service.pass_time(A_MOMENT)
    batch = service.call(
        "claim_chunk_jobs_safe", worker_id="w", batch_size=9, parent_sync_job_id=job, kinds=["plain"]
    )
    assert [chunk["chunk_index"] for chunk in batch] == [0, 1, 2, 3]
    assert service.claim(job) is None
    check(service)


def test_a_claim_whose_answer_was_lost_is_answered_again(service: Session) -> None:
    limit(service, 1)
    start(service)
    job, claim_id = start(service), uuid.uuid4()
    service.pass_time(A_MOMENT)
    assert service.claimed(job, claim_id=claim_id) == service.claimed(job, claim_id=claim_id)
    check(service)


def test_a_webhook_under_way_is_waited_for(service: Session, admin: Session) -> None:
    configure(service)
    limit(service, 1)
    start(service, 1, "web")
    job = start(service, 1, "web")
    assert len(sent(admin)) == 1
    service.pass_time(A_MOMENT)
    assert service.claim(job, kinds=None) is None
    service.pass_time(timedelta(seconds=31))
    assert service.claimed(job, kinds=None)


def test_other_kinds_and_a_block_are_kept_to(service: Session) -> None:
    limit(service, 1)
    start(service)
    job = start(service)
    service.pass_time(A_MOMENT)
    assert service.claim(job, kinds=["private"]) is None
    assert service.claim(job, kinds=None) is None
    block(service, 60)
    assert service.claim(job) is None
    check(service)


def test_a_fleet_of_workers_that_name_their_jobs_finishes(db: Database, service: Session) -> None:
    limit(service, 2)
    for _ in range(3):
        start(service)
    jobs = [start(service, 12, max_concurrency=1) for _ in range(6)]
    service.pass_time(A_MOMENT)
    done: Counter[int] = Counter()

    def work(session: Session, number: int) -> int:
        end = time.monotonic() + 30
        while time.monotonic() < end and done[number] < 12:
            chunk = session.claim(jobs[number])
            if chunk is None:
                time.sleep(0.01)
                continue
            session.complete(chunk)
            done[number] += 1
        return done[number]

    assert together(db, 6, work) == [12] * 6
    assert [service.progress(job)["status"] for job in jobs] == ["completed"] * 6
    check(service)
    assert service.drain() == 9


def seekers(service: Session) -> list[Any]:
    """Jobs of which it is noted that somebody asks for them."""
    return [row["job_id"] for row in service.rows("select job_id from chunk_private.limit_seekers")]


def test_what_is_noted_of_who_asks_is_forgotten(service: Session) -> None:
    limit(service, 1)
    start(service)
    jobs = [start(service, 1) for _ in range(2)]
    assert service.claim(jobs[0]) is None
    assert len(seekers(service)) == 1
    service.pass_time(timedelta(minutes=2))
    service.claimed()
    assert service.claim(jobs[1]) is None
    assert [str(job) for job in seekers(service)] == [jobs[1]]
    service.pass_time(timedelta(hours=2))
    service.cleanup()
    assert seekers(service) == []
    assert KEY in [row["key"] for row in service.call("list_sync_limits")]
