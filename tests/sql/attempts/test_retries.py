"""Attempts, retries and their records."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.sql import invariants
from tests.sql.database import Session


def test_a_chunk_is_tried_once_and_then_max_retries_times(service: Session) -> None:
    job = service.start(chunks=[{}], max_retries=2)
    outcomes = []
    for number in (1, 2, 3):
        chunk = service.claimed(job["id"])
        assert (chunk["attempt"], chunk["max_attempts"]) == (number, 3)
        outcomes.append(service.fail(chunk, f"error {number}")["outcome"])
    assert outcomes == ["retrying", "retrying", "failed"]
    assert service.claim(job["id"]) is None
    (row,) = service.chunks(job["id"])
    assert (row["status"], row["error"], row["attempts"]) == ("failed", "error 3", 3)
    assert service.progress(job["id"])["status"] == "failed"
    invariants.check(service)


def test_every_attempts_error_is_kept(service: Session) -> None:
    job = service.start(chunks=[{}], max_retries=2)
    tokens = []
    for number in (1, 2, 3):
        chunk = service.claimed(job["id"], worker_id=f"w{number}")
        tokens.append(chunk["claim_token"])
        service.fail(chunk, f"error {number}")
    records = service.attempts(chunk["chunk_id"])
    assert [(r["attempt"], r["outcome"], r["error"], r["worker_id"], r["claim_token"]) for r in records] == [
        (1, "retrying", "error 1", "w1", tokens[0]),
        (2, "retrying", "error 2", "w2", tokens[1]),
        (3, "failed", "error 3", "w3", tokens[2]),
    ]
    assert all(record["claimed_at"] is not None for record in records)


def test_no_retries_means_one_attempt(service: Session) -> None:
    job = service.start(chunks=[{}], max_retries=0)
    assert service.fail(service.claimed(job["id"]))["outcome"] == "failed"
    assert service.progress(job["id"])["status"] == "failed"


def test_a_permanent_failure_is_not_retried(service: Session) -> None:
    job = service.start(chunks=[{}])
    answer = service.fail(service.claimed(job["id"]), "no such folder", retryable=False)
    assert (answer["outcome"], answer["chunk_status"], answer["job_status"]) == ("failed", "failed", "failed")
    (row,) = service.chunks(job["id"])
    assert (row["attempts"], row["error"]) == (1, "no such folder")


def test_a_failed_chunk_does_not_hold_up_the_others(service: Session) -> None:
    job = service.start(chunks=[{}] * 3, max_concurrency=1)
    service.fail(service.claimed(job["id"]), retryable=False)
    assert service.drain(job["id"]) == 2
    progress = service.progress(job["id"])
    assert (progress["status"], progress["completed_chunks"], progress["failed_chunks"]) == ("failed", 2, 1)
    invariants.check(service)


def test_a_retry_that_succeeds_leaves_no_error(service: Session) -> None:
    job = service.start(chunks=[{}])
    service.fail(service.claimed(job["id"]))
    assert service.progress(job["id"])["retrying_chunks"] == 1
    assert service.complete(service.claimed(job["id"]), result={"ok": 1})["outcome"] == "completed"
    (row,) = service.chunks(job["id"])
    assert (row["status"], row["error"], row["result"]) == ("completed", None, {"ok": 1})
    assert service.progress(job["id"])["retrying_chunks"] == 0
    invariants.check(service)


def test_backoff_doubles_up_to_an_hour_with_jitter(service: Session) -> None:
    service.call("save_sync_kind", kind="slow", max_concurrency=1, max_retries=12, retry_delay_seconds=10)
    job = service.start("slow", chunks=[{}])
    for number in range(1, 13):
        service.fail(service.claimed(job["id"], kinds=["slow"]))
        wait = service.value("select ready_at - now() from public.chunk_processing_queue").total_seconds()
        full = min(10 * 2 ** (number - 1), 3600)
        assert 0.74 * full <= wait <= full, f"attempt {number}: {wait} s"
        assert service.claim(job["id"], kinds=["slow"]) is None
        service.pass_time(timedelta(seconds=full))


def test_jitter_differs(service: Session) -> None:
    service.call("save_sync_kind", kind="slow", max_concurrency=20, retry_delay_seconds=1000)
    job = service.start("slow", chunks=[{}] * 20)
    for _ in range(20):
        service.fail(service.claimed(job["id"], kinds=["slow"]))
    waits = service.rows(
        "select extract(epoch from ready_at - updated_at)::float8 as wait from public.chunk_processing_queue"
    )
    assert len({round(row["wait"], 3) for row in waits}) >= 15


@pytest.mark.parametrize("seconds", [0, 7, 604800])
def test_a_worker_may_say_when_to_retry(service: Session, seconds: int) -> None:
    job = service.start("web", chunks=[{}])
    service.fail(service.claimed(job["id"], kinds=None), retry_after_seconds=seconds)
    (row,) = service.rows("select ready_at - updated_at as wait from public.chunk_processing_queue")
    assert row["wait"] == timedelta(seconds=seconds)


def test_a_chunk_in_backoff_gives_its_place_to_the_next(service: Session) -> None:
    job = service.start(chunks=[{"n": 0}, {"n": 1}], max_concurrency=1)
    service.fail(service.claimed(job["id"]), retry_after_seconds=600)
    second = service.claimed(job["id"])
    assert second["payload"] == {"n": 1}
    invariants.check(service)
    service.complete(second)
    assert service.claim(job["id"]) is None
    service.pass_time(timedelta(seconds=601))
    assert service.claimed(job["id"])["payload"] == {"n": 0}


def test_a_report_without_success_needs_no_error_text(service: Session) -> None:
    job = service.start(chunks=[{}], max_retries=0)
    service.complete(service.claimed(job["id"]), success=False)
    (row,) = service.chunks(job["id"])
    assert row["error"]


def test_progress_shows_the_latest_error(service: Session) -> None:
    job = service.start(chunks=[{}, {}])
    service.fail(service.claimed(job["id"]), "first")
    service.fail(service.claimed(job["id"]), "second")
    assert service.progress(job["id"])["last_error"] == "second"
