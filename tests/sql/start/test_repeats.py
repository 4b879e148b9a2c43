"""Starting the same thing twice: job_key and request_id."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.sql import invariants
from tests.sql.database import Database, Session
from tests.sql.threads import blocked, together, until


def test_twenty_callers_with_one_key_get_one_job(db: Database, service: Session) -> None:
    answers = together(db, 20, lambda session, _: session.start(chunks=[{}, {}], job_key="inbox"))
    assert len({answer["id"] for answer in answers}) == 1
    assert sorted(answer["created"] for answer in answers) == [False] * 19 + [True]
    assert service.value("select count(*) from public.sync_jobs") == 1
    assert service.value("select count(*) from public.chunk_processing_queue") == 2
    invariants.check(service)


def test_twenty_callers_with_one_request_get_one_job(db: Database) -> None:
    request = uuid.uuid4()
    answers = together(db, 20, lambda session, _: session.start(chunks=[{}], request_id=request))
    assert len({answer["id"] for answer in answers}) == 1
    assert sorted(answer["created"] for answer in answers) == [False] * 19 + [True]


def test_a_key_is_free_again_once_its_job_has_ended(service: Session) -> None:
    first = service.start(chunks=[{}], job_key="inbox")
    assert service.start(chunks=[{}], job_key="inbox")["id"] == first["id"]
    service.drain()
    second = service.start(chunks=[{}], job_key="inbox")
    assert second["created"] is True
    assert second["id"] != first["id"]


def test_a_key_holds_while_its_job_is_paused(service: Session) -> None:
    first = service.start(chunks=[{}], job_key="inbox")
    service.control("pause_sync_job", first["id"])
    assert service.start(chunks=[{}], job_key="inbox")["id"] == first["id"]


def test_a_key_belongs_to_kind_and_owner(service: Session) -> None:
    owner = uuid.uuid4()
    ids = {
        service.start(chunks=[{}], job_key="inbox")["id"],
        service.start("web", chunks=[{}], job_key="inbox")["id"],
        service.start(chunks=[{}], job_key="inbox", owner_id=owner)["id"],
    }
    assert len(ids) == 3
    assert service.start(chunks=[{}], job_key="inbox", owner_id=owner)["created"] is False


def test_a_request_returns_its_job_even_after_the_end(service: Session) -> None:
    request = uuid.uuid4()
    first = service.start(chunks=[{}], request_id=request, job_key="inbox")
    service.drain()
    again = service.start(chunks=[{}, {}], request_id=request, job_key="inbox")
    assert (again["id"], again["created"], again["status"], again["total_chunks"]) == (
        first["id"],
        False,
        "completed",
        1,
    )


def test_a_request_id_belongs_to_its_owner(service: Session) -> None:
    request = uuid.uuid4()
    ids = {
        service.start(chunks=[{}], request_id=request, owner_id=owner)["id"]
        for owner in (None, uuid.uuid4(), uuid.uuid4())
    }
    assert len(ids) == 3


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_a_start_under_way_decides_for_the_next_one(db: Database, admin: Session, ends: str) -> None:
    """The second caller waits; it gets the first one's job, or makes its own when that one never came to be."""
    first = db.connect(autocommit=False)
    open_job = first.start(chunks=[{}], job_key="inbox")
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(db.connect().start, chunks=[{}], job_key="inbox")
        until(lambda: blocked(admin))
        getattr(first.connection, ends)()
        answer = second.result()
    assert answer["created"] is (ends == "rollback")
    assert (answer["id"] == open_job["id"]) is (ends == "commit")


def test_a_request_that_was_given_a_keyed_job_is_given_it_again_after_its_end(service: Session) -> None:
    first = service.start(chunks=[{}], job_key="inbox", request_id=uuid.uuid4())
    request = uuid.uuid4()
    assert service.start(chunks=[{}], job_key="inbox", request_id=request)["id"] == first["id"]
    service.drain()
    again = service.start(chunks=[{}], job_key="inbox", request_id=request)
    assert (again["id"], again["created"], again["status"]) == (first["id"], False, "completed")
    service.call("purge_sync_jobs", older_than="0")
    assert service.start(chunks=[{}], job_key="inbox", request_id=request)["created"] is True
