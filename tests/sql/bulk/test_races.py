"""Batches on many connections at once."""

from __future__ import annotations

import random
import threading
import time

import pytest

from tests.sql import invariants
from tests.sql.database import Database, Row, Session, reports
from tests.sql.threads import together


@pytest.mark.parametrize(
    ("jobs", "cap", "failing"), [(1, 1000, 0.0), (1, 40, 0.3), (6, 16, 0.2), (12, 3, 0.3)]
)
def test_batches_never_deadlock_and_bring_all_to_the_end(
    db: Database, service: Session, jobs: int, cap: int, failing: float
) -> None:
    service.call("save_sync_kind", kind="bulk", max_concurrency=1000, max_retries=100, retry_delay_seconds=0)
    for _ in range(jobs):
        service.start("bulk", chunks=[{}] * (1200 // jobs), max_concurrency=cap)

    def work(session: Session, number: int) -> int:
        dice = random.Random(number)
        done = idle = 0
        deadline = time.monotonic() + 40
        while idle < 20 and time.monotonic() < deadline:
            size = dice.randrange(1, 40)
            batch = session.call("claim_chunk_jobs_safe", worker_id="w", batch_size=size, kinds=["bulk"])
            idle = 0 if batch else idle + 1
            dice.shuffle(batch)
            batch_reports = [
                {
                    "chunk_id": chunk["chunk_id"],
                    "claim_token": chunk["claim_token"],
                    "success": dice.random() >= failing,
                }
                for chunk in batch
            ]
            answers = session.call("complete_chunk_jobs_safe", completions=batch_reports)
            assert {answer["outcome"] for answer in answers} <= {"completed", "retrying"}
            done += sum(answer["outcome"] == "completed" for answer in answers)
        return done

    assert sum(together(db, 8, work)) == jobs * (1200 // jobs)
    assert service.rows("select distinct status, tests.finishes(id) as finishes from public.sync_jobs") == [
        {"status": "completed", "finishes": 1}
    ]
    invariants.check(service)


def test_singles_batches_and_heartbeats_together(db: Database, service: Session) -> None:
    for _ in range(4):
        service.start(chunks=[{}] * 100, max_concurrency=20)

    def work(session: Session, number: int) -> None:
        idle = 0
        while idle < 20:
            batch = session.call("claim_chunk_jobs_safe", worker_id="w", batch_size=10, kinds=["plain"])
            idle = 0 if batch else idle + 1
            held = reports(batch)
            session.call("extend_chunk_leases", leases=held[::-1])
            if number % 2:
                for report in held:
                    session.call("complete_chunk_job_safe", **report)
            elif held:
                session.call("complete_chunk_jobs_safe", completions=held[::-1])

    together(db, 8, work)
    assert service.rows("select distinct status, tests.finishes(id) as finishes from public.sync_jobs") == [
        {"status": "completed", "finishes": 1}
    ]
    invariants.check(service)


def test_batches_that_share_the_last_fresh_chunks_lose_no_slot(db: Database, service: Session) -> None:
    """Eight workers report twelve chunks each at the same moment, and forty are left for the ninety-six free slots."""
    workers, size, left = 8, 12, 40
    jobs = [
        service.start(chunks=[{}] * (workers * size + left), max_concurrency=workers * size)["id"]
        for _ in range(30)
    ]
    hands = [
        service.call(
            "claim_chunk_jobs_safe", worker_id="w", batch_size=100, parent_sync_job_id=job, kinds=["plain"]
        )
        for job in jobs
    ]
    lined_up = threading.Barrier(workers)

    def work(session: Session, number: int) -> None:
        for hand in hands:
            mine = hand[number * size : (number + 1) * size]
            lined_up.wait()
            session.call("complete_chunk_jobs_safe", completions=reports(mine))

    together(db, workers, work)
    assert service.rows("select distinct count(*) as slots from chunk_private.slots group by job_id") == [
        {"slots": left}
    ]
    invariants.check(service)


def test_reports_of_the_same_chunks_in_opposite_orders_both_get_their_answer(
    db: Database, service: Session
) -> None:
    """As when a worker repeats a call whose first one is still under way."""
    service.start(chunks=[{}] * 1000, max_concurrency=1000)
    hands = [
        reports(service.call("claim_chunk_jobs_safe", worker_id="w", batch_size=40, kinds=["plain"]))
        for _ in range(25)
    ]
    lined_up = threading.Barrier(2, timeout=20)

    def work(session: Session, number: int) -> None:
        for hand in hands:
            lined_up.wait()
            answers = session.call("complete_chunk_jobs_safe", completions=hand[:: 1 - 2 * number])
            assert {answer["outcome"] for answer in answers} == {"completed"}

    together(db, 2, work)
    assert service.rows("select status, tests.finishes(id) as finishes from public.sync_jobs") == [
        {"status": "completed", "finishes": 1}
    ]
    invariants.check(service)


def test_batches_of_one_job_do_not_wait_for_each_other(db: Database, service: Session) -> None:
    """Once under way: a batch's slots go to chunks that are counted in one place."""
    service.start(chunks=[{}] * 2000, max_concurrency=100)

    def claim() -> list[Row]:
        batch: list[Row] = service.call(
            "claim_chunk_jobs_safe", worker_id="w", batch_size=10, kinds=["plain"]
        )
        return batch

    for _ in range(10):
        service.call("complete_chunk_jobs_safe", completions=reports(claim()))
    batches = [claim() for _ in range(8)]
    for batch in batches:
        session = db.connect(autocommit=False, settings="-c lock_timeout=5s")
        answers = session.call("complete_chunk_jobs_safe", completions=reports(batch))
        assert {answer["outcome"] for answer in answers} == {"completed"}
