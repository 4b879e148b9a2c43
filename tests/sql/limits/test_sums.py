"""Numbers of items at their largest: sums stop at 2^53 - 1, and fail nothing."""

from __future__ import annotations

import pytest

from tests.sql import invariants
from tests.sql.database import Session, reports

MOST = 2**53 - 1


def check(service: Session) -> None:
    """All that holds but that the sum is exact: it has stopped."""
    wrong = [line for line in invariants.broken(service) if "counted items" not in line]
    assert wrong == []


@pytest.fixture
def job(service: Session) -> str:
    """A job that has announced the largest number of items 1,024 times."""
    started = str(service.start(chunks=[{}] * 8, sealed=False, max_concurrency=8)["id"])
    for _ in range(4):
        service.execute(
            "select public.append_sync_chunks(%s, '[{}]', items_total => %s) from generate_series(1, 256)",
            started,
            MOST,
        )
    return started


def test_appends_and_reports_of_every_sort(service: Session, job: str) -> None:
    assert service.progress(job)["items_total"] == MOST
    most = {"items_processed": MOST, "items_total": MOST}
    assert service.complete(service.claimed(job), **most)["outcome"] == "completed"
    assert service.complete(service.claimed(job), next_chunks=[{}], **most)["outcome"] == "completed"
    batch = [service.claimed(job) for _ in range(8)]
    answers = service.call("complete_chunk_jobs_safe", completions=[item | most for item in reports(batch)])
    assert {answer["outcome"] for answer in answers} == {"completed"}
    progress = service.progress(job)
    assert progress["items_total"] == MOST
    assert progress["completed_chunks"] == 10
    assert progress["items_processed"] >= MOST
    check(service)


def test_a_thousand_reports_in_one_call(service: Session) -> None:
    job = service.start(total_items=1000, chunk_size=1, max_concurrency=1000)["id"]
    held = []
    for _ in range(10):
        held += service.call(
            "claim_chunk_jobs_safe", worker_id="w", batch_size=100, parent_sync_job_id=job, kinds=["plain"]
        )
    assert len(held) == 1000
    heartbeats = [item | {"items_processed": MOST} for item in reports(held)]
    assert all(lease["ok"] for lease in service.call("extend_chunk_leases", leases=heartbeats))
    assert service.progress(job)["processing_chunks"] == 1000
    assert service.progress(job)["items_processed"] >= MOST
    assert service.value("select items_processed from public.chunk_processing_status") >= MOST
    most = {"items_processed": MOST, "items_total": MOST}
    answers = service.call("complete_chunk_jobs_safe", completions=[item | most for item in reports(held)])
    assert {answer["outcome"] for answer in answers} == {"completed"}
    assert service.progress(job)["status"] == "completed"
    assert service.progress(job)["items_total"] == MOST
    check(service)


def test_cancelling_what_is_processing(service: Session, job: str) -> None:
    for _ in range(8):
        service.extend(service.claimed(job), items_processed=MOST)
    assert service.control("cancel_sync_job", job)["items_processed"] >= MOST
    check(service)


def test_what_was_counted_is_taken_back_from_a_sum_that_had_stopped(service: Session) -> None:
    """Two chunks of one counter, each with all items done at its checkpoint, fail and begin anew."""
    job = service.start(chunks=[{}] * 2, max_concurrency=1, max_retries=0)["id"]
    for _ in range(2):
        chunk = service.claimed(job)
        service.extend(chunk, checkpoint={"page": 1}, items_processed=MOST)
        service.fail(chunk)
    assert service.progress(job)["items_processed"] == MOST
    again = service.call("retry_failed_chunks", parent_sync_job_id=job, from_start=True)
    assert again["items_processed"] == 0
    service.drain(job)
    assert service.progress(job)["items_processed"] == 0
