"""The main scenarios on the oldest PostgreSQL that is supported."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.sql import invariants
from tests.sql.cleanup.hooks import configure, sent
from tests.sql.database import Database, Session
from tests.sql.model.machine import play
from tests.sql.threads import together


@pytest.fixture
def service(db_15: Database) -> Session:
    """A connection as service_role, on PostgreSQL 15."""
    return db_15.connect()


def test_a_job_from_its_start_to_its_end(db_15: Database, service: Session) -> None:
    configure(service)
    job = service.start("web", chunks=[{"plan": True}], payload={"a": 1})["id"]
    chunk = service.claimed(job, kinds=None)
    service.extend(chunk, items_processed=1)
    answer = service.complete(chunk, next_chunks=[{"n": n} for n in range(6)], claim_next=True)
    following = answer["next"]
    service.fail(service.claimed(job, kinds=None), "broken")
    service.give_back({"chunk_id": following["chunk_id"], "claim_token": following["claim_token"]})
    invariants.check(service)
    service.pass_time(timedelta(minutes=11))
    service.cleanup()
    assert service.drain(job, kinds=None) == 6
    assert service.progress(job)["status"] == "completed"
    assert len(sent(db_15.connect("supabase_admin"))) > 0
    invariants.check(service)


def test_steering(service: Session) -> None:
    job = service.start(chunks=[{}] * 4, max_concurrency=2, max_retries=0)["id"]
    service.fail(service.claimed(job))
    service.control("pause_sync_job", job)
    service.control("resume_sync_job", job)
    service.drain(job)
    assert service.control("retry_failed_chunks", job)["status"] == "running"
    invariants.check(service)
    assert service.control("cancel_sync_job", job)["status"] == "cancelled"
    assert service.call("purge_sync_jobs", older_than=timedelta(0))["jobs"] == 1


def test_batches_on_eight_connections(db_15: Database, service: Session) -> None:
    service.call("save_sync_kind", kind="bulk", max_concurrency=1000, max_retries=50, retry_delay_seconds=0)
    for _ in range(3):
        service.start("bulk", chunks=[{}] * 200, max_concurrency=30)

    def work(session: Session, number: int) -> None:
        idle = 0
        while idle < 20:
            batch = session.call(
                "claim_chunk_jobs_safe", worker_id="w", batch_size=5 + number, kinds=["bulk"]
            )
            idle = 0 if batch else idle + 1
            reports = [
                {
                    "chunk_id": c["chunk_id"],
                    "claim_token": c["claim_token"],
                    "success": c["chunk_index"] % 7 > 0 or c["attempt"] > 1,
                }
                for c in batch
            ]
            session.call("complete_chunk_jobs_safe", completions=reports)

    together(db_15, 8, work)
    assert service.rows("select distinct status, tests.finishes(id) as finishes from public.sync_jobs") == [
        {"status": "completed", "finishes": 1}
    ]
    invariants.check(service)


def test_users_see_their_own(db_15: Database, service: Session) -> None:
    user = "7a3bb6de-5bde-4cf3-96b5-4a3a7f0b5a8e"
    anna = db_15.connect("authenticated", user=user)
    service.start(chunks=[{}])
    job = anna.start(chunks=[{}])["id"]
    assert [
        str(row["parent_sync_job_id"]) for row in anna.rows("select * from public.chunk_processing_status")
    ] == [job]


def test_it_does_what_the_model_does(db_15: Database) -> None:
    play(db_15, examples=30, steps=20)
