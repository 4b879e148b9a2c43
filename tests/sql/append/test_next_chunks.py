"""A chunk that finds more work says so in its completion."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.sql import invariants
from tests.sql.database import Database, Session, refused
from tests.sql.threads import blocked, together, until


def test_next_chunks_come_with_the_completion(service: Session) -> None:
    job = service.start(chunks=[{"plan": True}])["id"]
    answer = service.complete(service.claimed(job), next_chunks=[{"n": 1}, {"n": 2}], items_total=20)
    assert (answer["outcome"], answer["job_status"], answer["remaining"]) == ("completed", "running", 2)
    progress = service.progress(job)
    assert (progress["total_chunks"], progress["items_total"]) == (3, 20)
    assert [row["payload"] for row in service.chunks(job)] == [{"plan": True}, {"n": 1}, {"n": 2}]
    invariants.check(service)
    assert service.drain(job) == 2
    assert service.progress(job)["status"] == "completed"


@pytest.mark.parametrize("none", [None, []])
def test_no_next_chunks_end_the_job(service: Session, none: list[object] | None) -> None:
    job = service.start(chunks=[{}])["id"]
    arguments = {} if none is None else {"next_chunks": none}
    assert service.complete(service.claimed(job), **arguments)["job_status"] == "completed"


def test_the_job_cannot_finish_in_between(db: Database, service: Session, admin: Session) -> None:
    """The last other chunk is reported while a planning chunk's report with more chunks is open, and the reverse."""
    for planner_first in (True, False):
        job = service.start(chunks=[{}, {}])["id"]
        plan, other = service.claimed(job), service.claimed(job)
        first = db.connect(autocommit=False)
        second = db.connect()
        with ThreadPoolExecutor(1) as pool:
            if planner_first:
                first.complete(plan, next_chunks=[{}])
                later = pool.submit(second.complete, other)
            else:
                first.complete(other)
                later = pool.submit(second.complete, plan, next_chunks=[{}])
            until(lambda: blocked(admin))
            first.connection.commit()
            later.result()
        assert service.progress(job)["status"] == "running"
        invariants.check(service)
        assert service.drain(job) == 1
        assert service.progress(job)["status"] == "completed"


def test_a_repeated_report_adds_them_once(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job)
    first = service.complete(chunk, next_chunks=[{}])
    again = service.complete(chunk, next_chunks=[{}])
    assert (first["outcome"], again["outcome"]) == ("completed", "completed")
    assert service.progress(job)["total_chunks"] == 2


def test_next_chunks_with_a_failure_are_refused_and_the_chunk_stays_claimed(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job)
    with refused("SC003", "next_chunks"):
        service.fail(chunk, next_chunks=[{}])
    assert service.complete(chunk)["outcome"] == "completed"


def test_they_fill_free_slots_at_once(service: Session) -> None:
    job = service.start(chunks=[{}], max_concurrency=4)["id"]
    answer = service.complete(service.claimed(job), next_chunks=[{}] * 10, claim_next=True)
    assert answer["next"] is not None
    assert len(service.slots(job)) == 4
    invariants.check(service)


def test_sixteen_workers_whose_chunks_branch(db: Database, service: Session) -> None:
    """Each chunk of depth d makes two of depth d-1: 2^7 - 1 chunks, and one finish."""
    job = service.start(chunks=[{"depth": 6}])["id"]

    def work(session: Session, number: int) -> int:
        done = 0
        while session.progress(job)["status"] in ("pending", "running"):
            chunk = session.claim(job, worker_id=f"w{number}")
            if chunk is not None:
                depth = chunk["payload"]["depth"]
                session.complete(chunk, next_chunks=[{"depth": depth - 1}] * 2 if depth else [])
                done += 1
        return done

    assert sum(together(db, 16, work)) == 127
    progress = service.progress(job)
    assert (progress["status"], progress["completed_chunks"], progress["total_chunks"]) == (
        "completed",
        127,
        127,
    )
    assert service.value("select tests.finishes(id) from public.sync_jobs") == 1
    assert service.value("select count(distinct chunk_index) from public.chunk_processing_queue") == 127
    invariants.check(service)
