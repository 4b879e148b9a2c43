"""One pass of the watchdog does all there is to do, and one bad row does not stop it."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from tests.sql import invariants
from tests.sql.cleanup.hooks import configure, lose, sent
from tests.sql.database import Database, Session, refused
from tests.sql.threads import together

POISON = """
create function public.poison() returns trigger language plpgsql as $$
begin
  if {condition} then raise exception 'poisoned'; end if;
  return new;
end $$;
create trigger poison before update on {table} for each row execute function public.poison();
"""


def test_one_pass_does_everything(service: Session, admin: Session) -> None:
    configure(service)
    lost_job = service.start("web", chunks=[{}] * 3, max_concurrency=1)["id"]
    lost = service.claimed(lost_job, kinds=None)
    unheard = service.start("web", chunks=[{}])["id"]
    done = service.start(chunks=[{}])["id"]
    service.drain(done)
    service.execute(
        "update public.sync_jobs set status = 'running', completed_at = null where id = %s",
        done,
    )
    lose(admin)
    service.pass_time(timedelta(minutes=11))
    assert service.cleanup() == 1
    assert {body["parent_sync_job_id"] for body in sent(admin)} == {lost_job, unheard}
    assert service.progress(done)["status"] == "completed"
    assert service.claimed(lost_job, kinds=None)["chunk_id"] == lost["chunk_id"]
    invariants.check(service)


def test_a_chunk_that_cannot_be_updated_stops_nothing_but_itself(service: Session, admin: Session) -> None:
    configure(service)
    jobs = [service.start("web", chunks=[{}] * 2, max_concurrency=1)["id"] for _ in range(5)]
    held = [service.claimed(job, kinds=None) for job in jobs]
    waiting = service.start("web", chunks=[{}])["id"]
    lose(admin)
    admin.execute(
        POISON.format(table="public.chunk_processing_queue", condition=f"new.id = {held[2]['chunk_id']}")
    )
    admin.execute("set session_replication_role = replica")  # the clock itself is not poisoned
    admin.pass_time(timedelta(minutes=11))
    assert service.cleanup() == 4
    assert waiting in {body["parent_sync_job_id"] for body in sent(admin)}
    assert service.chunks(jobs[2])[0]["status"] == "processing"
    invariants.check(service)


def test_a_waiting_chunk_that_cannot_be_updated_keeps_no_webhook_from_the_others(
    service: Session, admin: Session
) -> None:
    configure(service)
    jobs = [service.start("web", chunks=[{}])["id"] for _ in range(5)]
    lose(admin)
    bad = service.chunks(jobs[2])[0]["id"]
    admin.execute(POISON.format(table="public.chunk_processing_queue", condition=f"new.id = {bad}"))
    admin.execute("set session_replication_role = replica")
    admin.pass_time(timedelta(minutes=5))
    service.cleanup()
    assert {body["parent_sync_job_id"] for body in sent(admin)} >= set(jobs) - {jobs[2]}


def test_a_job_that_cannot_be_updated_stops_nothing_but_itself(service: Session, admin: Session) -> None:
    jobs = [service.start(chunks=[{}], max_retries=0)["id"] for _ in range(3)]
    for job in jobs:
        service.claimed(job)
    admin.execute(POISON.format(table="public.sync_jobs", condition=f"new.id = '{jobs[1]}'"))
    admin.execute("set session_replication_role = replica")
    admin.pass_time(timedelta(minutes=11))
    service.cleanup()
    assert [service.progress(job)["status"] for job in (jobs[0], jobs[2])] == ["failed", "failed"]
    admin.execute("set session_replication_role = origin")
    admin.execute("drop trigger poison on public.sync_jobs")
    admin.pass_time(timedelta(minutes=2))
    service.cleanup()
    assert service.progress(jobs[1])["status"] == "failed"
    invariants.check(service)


def test_passes_at_the_same_time_do_no_harm(db: Database, service: Session) -> None:
    jobs = [service.start(chunks=[{}] * 20, max_concurrency=20)["id"] for _ in range(10)]
    for job in jobs:
        service.call(
            "claim_chunk_jobs_safe", worker_id="w", batch_size=20, parent_sync_job_id=job, kinds=["plain"]
        )
    service.pass_time(timedelta(minutes=11))
    recovered = together(db, 6, lambda session, _: session.cleanup())
    assert sum(recovered) + service.cleanup() == 200
    assert service.value("select count(*) from chunk_private.chunk_attempts") == 200
    assert service.value("select max(attempts) from public.chunk_processing_queue") == 1
    invariants.check(service)


def test_a_pass_is_bounded(service: Session) -> None:
    job = service.start(chunks=[{}] * 1500, max_concurrency=1000)["id"]
    other = service.start(chunks=[{}] * 500, max_concurrency=1000)["id"]
    for parent in [job] * 10 + [other] * 5:
        service.call(
            "claim_chunk_jobs_safe", worker_id="w", batch_size=100, parent_sync_job_id=parent, kinds=["plain"]
        )
    service.pass_time(timedelta(minutes=11))
    counts = [service.cleanup() for _ in range(3)]
    assert counts == [1000, 500, 0]
    invariants.check(service)


def test_a_chunk_whose_worker_is_just_reporting_is_left_alone(db: Database, service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job)
    service.pass_time(timedelta(minutes=11))
    reporting = db.connect(autocommit=False)
    reporting.complete(chunk)
    assert service.cleanup() == 0
    reporting.connection.commit()
    assert service.progress(job)["status"] == "completed"


def test_a_job_that_is_being_steered_holds_up_no_other(db: Database, service: Session) -> None:
    one, two = (service.start(chunks=[{}])["id"] for _ in range(2))
    service.claimed(one)
    service.claimed(two)
    service.pass_time(timedelta(minutes=11))
    steering = db.connect(autocommit=False)
    steering.control("cancel_sync_job", one)
    assert service.cleanup() == 1
    assert service.progress(two)["pending_chunks"] == 1
    steering.connection.commit()
    assert service.cleanup() == 0
    invariants.check(service)


def test_free_slots_that_nobody_filled_are_filled(service: Session) -> None:
    job = service.start(chunks=[{}] * 5, max_concurrency=2)["id"]
    service.execute("delete from chunk_private.slots")
    service.execute("update chunk_private.fresh_stripes set next_index = stripe")
    assert service.claim(job) is None
    service.pass_time(timedelta(minutes=2))
    service.cleanup()
    assert service.drain(job) == 5
    invariants.check(service)


def test_a_claim_passes_over_a_chunk_that_was_deleted(service: Session) -> None:
    job = service.start(chunks=[{}] * 2, max_concurrency=2)["id"]
    service.execute("delete from public.chunk_processing_queue where chunk_index = 0")
    assert service.claimed(job)["chunk_index"] == 1
    assert service.claim(job) is None


@pytest.mark.parametrize("claim_next", [False, True])
def test_a_report_whose_slot_was_deleted_goes_on_with_the_next_chunk(
    service: Session, claim_next: bool
) -> None:
    job = service.start(chunks=[{}] * 5, max_concurrency=1)["id"]
    chunk = service.claimed(job)
    service.execute("delete from chunk_private.slots")
    assert service.complete(chunk, claim_next=claim_next)["next"] is None
    assert service.drain(job) == 4
    invariants.check(service)


@pytest.mark.measured
def test_nothing_to_do_costs_next_to_nothing(service: Session) -> None:
    """With a thousand active jobs that are at work, a pass takes milliseconds: the best of some, against a busy machine."""
    for _ in range(100):
        service.start(chunks=[{}])
    service.cleanup()
    times = []
    for _ in range(30):
        start = time.perf_counter()
        service.cleanup()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.003


def test_a_negative_time_is_refused(service: Session) -> None:
    with refused("SC003", "stuck_after"):
        service.cleanup(stuck_after=timedelta(seconds=-1))


@pytest.mark.parametrize("role", ["service_role", "postgres", "supabase_admin"])
def test_it_runs_as_the_roles_that_call_it(db: Database, service: Session, role: str) -> None:
    job = service.start(chunks=[{}])["id"]
    service.claimed(job)
    service.pass_time(timedelta(minutes=11))
    assert db.connect(role).cleanup() == 1
