"""A session remembers from where it last found chunks; what is committed late, with an older time, is found all the same."""

from __future__ import annotations

import time

import pytest

from tests.sql.database import Database, Session


@pytest.fixture(autouse=True)
def _used_before(service: Session) -> None:
    """The first job ever of a kind and priority makes others of that pair wait for its commit; here there was one."""
    service.drain(service.start(chunks=[{}])["id"])


def test_a_late_commit_is_found_at_once_when_nothing_else_is_there(db: Database, service: Session) -> None:
    late = db.connect(autocommit=False)
    job = late.start(chunks=[{"late": True}])["id"]
    for _ in range(20):
        service.start(chunks=[{}])
        service.complete(service.claimed())
    assert service.claim() is None
    late.connection.commit()
    assert str(service.claimed()["parent_sync_job_id"]) == job


def test_a_late_commit_is_not_starved_by_a_stream_of_newer_ones(db: Database, service: Session) -> None:
    """Once a second a session looks from the very beginning."""
    late = db.connect(autocommit=False)
    job = late.start(chunks=[{"late": True}])["id"]
    service.start(total_items=20_000, chunk_size=1, max_concurrency=5)
    service.complete(service.claimed())
    late.connection.commit()
    until = time.monotonic() + 3
    while time.monotonic() < until:
        chunk = service.claimed()
        if str(chunk["parent_sync_job_id"]) == job:
            return
        service.complete(chunk)
    raise AssertionError("not found in 3 s")


def test_a_retry_with_an_old_time_is_found_too(service: Session) -> None:
    job = service.start(chunks=[{}] * 3, max_concurrency=1)["id"]
    first = service.claimed(job)
    service.fail(first, retry_after_seconds=0)
    order = []
    while (chunk := service.claim()) is not None:
        order.append(chunk["chunk_id"])
        service.complete(chunk)
    assert sorted(order) == [first["chunk_id"], first["chunk_id"] + 1, first["chunk_id"] + 2]
