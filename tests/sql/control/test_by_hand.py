"""Updates by hand: a state that cannot be is refused with words that say what can."""

from __future__ import annotations

import psycopg
import pytest

from tests.sql import invariants
from tests.sql.database import Session, refused


def told(session: Session, update: str) -> str:
    """What an update is told."""
    with pytest.raises(psycopg.Error) as caught:
        session.execute(update)
    return str(caught.value.diag.message_primary)


@pytest.mark.parametrize(
    "states",
    [
        "status = 'paused'",
        "status = 'paused', completed_at = now()",
        "status = 'Completed', completed_at = now()",
        "status = 'running'",
        "status = ''",
    ],
)
def test_a_state_that_no_chunk_has(service: Session, states: str) -> None:
    service.start(chunks=[{}])
    words = told(service, f"update public.chunk_processing_queue set {states}")
    assert "chunk_is_pending_processing_completed_failed_or_cancelled" in words


@pytest.mark.parametrize(
    "states",
    [
        "status = 'completed'",
        "status = 'processing'",
        "status = 'pending', locked_until = now()",
        "status = 'failed', completed_at = now(), locked_until = now()",
        "completed_at = now()",
        "attempts = 5",
    ],
)
def test_a_state_of_a_chunk_that_lacks_what_belongs_to_it(service: Session, states: str) -> None:
    service.start(chunks=[{}])
    words = told(service, f"update public.chunk_processing_queue set {states}")
    assert "processing_has_lease_ended_has_time_attempts_within_retries" in words


def test_a_state_that_no_job_has(service: Session) -> None:
    service.start(chunks=[{}])
    words = told(service, "update public.sync_jobs set status = 'processing'")
    assert "job_is_pending_running_paused_completed_failed_or_cancelled" in words
    assert "ended_has_time" in told(service, "update public.sync_jobs set status = 'completed'")


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_job_with_open_chunks_does_not_end_by_hand(service: Session, status: str) -> None:
    job = service.start(chunks=[{}] * 3, max_concurrency=1)["id"]
    service.complete(service.claimed(job))
    with refused("SC005"):
        service.execute("update public.sync_jobs set status = %s, completed_at = now()", status)
    words = told(service, f"update public.sync_jobs set status = '{status}', completed_at = now()")
    assert words == f"the sync job {job} has 2 open chunks: it cannot be {status}"
    assert service.drain(job) == 2
    invariants.check(service)
