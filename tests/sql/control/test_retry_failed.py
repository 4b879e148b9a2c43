"""Reopening the failed chunks, and only those."""

from __future__ import annotations

from tests.sql import invariants
from tests.sql.database import Session, refused


def test_only_the_failed_chunks_are_reopened_with_all_their_attempts(service: Session) -> None:
    job = service.start(chunks=[{"n": n} for n in range(4)], max_retries=1)["id"]
    for number in range(4):
        chunk = service.claimed(job)
        if number % 2:
            service.fail(chunk, retryable=False)
        else:
            service.complete(chunk, result={"n": number})
    ended = service.progress(job)
    assert (ended["status"], ended["failed_chunks"]) == ("failed", 2)

    progress = service.control("retry_failed_chunks", job)
    assert (progress["status"], progress["pending_chunks"], progress["completed_chunks"]) == ("running", 2, 2)
    assert (progress["failed_chunks"], progress["completed_at"]) == (0, None)
    invariants.check(service)
    chunk = service.claimed(job)
    assert (chunk["payload"], chunk["attempt"], chunk["max_attempts"]) == ({"n": 1}, 1, 2)
    service.fail(chunk)
    assert service.drain(job) == 2
    done = service.progress(job)
    assert (done["status"], done["completed_chunks"]) == ("completed", 4)
    assert service.value("select tests.finishes(id) from public.sync_jobs") == 2
    invariants.check(service)


def test_the_results_of_the_others_stay(service: Session) -> None:
    job = service.start(chunks=[{}, {}])["id"]
    service.complete(service.claimed(job), result={"kept": True})
    service.fail(service.claimed(job), retryable=False)
    service.control("retry_failed_chunks", job)
    service.drain(job)
    assert service.chunks(job)[0]["result"] == {"kept": True}


def test_the_cap_holds_for_reopened_chunks(service: Session) -> None:
    job = service.start(chunks=[{}] * 10, max_concurrency=3)["id"]
    while (chunk := service.claim(job)) is not None:
        service.fail(chunk, retryable=False)
    service.control("retry_failed_chunks", job)
    invariants.check(service)
    assert [service.claim(job) is not None for _ in range(4)] == [True, True, True, False]


def test_the_first_life_s_report_is_stale_in_the_second(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    first = service.claimed(job)
    service.fail(first, retryable=False)
    service.control("retry_failed_chunks", job)
    second = service.claimed(job)
    assert service.complete(first)["outcome"] == "failed"  # what it was told at the time
    assert service.complete(second)["outcome"] == "completed"
    invariants.check(service)


def test_a_failed_job_cannot_come_back_beside_its_successor(service: Session) -> None:
    job = service.start(chunks=[{}], job_key="inbox")["id"]
    service.fail(service.claimed(job), retryable=False)
    service.start(chunks=[{}], job_key="inbox")
    with refused("SC005"):
        service.control("retry_failed_chunks", job)
    assert service.progress(job)["status"] == "failed"
    invariants.check(service)


def test_with_nothing_failed_nothing_changes(service: Session) -> None:
    job = service.start(chunks=[{}, {}], max_concurrency=1)["id"]
    service.complete(service.claimed(job))
    before = service.chunks(job)
    service.control("retry_failed_chunks", job)
    assert service.chunks(job) == before
