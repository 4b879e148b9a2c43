"""Unsealed jobs: chunks that come in pages."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest

from tests.sql import invariants
from tests.sql.database import Database, Session, refused
from tests.sql.threads import together


def append(session: Session, job: str, chunks: list[object] | None, **arguments: object) -> dict[str, object]:
    """Append a page."""
    answer: dict[str, object] = session.call(
        "append_sync_chunks", parent_sync_job_id=job, chunks=chunks, **arguments
    )
    return answer


def test_an_unsealed_job_works_but_never_finishes(service: Session) -> None:
    job = service.start(chunks=[{}], sealed=False)["id"]
    assert service.complete(service.claimed(job))["job_status"] == "running"
    invariants.check(service)
    append(service, job, [{}, {}])
    invariants.check(service)
    assert service.drain(job) == 2
    assert service.progress(job)["status"] == "running"
    assert append(service, job, [], seal=True)["status"] == "completed"
    invariants.check(service)


def test_the_last_page_may_seal(service: Session) -> None:
    job = service.start(chunks=[], sealed=False)["id"]
    assert append(service, job, [{}], seal=True)["status"] == "pending"
    assert service.drain(job) == 1
    assert service.progress(job)["status"] == "completed"


def test_sealing_a_job_with_a_failed_chunk_fails_it(service: Session) -> None:
    job = service.start(chunks=[{}], sealed=False)["id"]
    service.fail(service.claimed(job), retryable=False)
    assert append(service, job, [], seal=True)["status"] == "failed"
    invariants.check(service)


def test_a_repeated_page_adds_nothing(service: Session) -> None:
    job = service.start(chunks=[], sealed=False)["id"]
    page = uuid.uuid4()
    append(service, job, [{}, {}], request_id=page, items_total=20)
    again = append(service, job, [{}, {}], request_id=page, items_total=20)
    assert (again["total_chunks"], again["items_total"]) == (2, 20)
    assert append(service, job, [{}], request_id=uuid.uuid4(), seal=True)["total_chunks"] == 3
    service.drain(job)
    # Even when the job has ended meanwhile.
    assert append(service, job, [{}, {}], request_id=page)["status"] == "completed"
    assert service.progress(job)["total_chunks"] == 3


def test_twelve_callers_with_one_page_add_it_once(db: Database, service: Session) -> None:
    job = service.start(chunks=[], sealed=False)["id"]
    page = uuid.uuid4()
    together(db, 12, lambda session, _: append(session, job, [{}, {}], request_id=page))
    assert service.progress(job)["total_chunks"] == 2
    invariants.check(service)


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_an_ended_job_takes_no_more(service: Session, end: str) -> None:
    job = service.start(chunks=[{}])["id"]
    if end == "cancelled":
        service.control("cancel_sync_job", job)
    else:
        service.complete(service.claimed(job), success=end == "completed", retryable=False)
    with refused("SC005"):
        append(service, job, [{}])
    assert service.progress(job)["total_chunks"] == 1
    invariants.check(service)


def test_the_service_may_append_to_a_sealed_running_job(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    assert append(service, job, [{}])["total_chunks"] == 2
    invariants.check(service)


def test_a_page_for_a_paused_job_waits(service: Session) -> None:
    job = service.start(chunks=[], sealed=False)["id"]
    service.control("pause_sync_job", job)
    append(service, job, [{}, {}])
    assert service.claim(job) is None
    invariants.check(service)
    service.control("resume_sync_job", job)
    assert service.drain(job) == 2


def test_indexes_go_on_and_counts_stay_exact_over_uneven_pages(service: Session) -> None:
    job = service.start(chunks=[{}], sealed=False, max_concurrency=1000)["id"]
    for size in (1, 2, 13, 1, 40, 7, 0, 16, 17):
        append(service, job, [{}] * size)
        invariants.check(service)
    assert [row["chunk_index"] for row in service.chunks(job)] == list(range(98))
    append(service, job, [], seal=True)
    assert service.drain(job) == 98
    assert service.progress(job)["status"] == "completed"
    invariants.check(service)


def test_pages_and_workers_at_the_same_time(db: Database, service: Session) -> None:
    job = service.start(chunks=[], sealed=False, max_concurrency=8)["id"]

    def work(session: Session, number: int) -> None:
        if number == 0:
            for page in range(20):
                append(session, job, [{}] * 10, request_id=uuid.uuid4(), seal=page == 19)
            return
        while session.progress(job)["status"] in ("pending", "running"):
            chunk = session.claim(job)
            if chunk is not None:
                session.complete(chunk)

    together(db, 8, work)
    progress = service.progress(job)
    assert (progress["status"], progress["completed_chunks"]) == ("completed", 200)
    assert service.value("select tests.finishes(id) from public.sync_jobs") == 1
    invariants.check(service)


@pytest.mark.parametrize(("chunks", "status"), [([{}], "running"), ([], "pending")], ids=["ended", "none"])
def test_an_unsealed_job_that_nobody_seals_shows_as_stalled(
    service: Session, chunks: list[Any], status: str
) -> None:
    job = service.start(chunks=chunks, sealed=False)["id"]
    service.drain(job)
    assert service.progress(job)["stalled"] is False
    service.pass_time(timedelta(minutes=2))
    progress = service.progress(job)
    assert (progress["stalled"], progress["status"]) == (True, status)
    service.cleanup()
    assert service.progress(job)["status"] == status


@pytest.mark.soak
def test_a_million_chunks_come_in_by_pages(service: Session) -> None:
    job = service.start(chunks=[], sealed=False)["id"]
    for _ in range(10):
        append(service, job, [{}] * 100_000, request_id=uuid.uuid4())
    assert service.progress(job)["total_chunks"] == 1_000_000
    assert service.complete(service.claimed(job))["remaining"] == 999_999
    invariants.check(service)
