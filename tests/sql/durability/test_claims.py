"""A claim's commit does not wait for the disk, a report's does: what that costs, and whom it touches."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sql import invariants
from tests.sql.database import Database, Session
from tests.sql.server import running


def _claim(session: Session, *, many: bool) -> Any:
    if many:
        (chunk,) = session.call("claim_chunk_jobs_safe", worker_id="w", batch_size=1, kinds=["plain"])
        return chunk
    return session.claimed()


def _complete(session: Session, chunk: Any, *, many: bool) -> None:
    if many:
        report = {"chunk_id": chunk["chunk_id"], "claim_token": str(chunk["claim_token"])}
        session.call("complete_chunk_jobs_safe", completions=[report])
    else:
        session.complete(chunk)


def _setting(session: Session) -> Any:
    return session.value("show synchronous_commit")


@pytest.fixture(params=[False, True], ids=["one", "many"])
def many(request: pytest.FixtureRequest) -> bool:
    """Whether the functions for batches are called."""
    return bool(request.param)


@pytest.fixture
def transaction(db: Database, service: Session) -> Session:
    """A session with a setting of its own, whose transactions stay open; a job is there to be claimed."""
    service.start(chunks=[{}] * 3)
    return db.connect(autocommit=False, settings="-c synchronous_commit=local")


def test_a_claim_alone_does_not_wait_and_leaves_the_session_as_it_was(
    transaction: Session, many: bool
) -> None:
    _claim(transaction, many=many)
    assert _setting(transaction) == "off"
    transaction.connection.commit()
    assert _setting(transaction) == "local"


def test_what_was_written_before_a_claim_is_waited_for(transaction: Session, many: bool) -> None:
    transaction.start(chunks=[{}])
    _claim(transaction, many=many)
    assert _setting(transaction) == "local"


def test_a_report_is_waited_for_though_its_claim_is_in_the_same_transaction(
    transaction: Session, many: bool
) -> None:
    first, second = _claim(transaction, many=many), _claim(transaction, many=many)
    assert _setting(transaction) == "off"
    _complete(transaction, first, many=many)
    assert _setting(transaction) == "local"
    _complete(transaction, second, many=many)
    transaction.connection.commit()
    assert _setting(transaction) == "local"


def test_a_session_that_never_waits_is_left_alone(db: Database, service: Session, many: bool) -> None:
    service.start(chunks=[{}])
    session = db.connect(autocommit=False, settings="-c synchronous_commit=off")
    _complete(session, _claim(session, many=many), many=many)
    assert _setting(session) == "off"


def test_a_claim_that_a_crash_has_undone_is_stale_and_its_chunk_is_claimed_again() -> None:
    """The server dies before the last claim is on disk: that chunk alone is as if nobody had claimed it."""
    # So that nothing but a commit that waits brings the log to the disk.
    with running(wal_writer_delay="10s") as cluster, cluster.database() as db:
        service = db.connect()
        job = service.start(chunks=[{}] * 3)["id"]
        first, second = service.claimed(), service.claimed()
        assert service.complete(first)["outcome"] == "completed"
        third = service.claimed()
        db.server.kill()
        db.server.start()

        service = db.connect()
        statuses = [chunk["status"] for chunk in service.chunks(job)]
        assert statuses == ["completed", "processing", "pending"]
        invariants.check(service)
        assert service.complete(third)["outcome"] == "stale"
        again = service.claimed()
        assert (again["chunk_id"], again["attempt"]) == (third["chunk_id"], 1)
        assert again["claim_token"] != third["claim_token"]
        assert [service.complete(chunk)["outcome"] for chunk in (again, second)] == ["completed"] * 2
        assert service.progress(job)["status"] == "completed"
        invariants.check(service)
