"""The error that progress shows: why chunks failed for good, while there is one, else the last attempt's."""

from __future__ import annotations

from tests.sql.database import Session


def test_an_attempt_s_error_shows_while_no_chunk_has_failed(service: Session) -> None:
    job = service.start(chunks=[{}, {}])["id"]
    service.fail(service.claimed(job), error="try again", retry_after_seconds=3600)
    assert service.progress(job)["last_error"] == "try again"


def test_a_later_retry_does_not_hide_why_a_chunk_failed(service: Session) -> None:
    job = service.start(chunks=[{}] * 17, max_concurrency=16)["id"]
    first, *others = (service.claimed(job) for _ in range(16))
    service.fail(first, error="no such folder", retryable=False)
    for other in others:  # of its own counter row, and of each other one
        service.fail(other, error="try again", retry_after_seconds=3600)
    service.fail(service.claimed(job), error="try again", retry_after_seconds=3600)
    assert service.progress(job)["last_error"] == "no such folder"


def test_a_retry_of_the_failed_ones_starts_anew(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    service.fail(service.claimed(job), error="no such folder", retryable=False)
    service.control("retry_failed_chunks", job)
    service.fail(service.claimed(job), error="try again", retry_after_seconds=3600)
    assert service.progress(job)["last_error"] == "try again"
