"""Cancel, pause, resume and retry in every state."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from tests.sql import invariants
from tests.sql.database import Session, refused


def pending(session: Session) -> str:
    """A job that nobody has claimed from."""
    return str(session.start(chunks=[{}] * 3)["id"])


def running(session: Session) -> str:
    """A job with a chunk of each state but failed."""
    job = pending(session)
    session.complete(session.claimed(job))
    session.claimed(job)
    return job


def paused(session: Session) -> str:
    """A running job that is paused."""
    job = running(session)
    session.control("pause_sync_job", job)
    return job


def completed(session: Session) -> str:
    """A job done."""
    job = pending(session)
    session.drain(job)
    return job


def failed(session: Session) -> str:
    """A job whose one chunk of three failed."""
    job = pending(session)
    session.fail(session.claimed(job), retryable=False)
    session.drain(job)
    return job


def cancelled(session: Session) -> str:
    """A running job that was cancelled."""
    job = running(session)
    session.control("cancel_sync_job", job)
    return job


STATES = {make.__name__: make for make in (pending, running, paused, completed, failed, cancelled)}
# action → state → the state after, or None for SC005
TRANSITIONS = {
    "cancel_sync_job": {
        "pending": "cancelled",
        "running": "cancelled",
        "paused": "cancelled",
        "completed": None,
        "failed": None,
        "cancelled": "cancelled",
    },
    "pause_sync_job": {
        "pending": "paused",
        "running": "paused",
        "paused": "paused",
        "completed": None,
        "failed": None,
        "cancelled": None,
    },
    "resume_sync_job": {
        "pending": "pending",
        "running": "running",
        "paused": "running",
        "completed": None,
        "failed": None,
        "cancelled": None,
    },
    "retry_failed_chunks": {
        "pending": "pending",
        "running": "running",
        "paused": "paused",
        "completed": None,
        "failed": "running",
        "cancelled": None,
    },
}
CASES = [(action, state, after) for action, states in TRANSITIONS.items() for state, after in states.items()]


@pytest.mark.parametrize(("action", "state", "after"), CASES)
def test_an_action_in_a_state(service: Session, action: str, state: str, after: str | None) -> None:
    make: Callable[[Session], str] = STATES[state]
    job = make(service)
    assert service.progress(job)["status"] == state
    before = service.chunks(job)
    if after is None:
        with refused("SC005"):
            service.control(action, job)
        assert service.chunks(job) == before
        after = state
    else:
        assert service.control(action, job)["status"] == after
        again = (
            service.control(action, job) if (action, after) != ("retry_failed_chunks", "running") else None
        )
        assert again is None or again["status"] == after
    assert service.progress(job)["status"] == after
    invariants.check(service)


@pytest.mark.parametrize("action", TRANSITIONS)
def test_an_action_on_no_job(service: Session, action: str) -> None:
    with refused("SC001"):
        service.control(action, str(uuid.uuid4()))
    with refused("SC001"):
        service.call(action, parent_sync_job_id=None)


def test_a_paused_pending_job_resumes_as_pending(service: Session) -> None:
    job = pending(service)
    service.control("pause_sync_job", job)
    assert service.claim(job) is None
    assert service.control("resume_sync_job", job)["status"] == "pending"
    assert service.claim(job) is not None


@pytest.mark.parametrize(
    "change",
    [
        "status = 'paused'",
        "status = 'pending'",
        "status = 'completed'",
        "locked_until = null",
        "attempts = 2 + max_retries",
    ],
)
def test_no_hand_brings_a_processing_chunk_into_a_state_that_does_not_exist(
    service: Session, change: str
) -> None:
    service.start(chunks=[{}])
    service.claimed()
    with refused("23514"):
        service.execute(f"update public.chunk_processing_queue set {change}")


def test_no_count_goes_below_zero(service: Session) -> None:
    service.start(chunks=[{}])
    with refused("23514"):
        service.execute("update chunk_private.job_counters set open_chunks = -1")
