"""max_concurrency holds whatever the workers do."""

from __future__ import annotations

import random
import time
from datetime import timedelta

from tests.sql import invariants
from tests.sql.database import Database, Session
from tests.sql.threads import together

CAP = 5


def test_sixteen_workers_with_failures_and_deaths_never_exceed_the_cap(
    db: Database, service: Session
) -> None:
    """Each commit is looked at, by a statement of its own snapshot, while all of this goes on."""
    service.call("save_sync_kind", kind="quick", max_concurrency=CAP, max_retries=50, retry_delay_seconds=0)
    job = service.start("quick", chunks=[{}] * 150, max_concurrency=CAP)["id"]
    over: list[str] = []

    def work(session: Session, number: int) -> None:
        dice = random.Random(number)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if number == 0:  # the observer, who is the watchdog too
                over.extend(invariants.broken(session))
                session.cleanup(stuck_after=timedelta(milliseconds=20))
                if session.progress(job)["status"] in ("completed", "failed"):
                    return
                continue
            chunk = session.claim(job, kinds=["quick"])
            if chunk is None:
                if session.progress(job)["status"] in ("completed", "failed"):
                    return
                continue
            act = dice.random()
            if act < 0.6:
                session.complete(chunk, claim_next=act < 0.2)
            elif act < 0.75:
                session.fail(chunk)
            elif act < 0.85:
                session.give_back(chunk)
            # else: it dies, and the watchdog takes the chunk back

    together(db, 16, work)
    assert over == []
    progress = service.progress(job)
    assert progress["status"] == "completed"
    assert progress["completed_chunks"] == 150
    assert service.value("select tests.finishes(id) from public.sync_jobs") == 1
    invariants.check(service)


def test_a_claim_by_job_is_capped_too(db: Database, service: Session) -> None:
    job = service.start(chunks=[{}] * 40, max_concurrency=CAP)["id"]
    got = together(db, 16, lambda session, _: session.claim(job))
    assert sum(chunk is not None for chunk in got) == CAP
    invariants.check(service)


def test_a_batch_claim_takes_no_more_than_the_cap(service: Session) -> None:
    service.start(chunks=[{}] * 40, max_concurrency=CAP)
    batch = service.call("claim_chunk_jobs_safe", worker_id="w", batch_size=100, kinds=["plain"])
    assert len(batch) == CAP
    assert len({chunk["claim_token"] for chunk in batch}) == CAP
    invariants.check(service)


def test_no_two_workers_get_the_same_chunk(db: Database, service: Session) -> None:
    service.start(chunks=[{}] * 400, max_concurrency=400)

    def work(session: Session, number: int) -> list[int]:
        got = []
        for turn in range(10):
            if number % 2:
                chunk = session.claim()
                got += [chunk["chunk_id"]] if chunk else []
            else:
                size = 1 + turn % 5
                batch = session.call("claim_chunk_jobs_safe", worker_id="w", batch_size=size, kinds=["plain"])
                assert len(batch) <= size
                got += [chunk["chunk_id"] for chunk in batch]
        return got

    taken = [chunk_id for part in together(db, 16, work) for chunk_id in part]
    assert len(taken) == len(set(taken)) == 8 * 10 + 8 * 30
