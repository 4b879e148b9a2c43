"""Pausing and going on."""

from __future__ import annotations

from datetime import timedelta

from tests.sql import invariants
from tests.sql.database import Session


def test_nothing_is_handed_out_while_paused_and_what_runs_may_finish(service: Session) -> None:
    job = service.start(chunks=[{}] * 4, max_concurrency=2)["id"]
    first, second = service.claimed(job), service.claimed(job)
    service.control("pause_sync_job", job)
    answer = service.complete(first, claim_next=True)
    assert (answer["outcome"], answer["job_status"], answer["next"]) == ("completed", "paused", None)
    assert service.fail(second)["outcome"] == "retrying"
    assert service.claim(job) is None
    assert service.claim() is None
    invariants.check(service)
    service.control("resume_sync_job", job)
    invariants.check(service)
    assert service.drain(job) == 3
    assert service.progress(job)["status"] == "completed"


def test_the_last_chunk_ends_a_paused_job(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job)
    service.control("pause_sync_job", job)
    assert service.complete(chunk)["job_status"] == "completed"
    invariants.check(service)


def test_a_chunk_given_back_while_paused_waits(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job)
    service.control("pause_sync_job", job)
    assert service.give_back(chunk)["outcome"] == "released"
    assert service.claim(job) is None
    invariants.check(service)
    service.control("resume_sync_job", job)
    assert service.claim(job) is not None


def test_a_worker_lost_while_paused_is_recovered_and_its_chunk_waits(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    service.claimed(job)
    service.control("pause_sync_job", job)
    service.pass_time(timedelta(seconds=700))
    assert service.cleanup() == 1
    assert service.claim(job) is None
    invariants.check(service)
    service.control("resume_sync_job", job)
    assert service.claimed(job)["attempt"] == 2


def test_the_watchdog_does_not_wake_a_paused_job(service: Session) -> None:
    job = service.start("web", chunks=[{}] * 3)["id"]
    service.control("pause_sync_job", job)
    service.pass_time(timedelta(hours=1))
    service.cleanup()
    assert service.progress(job)["status"] == "paused"
    invariants.check(service)


def test_failed_chunks_of_a_paused_job_can_be_reopened_and_wait(service: Session) -> None:
    job = service.start(chunks=[{}, {}])["id"]
    service.fail(service.claimed(job), retryable=False)
    service.control("pause_sync_job", job)
    progress = service.control("retry_failed_chunks", job)
    assert (progress["status"], progress["failed_chunks"], progress["pending_chunks"]) == ("paused", 0, 2)
    assert service.claim(job) is None
    invariants.check(service)
