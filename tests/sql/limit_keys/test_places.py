"""Places: never more chunks of a key processing than it has, and jobs with one key take turns."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.sql import invariants
from tests.sql.cleanup.hooks import configure, sent
from tests.sql.database import Database, Row, Session, reports
from tests.sql.threads import together

KEY = "api.example.com"


def limit(service: Session, places: int | None = 2, **rules: Any) -> Any:
    """Set the limits of KEY."""
    return service.call("save_sync_limit", key=KEY, max_concurrency=places, **rules)


def start(service: Session, chunks: int = 3, kind: str = "plain", **options: Any) -> str:
    """Start a job with KEY."""
    return str(service.start(kind, chunks=[{}] * chunks, limit_key=KEY, **options)["id"])


def check(service: Session) -> None:
    """All invariants, and as many slots awake as there is room for."""
    invariants.check(service)
    assert invariants.not_level(service) == []


def test_one_claim_after_the_other_gets_as_many_as_there_are_places(service: Session) -> None:
    limit(service)
    jobs = [start(service) for _ in range(3)]
    held = [service.claimed() for _ in range(2)]
    assert service.claim() is None
    assert [len(service.slots(job)) for job in jobs] == [2, 2, 2]
    check(service)
    service.complete(held[0])
    assert service.claimed()["limit_key"] == KEY
    assert service.claim() is None
    check(service)


def test_a_batch_gets_no_more_and_goes_on_to_chunks_without_a_key(service: Session) -> None:
    limit(service)
    start(service, 5)
    service.start(chunks=[{}] * 3)
    start(service, 5)
    batch = service.call("claim_chunk_jobs_safe", worker_id="w", batch_size=10, kinds=["plain"])
    assert sorted(str(c["limit_key"]) for c in batch) == ["None"] * 3 + [KEY] * 2
    check(service)
    service.call("complete_chunk_jobs_safe", completions=reports(batch))
    check(service)
    assert len(service.call("claim_chunk_jobs_safe", worker_id="w", batch_size=10, kinds=["plain"])) == 2


def test_jobs_take_turns_and_a_job_goes_on_only_when_it_is_its_turn(service: Session) -> None:
    limit(service, 1)
    first, second = start(service, 2), start(service, 2)
    order: list[str] = []
    chunk: Any = service.claimed()
    for _ in range(4):
        order.append(str(chunk["parent_sync_job_id"]))
        following = service.complete(chunk, claim_next=True)["next"]
        assert following is None or following["limit_key"] == KEY
        check(service)
        chunk = following or service.claim()
    assert order == [first, second, first, second]
    assert chunk is None


def test_a_job_alone_goes_on_by_itself(service: Session) -> None:
    limit(service, 1)
    job = start(service, 3)
    chunk: Any = service.claimed()
    for index in (1, 2):
        chunk = service.complete(chunk, claim_next=True)["next"]
        assert chunk["chunk_index"] == index
        check(service)
    assert service.complete(chunk, claim_next=True)["next"] is None
    assert service.progress(job)["status"] == "completed"


def test_a_kind_that_nobody_works_on_holds_up_no_other(service: Session) -> None:
    limit(service, 1)
    start(service, 2, "private")
    job = start(service, 3)
    assert service.drain() == 3
    assert service.progress(job)["status"] == "completed"
    check(service)


def test_webhooks_are_sent_for_as_many_as_there_are_places(service: Session, admin: Session) -> None:
    configure(service)
    limit(service, 3)
    jobs = [start(service, 1, "web") for _ in range(100)]
    assert len(sent(admin)) == 3
    chunk = service.claimed(kinds=None)
    service.complete(chunk)
    assert len(sent(admin)) == 4
    assert service.drain(kinds=None) == 99
    assert len(sent(admin)) == 100
    assert {service.progress(job)["status"] for job in jobs} == {"completed"}


@pytest.mark.parametrize("jobs", [250, pytest.param(1000, marks=pytest.mark.soak)])
def test_hundreds_of_jobs_of_one_key_finish(db: Database, service: Session, jobs: int) -> None:
    limit(service, 4)
    service.rows(
        "select public.start_sync_job('plain', limit_key => %s, max_concurrency => 1) from generate_series(1, %s)",
        KEY,
        jobs,
    )
    check(service)

    def work(session: Session, _number: int) -> int:
        done, end = 0, time.monotonic() + 30
        while time.monotonic() < end:
            chunk = session.claim()
            if chunk is not None:
                session.complete(chunk)
                done += 1
            elif not session.value("select count(*) from chunk_private.slots"):
                break
        return done

    assert sum(together(db, 4, work)) == jobs
    check(service)


@pytest.mark.parametrize("what", ["pause_sync_job", "cancel_sync_job"])
def test_what_a_job_leaves_goes_to_others(service: Session, what: str) -> None:
    limit(service)
    first, second = start(service), start(service)
    service.control(what, first)
    check(service)
    held = [service.claimed() for _ in range(2)]
    assert {str(chunk["parent_sync_job_id"]) for chunk in held} == {second}
    if what == "pause_sync_job":
        service.control("resume_sync_job", first)
        check(service)
        service.complete(held[0])
        assert service.drain() == 4
    check(service)


def test_what_a_lost_worker_held_is_free_after_a_pass(service: Session) -> None:
    limit(service, 1)
    start(service, 2)
    lost = service.claimed(lease_seconds=1)
    service.execute(
        "update public.chunk_processing_queue set locked_until = now() - interval '1 s' where id = %s",
        lost["chunk_id"],
    )
    assert service.claim() is None
    assert service.cleanup() == 1
    check(service)
    assert service.drain() == 2


def test_a_deleted_job_leaves_its_places_after_a_pass(service: Session, admin: Session) -> None:
    limit(service, 1)
    gone, job = start(service, 2), start(service, 2)
    service.claimed(gone)
    admin.execute("delete from public.sync_jobs where id = %s", gone)
    service.cleanup()
    check(service)
    assert service.drain() == 2
    assert service.progress(job)["status"] == "completed"


def test_a_caller_that_rolls_back_leaves_nothing(db: Database, service: Session) -> None:
    limit(service, 1)
    start(service, 2)
    caller = db.connect(autocommit=False)
    caller.complete(caller.claimed(), claim_next=True)
    caller.connection.rollback()
    check(service)
    assert service.drain() == 2


def test_more_places_are_used_at_once_and_fewer_as_they_are_given_back(service: Session) -> None:
    limit(service, 1)
    job = start(service, 9)
    held = [service.claimed()]
    assert limit(service, 4)["processing"] == 1
    assert len(service.slots(job)) == 4
    held += [service.claimed() for _ in range(3)]
    assert service.claim() is None
    limit(service, 2)
    for chunk in held[:2]:
        service.complete(chunk)
        assert service.claim() is None
    service.complete(held[2])
    assert service.claimed()
    assert service.call("save_sync_limit", key=KEY) is not None
    assert service.drain() == 4


def test_retries_and_chunks_given_back_keep_to_it(service: Session) -> None:
    limit(service, 1)
    start(service, 2)
    start(service, 2)
    for act in (service.fail, service.give_back, lambda c: service.fail(c, retry_after_seconds=3600)):
        act(service.claimed())
        check(service)
    assert service.drain() == 3


def test_sixteen_at_once_are_never_more_than_its_places(db: Database, service: Session) -> None:
    limit(service, 3)
    jobs = [start(service, 20) for _ in range(5)]
    end = time.monotonic() + 2

    def work(session: Session, number: int) -> int:
        if number == 0:
            looks = 0
            while time.monotonic() < end:
                assert (violations := invariants.broken(session)) == [], violations
                assert (violations := invariants.not_level(session)) == [], violations
                looks += 1
            return looks
        chunk: Row | None = None
        while time.monotonic() < end:
            chunk = chunk or session.claim(kinds=["plain"])
            if chunk is not None:
                chunk = session.complete(chunk, claim_next=number % 2 == 0)["next"]
        if chunk is not None:
            session.give_back(chunk)
        return 1

    assert together(db, 17, work)[0] > 3
    service.drain()
    assert {service.progress(job)["status"] for job in jobs} == {"completed"}
    check(service)
