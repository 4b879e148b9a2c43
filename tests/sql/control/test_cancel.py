"""What cancelling does to the work under way."""

from __future__ import annotations

from datetime import timedelta

from tests.sql import invariants
from tests.sql.database import Session


def test_cancelling_ends_all_open_chunks_at_once(service: Session) -> None:
    job = service.start(chunks=[{}] * 5, max_concurrency=2)["id"]
    service.complete(service.claimed(job))
    service.claimed(job)
    progress = service.control("cancel_sync_job", job)
    assert (progress["status"], progress["completed_chunks"], progress["cancelled_chunks"]) == (
        "cancelled",
        1,
        4,
    )
    assert progress["pending_chunks"] == progress["processing_chunks"] == 0
    assert progress["completed_at"] is not None
    invariants.check(service)


def test_the_workers_heartbeat_hears_of_it_and_its_report_answers_cancelled(service: Session) -> None:
    job = service.start(chunks=[{}] * 2)["id"]
    chunk = service.claimed(job)
    assert service.extend(chunk)["cancel_requested"] is False
    service.control("cancel_sync_job", job)
    beat = service.extend(chunk)
    assert (beat["ok"], beat["cancel_requested"]) == (False, True)
    for report in (
        service.complete(chunk),
        service.fail(chunk),
        service.give_back(chunk),
        service.complete(chunk),
    ):
        assert (report["outcome"], report["chunk_status"]) == ("cancelled", "cancelled")
    progress = service.progress(job)
    assert (progress["status"], progress["cancelled_chunks"], progress["completed_chunks"]) == (
        "cancelled",
        2,
        0,
    )
    (record,) = service.attempts(chunk["chunk_id"])
    assert record["outcome"] == "cancelled"
    invariants.check(service)


def test_a_late_report_with_next_chunks_adds_none(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job)
    service.control("cancel_sync_job", job)
    answer = service.complete(chunk, next_chunks=[{}, {}], claim_next=True)
    assert (answer["outcome"], answer["job_status"], answer["next"]) == ("cancelled", "cancelled", None)
    assert service.progress(job)["total_chunks"] == 1


def test_the_job_stays_cancelled_whatever_comes(service: Session) -> None:
    job = service.start(chunks=[{}] * 3)["id"]
    chunk = service.claimed(job)
    service.control("cancel_sync_job", job)
    service.pass_time(timedelta(hours=1))
    service.cleanup()
    service.complete(chunk)
    service.call("trigger_next_chunk_processing", parent_sync_job_id=job)
    assert service.claim(job) is None
    assert service.progress(job)["status"] == "cancelled"
    assert service.value("select tests.finishes(id) from public.sync_jobs") == 1


def test_cancelling_an_unsealed_job_ends_it(service: Session) -> None:
    job = service.start(chunks=[], sealed=False)["id"]
    assert service.control("cancel_sync_job", job)["status"] == "cancelled"
    invariants.check(service)


def test_a_chunk_waiting_for_a_retry_is_cancelled_too(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    service.fail(service.claimed(job), retry_after_seconds=100)
    progress = service.control("cancel_sync_job", job)
    assert (progress["cancelled_chunks"], progress["retrying_chunks"]) == (1, 0)
    invariants.check(service)
