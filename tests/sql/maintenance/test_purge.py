"""Deleting what has ended long ago, a bounded piece at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from tests.sql import invariants
from tests.sql.database import Database, Session, refused
from tests.sql.threads import blocked, until

DAYS = timedelta(days=1)


def ended(session: Session, chunks: int) -> str:
    """A job that has ended."""
    job: str = session.start(chunks=[{}] * chunks)["id"]
    session.drain(job)
    return job


def test_only_ended_jobs_that_are_old_enough_go(service: Session) -> None:
    old = ended(service, 3)
    active = service.start(chunks=[{}])["id"]
    service.pass_time(31 * DAYS)
    recent = ended(service, 2)
    service.drain(recent)
    assert service.call("purge_sync_jobs") == {"jobs": 1, "chunks": 3, "more": False}
    left = {str(row["id"]) for row in service.rows("select id from public.sync_jobs")}
    assert left == {active, recent}
    assert old not in left
    invariants.check(service)


def test_a_call_is_bounded_by_chunks_even_for_one_big_job(service: Session) -> None:
    service.start(chunks=[{}] * 1000, max_concurrency=1000)
    service.control("cancel_sync_job", service.value("select id::text from public.sync_jobs"))
    calls = []
    for _ in range(20):
        answer = service.call("purge_sync_jobs", older_than=timedelta(0), batch_size=300)
        calls.append(answer["chunks"])
        assert answer["chunks"] <= 300
        if not answer["more"]:
            break
    assert calls[:3] == [300, 300, 300]
    assert sum(calls) >= 1000
    assert service.value("select count(*) from public.sync_jobs") == 0
    for table in ("chunk_processing_queue", "sync_jobs"):
        assert service.value(f"select count(*) from public.{table}") == 0


def test_everything_of_a_job_goes_with_it(service: Session, admin: Session) -> None:
    job = service.start("web", chunks=[{}] * 4, max_retries=0)["id"]
    service.call(
        "append_sync_chunks",
        parent_sync_job_id=job,
        chunks=[{}],
        request_id="11111111-1111-1111-1111-111111111111",
    )
    service.fail(service.claimed(job, kinds=None))
    service.drain(job, kinds=None)
    service.call("purge_sync_jobs", older_than=timedelta(0))
    tables = admin.rows(
        "select c.oid::regclass::text as name from pg_class c where c.relkind = 'r'"
        " and c.relnamespace in ('public'::regnamespace, 'chunk_private'::regnamespace)"
    )
    kept = {"sync_kinds", "chunk_private.settings", "chunk_private.lanes", "chunk_private.watchdog"}
    left = {row["name"] for row in tables if admin.value(f"select count(*) from {row['name']}")}
    assert {name.removeprefix("public.") for name in left} == kept


def test_a_job_that_is_being_reopened_is_not_purged(db: Database, service: Session) -> None:
    job = service.start(chunks=[{}], max_retries=0)["id"]
    service.fail(service.claimed(job))
    reopening = db.connect(autocommit=False)
    reopening.control("retry_failed_chunks", job)
    assert service.call("purge_sync_jobs", older_than=timedelta(0))["jobs"] == 0
    reopening.connection.commit()
    assert service.drain(job) == 1
    invariants.check(service)


def test_empty_jobs_go_too(service: Session) -> None:
    for _ in range(5):
        service.start(chunks=[])
    while service.call("purge_sync_jobs", older_than=timedelta(0), batch_size=2)["more"]:
        pass
    assert service.value("select count(*) from public.sync_jobs") == 0


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("append_sync_chunks", {"chunks": [{}], "request_id": "11111111-1111-1111-1111-111111111111"}),
        ("cancel_sync_job", {}),
        ("pause_sync_job", {}),
        ("resume_sync_job", {}),
        ("retry_failed_chunks", {}),
    ],
)
def test_steering_a_job_that_is_being_purged_finds_none(
    db: Database, service: Session, admin: Session, action: str, arguments: dict[str, object]
) -> None:
    job = ended(service, 1)
    purging, steering = db.connect(autocommit=False), db.connect()
    assert purging.call("purge_sync_jobs", older_than=timedelta(0))["jobs"] == 1
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(steering.call, action, parent_sync_job_id=job, **arguments)
        until(lambda: blocked(admin))
        purging.connection.commit()
        with refused("SC001"):
            late.result(10)


def test_a_job_whose_purge_has_begun_cannot_be_retried(service: Session) -> None:
    job = service.start(chunks=[{}] * 3, max_concurrency=1)["id"]
    service.fail(service.claimed(job), retryable=False)
    service.drain(job)
    service.call("purge_sync_jobs", older_than=timedelta(0), batch_size=1)
    with refused("SC005"):
        service.control("retry_failed_chunks", job)
    assert service.progress(job)["status"] == "failed"
    assert service.call("purge_sync_jobs", older_than=timedelta(0)) == {"jobs": 1, "chunks": 2, "more": False}


def test_jobs_without_chunks_are_no_chunks(service: Session) -> None:
    for _ in range(3):
        service.start(chunks=[])
    assert service.call("purge_sync_jobs", older_than=timedelta(0)) == {"jobs": 3, "chunks": 0, "more": False}


def test_a_repeated_report_that_meets_a_purge_says_that_there_is_no_such_chunk(
    db: Database, service: Session, admin: Session
) -> None:
    chunk = service.claimed(service.start(chunks=[{}])["id"])
    service.complete(chunk)
    purging, repeating = db.connect(autocommit=False), db.connect()
    assert purging.call("purge_sync_jobs", older_than=timedelta(0))["jobs"] == 1
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(repeating.give_back, chunk)
        until(lambda: blocked(admin))
        purging.connection.commit()
        with refused("SC001"):
            late.result(10)


def test_many_small_jobs_go_in_bites_with_some_hundred_locks(
    db: Database, service: Session, admin: Session
) -> None:
    """The server's table of locks has room for some thousands, for all sessions together."""
    admin.execute(
        "insert into public.sync_jobs (kind, status, max_concurrency, max_retries, total_chunks, started_at, completed_at)"
        " select 'plain', 'completed', 1, 3, 1, now() - interval '40 days', now() - interval '40 days'"
        " from generate_series(1, 1200)"
    )
    admin.execute(
        "insert into public.chunk_processing_queue (parent_sync_job_id, kind, chunk_index, status, attempts, completed_at)"
        " select j.id, j.kind, 0, 'completed', 1, j.completed_at from public.sync_jobs j"
    )
    answers = []
    while not answers or answers[-1]["more"]:
        purging = db.connect(autocommit=False)
        answers.append(purging.call("purge_sync_jobs", batch_size=100_000))
        assert admin.value("select count(*) from pg_locks") < 700
        purging.connection.commit()
    assert [(answer["jobs"], answer["chunks"]) for answer in answers] == [(500, 500), (500, 500), (200, 200)]
    assert service.value("select count(*) from public.chunk_processing_queue") == 0
