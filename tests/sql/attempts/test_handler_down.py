"""A handler that is down: its chunks keep their slots until they are tried again, and no others are spent on it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.sql import invariants
from tests.sql.cleanup.hooks import configure, lose, sent
from tests.sql.database import Session


@pytest.fixture
def job(service: Session) -> str:
    """A long job of a kind with a handler, that waits a while before a retry."""
    configure(service)
    service.call("save_sync_kind", kind="web", retry_delay_seconds=10, max_retries=1)
    return str(service.start("web", chunks=[{}] * 20, max_concurrency=2)["id"])


def test_the_chunk_keeps_its_slot_until_its_retry(service: Session, admin: Session, job: str) -> None:
    first, second = (service.claimed(job, kinds=None) for _ in range(2))
    lose(admin)
    assert service.fail(first, handler_down=True)["outcome"] == "retrying"
    assert service.claim(job, kinds=None) is None
    (body,) = sent(admin)  # for when it is due
    assert (body["chunk_id"], 7 <= body["wait_seconds"] <= 10) == (first["chunk_id"], True)
    service.complete(second)
    assert service.claimed(job, kinds=None)["chunk_index"] == 2
    invariants.check(service)
    service.pass_time(timedelta(seconds=11))
    assert service.claimed(job, kinds=None)["chunk_id"] == first["chunk_id"]


def test_after_its_last_attempt_the_next_chunk_waits_as_long(
    service: Session, admin: Session, job: str
) -> None:
    service.fail(service.claimed(job, kinds=None), handler_down=True)
    service.pass_time(timedelta(seconds=11))
    again = next(
        chunk for chunk in (service.claimed(job, kinds=None) for _ in range(2)) if chunk["attempt"] == 2
    )
    lose(admin)
    assert service.fail(again, handler_down=True)["outcome"] == "failed"
    assert sent(admin) == []
    assert service.claim(job, kinds=None) is None
    invariants.check(service)
    service.pass_time(timedelta(seconds=21))
    service.cleanup()
    assert len(sent(admin)) == 1
    assert service.claimed(job, kinds=None)["attempt"] == 1


def test_with_success_it_says_nothing(service: Session, job: str) -> None:
    answer = service.complete(service.claimed(job, kinds=None), handler_down=True, claim_next=True)
    assert answer["next"]["chunk_index"] == 2
    invariants.check(service)


@pytest.mark.parametrize("action", ["pause_sync_job", "cancel_sync_job"])
def test_in_a_job_that_stands_still_nothing_keeps_a_slot(service: Session, job: str, action: str) -> None:
    chunk = service.claimed(job, kinds=None)
    service.control(action, job)
    service.fail(chunk, handler_down=True)
    assert [slot for slot in service.slots(job) if not slot["claimed"]] == []
    invariants.check(service)


def test_the_last_chunk_ends_its_job_all_the_same(service: Session) -> None:
    job = service.start("web", chunks=[{}], max_retries=0)["id"]
    service.fail(service.claimed(job, kinds=None), handler_down=True)
    assert service.progress(job)["status"] == "failed"
    invariants.check(service)


def test_null_is_no(service: Session, job: str) -> None:
    service.fail(service.claimed(job, kinds=None), handler_down=None)
    invariants.check(service)


def test_passes_leave_resting_slots_alone(service: Session, job: str) -> None:
    for _ in range(2):
        service.fail(service.claimed(job, kinds=None), handler_down=True, retry_after_seconds=3600)
    for _ in range(4):
        service.pass_time(timedelta(minutes=5))
        service.cleanup()
        assert service.claim(job, kinds=None) is None
    service.pass_time(timedelta(minutes=50))
    assert {service.claimed(job, kinds=None)["attempt"] for _ in range(2)} == {2}
