"""What should not be, and is all the same, is put right by passes of the watchdog, which say so."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import psycopg
import pytest

from tests.sql import invariants
from tests.sql.database import Database, Session
from tests.sql.model.damage import BY_HAND

LONG = timedelta(minutes=11)
CHUNKS = 16
_IN_SLOT = (
    "(select s.chunk_index from chunk_private.slots s where s.job_id = parent_sync_job_id and {} limit 1)"
)

# Of no harm: nothing is counted by it.
HARMLESS = {
    "attempts are set by hand",
    "attempts are all used by hand",
    "no retries are left by hand",
    "it waits",
}
# What nothing would come of, with the times that chunks wait for.
NEVER = {
    "slots are never due": "update chunk_private.slots set ready_at = 'infinity' where job_id = %s",
    "slots are due in a year": (
        "update chunk_private.slots set ready_at = now() + interval '1 year' where job_id = %s and not claimed"
    ),
    "slots are in no lane": "update chunk_private.slots set lane = lane + 1000000 where job_id = %s",
    "slots are in another lane": (
        "with l as (insert into chunk_private.lanes (kind, priority) values ('private', 3) returning id)"
        " update chunk_private.slots set lane = l.id from l where job_id = %s"
    ),
    "its priority is another": "update public.sync_jobs set priority = 2 where id = %s",
    "leases never end": (
        "update public.chunk_processing_queue set locked_until = 'infinity'"
        " where parent_sync_job_id = %s and status = 'processing'"
    ),
}
# What shows at once in slots and counters, and what shows only when the job comes to it.
DAMAGE = (
    BY_HAND
    | NEVER
    | {
        "retries are never due": "update chunk_private.returned_chunks set ready_at = 'infinity' where job_id = %s",
        "it waits": (
            "update public.chunk_processing_queue set ready_at = 'infinity' where parent_sync_job_id = %s and completed_at is null"
        ),
        "attempts are all used by hand": (
            "update public.chunk_processing_queue set attempts = 1 + max_retries"
            " where parent_sync_job_id = %s and status = 'pending'"
        ),
        "no retries are left by hand": (
            "update public.chunk_processing_queue set max_retries = 0, attempts = least(attempts, 1)"
            " where parent_sync_job_id = %s and status = 'pending'"
        ),
        "a retried chunk is forgotten": "delete from chunk_private.returned_chunks where job_id = %s",
        "fresh chunks are forgotten": "update chunk_private.fresh_stripes set next_index = next_index + 8 where job_id = %s",
        "the stripes are deleted": "delete from chunk_private.fresh_stripes where job_id = %s",
        "fresh chunks are handed out again": "update chunk_private.fresh_stripes set next_index = stripe where job_id = %s",
        "a chunk is returned that is not": (
            "insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)"
            " select s.job_id, now(), s.chunk_index from chunk_private.slots s where s.job_id = %s"
        ),
        "a chunk in a slot is done by hand": (
            "update public.chunk_processing_queue set status = 'completed', completed_at = now() where parent_sync_job_id = %s"
            f" and chunk_index = {_IN_SLOT.format('not s.claimed')}"
        ),
        "a chunk at work is done by hand": (
            "update public.chunk_processing_queue set status = 'completed', completed_at = now(), locked_until = null"
            f" where parent_sync_job_id = %s and chunk_index = {_IN_SLOT.format('s.claimed')}"
        ),
        "a chunk at work is pending by hand": (
            "update public.chunk_processing_queue set status = 'pending', locked_until = null"
            f" where parent_sync_job_id = %s and chunk_index = {_IN_SLOT.format('s.claimed')}"
        ),
        "a fresh chunk is done by hand": (
            "update public.chunk_processing_queue set status = 'completed', completed_at = now()"
            f" where parent_sync_job_id = %s and chunk_index = {CHUNKS - 1}"
        ),
        "a done chunk is opened by hand": (
            "update public.chunk_processing_queue set status = 'pending', completed_at = null"
            " where parent_sync_job_id = %s and chunk_index = 0"
        ),
        "that chunks have failed is set by hand": (
            "update public.chunk_processing_queue set has_failed = not has_failed"
            " where parent_sync_job_id = %s and completed_at is null"
        ),
        "attempts are set by hand": (
            "update public.chunk_processing_queue set attempts = attempts + 1"
            " where parent_sync_job_id = %s and completed_at is null"
        ),
        "attempts are forgotten": (
            "update public.chunk_processing_queue set attempts = 0 where parent_sync_job_id = %s and completed_at is null"
        ),
        "a token is lost": (
            "update public.chunk_processing_queue set claim_token = null"
            " where parent_sync_job_id = %s and status = 'processing'"
        ),
        # As a restore does it: else the trigger refuses it.
        "it ends by hand": (
            "update public.sync_jobs set status = 'completed', completed_at = now() where id = %s"
            " and set_config('session_replication_role', 'replica', true) is not null"
        ),
    }
)


@pytest.fixture
def job(service: Session) -> str:
    """A job in the middle: chunks that are done, at work, in a slot, in backoff and fresh."""
    job = str(service.start(chunks=[{}] * CHUNKS, max_concurrency=4)["id"])
    for _ in range(2):
        service.complete(service.claimed(job))
    service.fail(service.claimed(job), retry_after_seconds=60)
    service.claimed(job)
    service.claimed(job)
    invariants.check(service)
    return job


@pytest.mark.parametrize("what", DAMAGE)
def test_whatever_was_done_to_it_a_job_comes_to_its_end(
    service: Session, admin: Session, job: str, what: str
) -> None:
    other = service.start(chunks=[{}] * 3)["id"]
    admin.execute(DAMAGE[what], job)
    for _ in range(6):
        service.cleanup()
        drained(service, job)
        service.cleanup()
        if service.progress(job)["status"] == "completed":
            break
        service.pass_time(LONG)
    invariants.check(service)
    progress = service.progress(job)
    assert (progress["status"], progress["completed_chunks"], progress["retrying_chunks"]) == (
        "completed",
        CHUNKS,
        0,
    )
    healed = service.call("chunk_system_health")["healed"]
    if what not in HARMLESS:
        assert healed["times"] >= 1
        assert job in healed["last"]
    assert service.drain(other) == 3


def drained(service: Session, job: str) -> None:
    """Whatever can be done is done, until the damage makes a claim or a report impossible."""
    with suppress(psycopg.errors.CheckViolation, psycopg.errors.UniqueViolation):
        service.drain(job)


@pytest.mark.parametrize("what", BY_HAND | NEVER)
def test_what_shows_is_put_right_by_the_next_pass(
    service: Session, admin: Session, job: str, what: str
) -> None:
    admin.execute(DAMAGE[what], job)
    assert invariants.broken(service)
    assert service.cleanup() == 0
    invariants.check(service)
    assert service.call("chunk_system_health")["healed"]["times"] == 1
    service.cleanup()
    assert service.call("chunk_system_health")["healed"]["times"] == 1


@pytest.mark.parametrize("change", ["kind = 'private'", "stripes = 3"])
def test_what_a_job_is_laid_out_by_cannot_be_changed(admin: Session, job: str, change: str) -> None:
    with pytest.raises(psycopg.Error, match="kind and stripes of a job cannot be changed") as caught:
        admin.execute(f"update public.sync_jobs set {change} where id = %s", job)
    assert caught.value.sqlstate == "SC005"


def test_a_priority_changed_by_hand_holds_from_the_next_pass_on(
    service: Session, admin: Session, job: str
) -> None:
    other = service.start(chunks=[{}], priority=1)["id"]
    admin.execute("update public.sync_jobs set priority = 3 where id = %s", job)
    service.cleanup()
    assert service.claimed()["parent_sync_job_id"] != other


def test_a_job_that_was_cancelled_by_hand_is_cancelled(service: Session, admin: Session, job: str) -> None:
    admin.execute("update public.sync_jobs set status = 'cancelled', completed_at = now() where id = %s", job)
    service.cleanup()
    invariants.check(service)
    assert service.progress(job)["cancelled_chunks"] == CHUNKS - 2
    assert service.claim(job) is None


def test_nothing_is_healed_while_all_is_well(service: Session, job: str) -> None:
    service.start("web", chunks=[{}] * 3)
    service.control("pause_sync_job", service.start(chunks=[{}] * 3)["id"])
    service.start(sealed=False, chunks=[])
    for _ in range(4):
        service.pass_time(timedelta(minutes=2))
        service.cleanup()
    assert service.call("chunk_system_health")["healed"] == {"times": 0, "last_at": None, "last": None}


def test_a_job_that_is_being_steered_is_left_to_a_later_pass(
    db: Database, service: Session, admin: Session, job: str
) -> None:
    admin.execute(BY_HAND["all slots are deleted"], job)
    steering = db.connect(autocommit=False)
    steering.control("pause_sync_job", job)
    service.cleanup()
    assert service.slots(job) == []
    steering.connection.rollback()
    service.cleanup()
    invariants.check(service)


@pytest.mark.parametrize("function", ["take_returned", "take_fresh", "hand_out"])
def test_no_slot_is_lost_when_passing_it_on_fails(
    service: Session, admin: Session, job: str, function: str
) -> None:
    """As with a lock_timeout (55P03), a serialization failure or a full table of locks in the middle of it."""
    (arguments,) = admin.rows(
        "select pg_get_function_identity_arguments(p.oid) as list, p.prosrc as body, pg_get_functiondef(p.oid) as made"
        " from pg_proc p where p.proname = %s",
        function,
    )
    made = arguments["made"]
    body = arguments["body"]
    admin.execute(made.replace(body, "begin raise exception using errcode = '55P03'; end"))
    service.pass_time(LONG)
    assert service.cleanup() == 2
    claimed = [slot for slot in service.slots(job) if slot["claimed"]]
    assert claimed == []
    admin.execute(made)
    service.cleanup()
    invariants.check(service)
    for _ in range(3):
        service.drain(job)
        service.pass_time(LONG)
        service.cleanup()
    assert service.progress(job)["completed_chunks"] == CHUNKS
    invariants.check(service)
