"""A worker that dies says nothing: its lease runs out and the watchdog takes the chunk back."""

from __future__ import annotations

from datetime import timedelta

from tests.sql import invariants
from tests.sql.database import Session

LEASE = timedelta(seconds=601)


def test_a_lost_worker_counts_as_an_attempt(service: Session) -> None:
    job = service.start(chunks=[{}])
    lost = service.claimed(job["id"], worker_id="w-lost")
    service.pass_time(LEASE)
    assert service.cleanup() == 1
    again = service.claimed(job["id"])
    assert (again["chunk_id"], again["attempt"]) == (lost["chunk_id"], 2)
    (record,) = service.attempts(lost["chunk_id"])
    assert (record["outcome"], record["worker_id"], record["attempt"]) == ("lost", "w-lost", 1)
    assert "worker lost" in record["error"]
    assert "w-lost" in record["error"]
    invariants.check(service)


def test_a_chunk_that_kills_its_workers_fails_in_the_end(service: Session) -> None:
    job = service.start(chunks=[{}], max_retries=2)
    for _ in range(3):
        service.claimed(job["id"])
        service.pass_time(LEASE)
        assert service.cleanup() == 1
    assert service.claim(job["id"]) is None
    (row,) = service.chunks(job["id"])
    assert (row["status"], row["attempts"]) == ("failed", 3)
    assert "worker lost" in row["error"]
    assert service.progress(job["id"])["status"] == "failed"
    invariants.check(service)


def test_a_lease_that_has_not_run_out_is_left_alone(service: Session) -> None:
    job = service.start(chunks=[{}])
    chunk = service.claimed(job["id"])
    service.pass_time(timedelta(seconds=590))
    assert service.cleanup() == 0
    assert service.complete(chunk)["outcome"] == "completed"


def test_the_late_report_of_a_lost_worker_is_stale(service: Session) -> None:
    job = service.start(chunks=[{}])
    lost = service.claimed(job["id"])
    service.pass_time(LEASE)
    service.cleanup()
    assert service.complete(lost)["outcome"] == "stale"
    again = service.claimed(job["id"])
    assert service.complete(lost)["outcome"] == "stale"
    assert service.extend(lost)["ok"] is False
    assert service.complete(again)["outcome"] == "completed"
    assert service.progress(job["id"])["completed_chunks"] == 1
    invariants.check(service)


def test_a_claim_may_ask_for_a_lease_of_its_own(service: Session) -> None:
    job = service.start(chunks=[{}])
    service.claimed(job["id"], lease_seconds=5)
    service.pass_time(timedelta(seconds=6))
    assert service.cleanup() == 1


def test_stuck_after_means_no_claim_or_heartbeat_for_that_long(service: Session) -> None:
    job = service.start(chunks=[{}, {}])
    service.claimed(job["id"])
    alive = service.claimed(job["id"])
    service.pass_time(timedelta(seconds=120))
    service.extend(alive)
    assert service.cleanup(stuck_after=timedelta(seconds=300)) == 0
    assert service.cleanup(stuck_after=timedelta(seconds=60)) == 1
    assert service.complete(alive)["outcome"] == "completed"


def test_the_late_report_of_the_worker_that_lost_the_last_attempt_is_stale_too(service: Session) -> None:
    job = service.start(chunks=[{}], max_retries=0)["id"]
    lost = service.claimed(job)
    service.pass_time(LEASE)
    service.cleanup()
    for _ in range(2):
        assert service.complete(lost)["outcome"] == "stale"
        assert service.give_back(lost)["outcome"] == "stale"
        service.control("retry_failed_chunks", job)
    invariants.check(service)
