"""A transaction that somebody leaves open, with a key: nobody who has nothing to do with the key waits for it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.sql.database import Database, Row, Session
from tests.sql.limit_keys.test_places import KEY, check, limit, start


@pytest.fixture
def left_open(db: Database, service: Session) -> Iterator[Row]:
    """Somebody has reported a chunk of KEY and not committed; another chunk of it is claimed, others are awake."""
    limit(service, 4)
    start(service, 40)
    caller = db.connect(autocommit=False)
    chunk, other = service.claimed(), service.claimed()
    caller.complete(chunk)
    yield other
    caller.connection.rollback()
    service.cleanup()
    check(service)


def test_claims_go_on_to_what_has_no_such_key(service: Session, left_open: Row) -> None:
    job = service.start(chunks=[{}] * 3)["id"]
    service.call("save_sync_limit", key="another", max_concurrency=1)
    other = service.start(chunks=[{}], limit_key="another")["id"]
    began = time.monotonic()
    found = {str(service.claimed()["parent_sync_job_id"]) for _ in range(4)}
    assert found == {job, other}
    assert len(service.call("claim_chunk_jobs_safe", worker_id="w", batch_size=9, kinds=["plain"])) == 0
    assert time.monotonic() - began < 1.5


def test_a_report_does_not_fail_and_the_watchdog_does_what_it_left(service: Session, left_open: Row) -> None:
    assert service.complete(left_open, claim_next=True)["next"] is None
    assert service.cleanup() == 0


def test_heartbeats_and_progress_do_not_wait(service: Session, left_open: Row) -> None:
    began = time.monotonic()
    assert service.extend(left_open)["ok"] is True
    assert service.progress(str(left_open["parent_sync_job_id"]))["processing_chunks"] == 2
    assert service.call("list_sync_limits", key=KEY)[0]["processing"] == 2
    assert time.monotonic() - began < 1
