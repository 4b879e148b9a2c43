"""What a signed-in user sees and may do: their own jobs, and nothing else."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psycopg
import pytest

from tests.sql import invariants
from tests.sql.database import Database, Session, refused

ANNA, BERT = str(uuid.uuid4()), str(uuid.uuid4())


@pytest.fixture
def anna(db: Database) -> Session:
    """A signed-in user."""
    return db.connect("authenticated", user=ANNA)


@pytest.fixture
def bert(db: Database) -> Session:
    """Another one."""
    return db.connect("authenticated", user=BERT)


def denied(call: Callable[[], Any]) -> None:
    """Insufficient privilege."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        call()


def test_a_user_starts_watches_and_steers_own_jobs(service: Session, anna: Session) -> None:
    job = anna.start(chunks=[{}] * 3, sealed=False)
    assert str(service.value("select owner_id from public.sync_jobs")) == ANNA
    assert service.rows("select distinct owner_id from public.chunk_processing_queue") == [
        {"owner_id": uuid.UUID(ANNA)}
    ]
    for action, status in [
        ("pause_sync_job", "paused"),
        ("resume_sync_job", "pending"),
        ("retry_failed_chunks", "pending"),
    ]:
        assert anna.control(action, job["id"])["status"] == status
    assert anna.call("append_sync_chunks", parent_sync_job_id=job["id"], chunks=[{}])["total_chunks"] == 4
    service.claimed(job["id"])
    progress = anna.progress(job["id"])
    assert (progress["processing_chunks"], progress["pending_chunks"]) == (1, 3)
    assert anna.rows("select processing_chunks, stalled from public.chunk_processing_status") == [
        {"processing_chunks": 1, "stalled": False}
    ]
    assert len(anna.rows("select payload from public.chunk_processing_queue")) == 4
    assert anna.control("cancel_sync_job", job["id"])["status"] == "cancelled"
    invariants.check(service)


@pytest.mark.parametrize("owner", ["the service", "another user"])
def test_other_peoples_jobs_are_not_there(service: Session, anna: Session, bert: Session, owner: str) -> None:
    starter = service if owner == "the service" else bert
    job = starter.start(chunks=[{}, {}], sealed=False)["id"]
    chunk = service.claimed(job)
    service.fail(chunk)
    for action in ("cancel_sync_job", "pause_sync_job", "resume_sync_job", "retry_failed_chunks"):
        with refused("SC001"):
            anna.control(action, job)
    with refused("SC001"):
        anna.progress(job)
    with refused("SC001"):
        anna.call("append_sync_chunks", parent_sync_job_id=job, chunks=[{}])
    for relation in (
        *("public.sync_jobs", "public.chunk_processing_queue", "public.chunk_processing_status"),
        *("chunk_private.job_counters", "chunk_private.slots", "chunk_private.dispatches"),
    ):
        assert anna.value(f"select count(*) from {relation}") == 0
    assert service.progress(job)["total_chunks"] == 2


def test_keys_and_request_ids_of_others_do_not_matter(anna: Session, bert: Session) -> None:
    request = uuid.uuid4()
    jobs = {session.start(chunks=[{}], job_key="inbox", request_id=request)["id"] for session in (anna, bert)}
    assert len(jobs) == 2


def test_nobody_starts_in_anothers_name(anna: Session, service: Session) -> None:
    with refused("SC003", "owner_id"):
        anna.start(chunks=[{}], owner_id=BERT)
    assert anna.start(chunks=[{}], owner_id=ANNA)["created"] is True
    assert str(service.value("select owner_id from public.sync_jobs")) == ANNA


@pytest.mark.parametrize("kind", ["private", "custom", "unheard-of"])
def test_only_startable_kinds(anna: Session, kind: str) -> None:
    with refused("SC002", "kind"):
        anna.start(kind, chunks=[{}])


def test_limits_of_users(anna: Session, service: Session) -> None:
    service.execute("update chunk_private.settings set user_max_chunks = 5, user_max_active_jobs = 2")
    service.call("save_sync_kind", kind="plain", max_concurrency=4, max_retries=2, user_startable=True)
    with refused("SC004", "chunks"):
        anna.start(chunks=[{}] * 6)
    with refused("SC004", "max_concurrency"):
        anna.start(chunks=[{}], max_concurrency=5)
    with refused("SC004", "max_retries"):
        anna.start(chunks=[{}], max_retries=3)
    with refused("SC004", "priority"):
        anna.start(chunks=[{}], priority=1)
    job = anna.start(chunks=[{}] * 5, sealed=False, priority=-1, max_concurrency=4, max_retries=2)["id"]
    with refused("SC004", "chunks"):
        anna.call("append_sync_chunks", parent_sync_job_id=job, chunks=[{}])
    anna.start(chunks=[{}])
    with refused("SC004"):
        anna.start(chunks=[{}])
    anna.control("cancel_sync_job", job)
    assert anna.start(chunks=[{}])["created"] is True


def test_retried_jobs_count_as_active_ones(anna: Session, service: Session) -> None:
    service.execute("update chunk_private.settings set user_max_active_jobs = 2")
    failed = [anna.start(chunks=[{}])["id"] for _ in range(2)]
    for job in failed:
        service.fail(service.claimed(job), retryable=False)
    anna.start(chunks=[{}])
    assert anna.control("retry_failed_chunks", failed[0])["status"] == "running"
    with refused("SC004"):
        anna.control("retry_failed_chunks", failed[1])
    assert service.control("retry_failed_chunks", failed[1])["status"] == "running"


def test_parallel_starts_cannot_slip_past_the_limit(db: Database, service: Session) -> None:
    service.execute("update chunk_private.settings set user_max_active_jobs = 3")
    sessions = [db.connect("authenticated", user=ANNA) for _ in range(10)]

    def start(session: Session) -> bool:
        try:
            return bool(session.start(chunks=[{}])["created"])
        except psycopg.Error as error:
            assert error.sqlstate == "SC004"  # noqa: PT017
            return False

    with ThreadPoolExecutor(10) as pool:
        assert sum(pool.map(start, sessions)) == 3
    assert service.value("select count(*) from public.sync_jobs") == 3


def test_a_sealed_job_takes_no_more_from_its_user(anna: Session) -> None:
    job = anna.start(chunks=[{}])["id"]
    with refused("SC005"):
        anna.call("append_sync_chunks", parent_sync_job_id=job, chunks=[{}])


def test_users_write_no_table_and_call_no_service_function(anna: Session, service: Session) -> None:
    job = anna.start(chunks=[{}])["id"]
    for statement in (
        "update public.sync_jobs set status = 'completed'",
        "insert into public.chunk_processing_queue (parent_sync_job_id, kind, chunk_index) select id, kind, 9 from public.sync_jobs",
        "delete from public.chunk_processing_queue",
        "update chunk_private.slots set claimed = true",
        "select * from chunk_private.chunk_attempts",
        "select * from chunk_private.settings",
        "select * from vault.decrypted_secrets",
        "select chunk_private.fill_slots(id) from public.sync_jobs",
    ):
        denied(partial(anna.rows, statement))
    denied(lambda: anna.claim(job))
    denied(lambda: anna.cleanup())
    denied(lambda: anna.call("purge_sync_jobs"))
    denied(lambda: anna.call("chunk_system_health"))
    invariants.check(service)


def test_a_token_without_a_user_is_nobody(db: Database, service: Session) -> None:
    """A missing user id never means the service."""
    job = service.start(chunks=[{}])["id"]
    nameless = db.connect("authenticated")
    denied(lambda: nameless.start(chunks=[{}]))
    for action in ("cancel_sync_job", "pause_sync_job", "retry_failed_chunks"):
        with pytest.raises(psycopg.Error) as caught:
            nameless.control(action, job)
        assert caught.value.sqlstate in ("42501", "SC001")
    assert nameless.value("select count(*) from public.sync_jobs") == 0
    assert service.progress(job)["status"] == "pending"


def test_anon_may_do_nothing(db: Database, service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    anon = db.connect("anon")
    denied(lambda: anon.start(chunks=[{}]))
    denied(lambda: anon.progress(job))
    denied(lambda: anon.control("cancel_sync_job", job))
    for relation in ("sync_kinds", "sync_jobs", "chunk_processing_queue", "chunk_processing_status"):
        denied(partial(anon.rows, f"select 1 from public.{relation}"))


@pytest.mark.parametrize("role", ["service_role", "postgres"])
def test_the_service_sees_and_steers_every_job(db: Database, anna: Session, role: str) -> None:
    job = anna.start(chunks=[{}])["id"]
    acting = db.connect(role)
    assert acting.progress(job)["id"] == job
    assert acting.control("pause_sync_job", job)["status"] == "paused"
