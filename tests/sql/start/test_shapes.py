"""What a start makes of its arguments."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.sql import invariants
from tests.sql.database import Session


def test_a_list_of_chunks_becomes_the_jobs_chunks_in_order(service: Session) -> None:
    job = service.start(chunks=[{"n": 1}, {"n": 2}, {"n": 3}], payload={"shared": True})
    assert job["created"] is True
    assert job["status"] == "pending"
    assert job["total_chunks"] == job["pending_chunks"] == 3
    assert [(row["chunk_index"], row["payload"]) for row in service.chunks(job["id"])] == [
        (0, {"n": 1}),
        (1, {"n": 2}),
        (2, {"n": 3}),
    ]
    chunk = service.claimed(job["id"])
    assert (chunk["payload"], chunk["job_payload"], chunk["attempt"], chunk["max_attempts"]) == (
        {"n": 1},
        {"shared": True},
        1,
        4,
    )
    invariants.check(service)


def test_items_are_cut_into_chunks_and_the_last_one_is_short(service: Session) -> None:
    job = service.start(total_items=25, chunk_size=10)
    rows = service.chunks(job["id"])
    assert [row["payload"] for row in rows] == [
        {"offset": 0, "limit": 10},
        {"offset": 10, "limit": 10},
        {"offset": 20, "limit": 5},
    ]
    assert [row["items_total"] for row in rows] == [10, 10, 5]
    assert job["items_total"] == 25


def test_with_neither_the_jobs_payload_is_the_one_chunk(service: Session) -> None:
    """It is stored once, in the job: the chunk says null, and every sort of claim gives it out."""
    job = service.start(payload={"account": "work"})["id"]
    assert [row["payload"] for row in service.chunks(job)] == [None]
    claim_id = str(uuid.uuid4())
    chunk = service.claimed(job, claim_id=claim_id)
    assert service.claimed(job, claim_id=claim_id) == chunk
    assert chunk["payload"] == chunk["job_payload"] == {"account": "work"}
    service.give_back(chunk)
    (chunk,) = service.call(
        "claim_chunk_jobs_safe", worker_id="w", batch_size=5, parent_sync_job_id=job, kinds=["plain"]
    )
    assert chunk["payload"] == {"account": "work"}


@pytest.mark.parametrize("arguments", [{"chunks": []}, {"total_items": 0, "chunk_size": 10}])
def test_without_chunks_the_job_is_completed_at_once(service: Session, arguments: dict[str, Any]) -> None:
    job = service.start(**arguments)
    assert (job["status"], job["total_chunks"], job["percent_complete"]) == ("completed", 0, 100)
    assert job["completed_at"] is not None
    assert service.value("select tests.finishes(id) from public.sync_jobs where id = %s", job["id"]) == 1
    invariants.check(service)


def test_only_as_many_chunks_are_released_as_may_run(service: Session) -> None:
    job = service.start(chunks=[{}] * 10, max_concurrency=3)
    assert [row["chunk_index"] for row in service.slots(job["id"])] == [0, 1, 2]
    assert [service.claim(job["id"]) is not None for _ in range(4)] == [True, True, True, False]


def test_a_job_takes_its_limits_from_the_kind_or_the_call(service: Session) -> None:
    by_kind = service.start("private", chunks=[{}])
    by_call = service.start("private", chunks=[{}], max_concurrency=7, max_retries=0, priority=-3)
    limits = "select max_concurrency, max_retries, priority from public.sync_jobs where id = %s"
    assert service.rows(limits, by_kind["id"]) == [{"max_concurrency": 2, "max_retries": 3, "priority": 0}]
    assert service.rows(limits, by_call["id"]) == [{"max_concurrency": 7, "max_retries": 0, "priority": -3}]


def test_a_higher_priority_goes_first(service: Session) -> None:
    low = service.start(chunks=[{}], priority=-3)
    normal = service.start(chunks=[{}])
    high = service.start(chunks=[{}], priority=3)
    order = [str(service.claimed()["parent_sync_job_id"]) for _ in range(3)]
    assert order == [high["id"], normal["id"], low["id"]]


def test_progress_has_every_figure_of_the_contract(service: Session) -> None:
    job = service.start(chunks=[{}])
    assert set(job) >= {
        *("id", "kind", "status", "total_chunks", "pending_chunks", "processing_chunks", "completed_chunks"),
        *("failed_chunks", "cancelled_chunks", "retrying_chunks", "items_total", "items_processed"),
        *("percent_complete", "eta_seconds", "stalled", "created_at", "started_at", "completed_at"),
        *("last_activity_at", "last_error", "job_key", "payload", "created"),
    }


def test_the_four_statements_of_the_readme_work_as_typed(service: Session) -> None:
    job = service.start(chunks=[{}])
    assert service.rows("SELECT cleanup_stuck_chunks();") == [{"cleanup_stuck_chunks": 0}]
    (row,) = service.rows(f"SELECT get_sync_job_progress_safe('{job['id']}');")
    assert row["get_sync_job_progress_safe"]["id"] == job["id"]
    assert len(service.rows("SELECT * FROM chunk_processing_status;")) == 1
    assert len(service.rows("SELECT * FROM chunk_processing_queue ORDER BY created_at DESC LIMIT 10;")) == 1
