"""A job finishes exactly once, whoever reports last."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from tests.sql import invariants
from tests.sql.database import Database, Session
from tests.sql.threads import blocked, together, until

WORKERS = 16


@pytest.mark.parametrize("times", [100, pytest.param(1000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("with_watchdog", [False, True])
def test_sixteen_last_finishers_many_times(
    db: Database, service: Session, with_watchdog: bool, times: int
) -> None:
    jobs = [service.start(chunks=[{}] * WORKERS, max_concurrency=WORKERS)["id"] for _ in range(times)]
    hands = [
        service.call(
            "claim_chunk_jobs_safe",
            worker_id="w",
            batch_size=WORKERS,
            parent_sync_job_id=job,
            kinds=["plain"],
        )
        for job in jobs
    ]
    lined_up = threading.Barrier(WORKERS)
    stop = threading.Event()

    def watch() -> None:
        session = db.connect()
        while not stop.is_set():
            session.cleanup(stuck_after=timedelta(hours=1))
            # As if nobody had moved them for an hour: the watchdog settles what looks done.
            session.execute(
                "update chunk_private.job_counters c set last_activity_at = now() - interval '1 hour'"
                " where c.job_id in (select j.id from public.sync_jobs j where j.status = 'running' limit 5)"
            )

    def work(session: Session, number: int) -> list[str]:
        ends = []
        for hand in hands:
            lined_up.wait()
            ends.append(session.complete(hand[number])["job_status"])
        return ends

    watchdog = threading.Thread(target=watch) if with_watchdog else None
    if watchdog:
        watchdog.start()
    try:
        together(db, WORKERS, work)
    finally:
        stop.set()
        if watchdog:
            watchdog.join()
    found = service.rows(
        "select status, tests.finishes(id) as finishes, count(*) as jobs from public.sync_jobs group by 1, 2"
    )
    assert found == [{"status": "completed", "finishes": 1, "jobs": times}]
    invariants.check(service)


@pytest.mark.parametrize("last", ["complete", "fail", "cleanup"])
def test_two_last_ones_in_open_transactions(
    db: Database, service: Session, admin: Session, last: str
) -> None:
    """Neither sees the other's row; the second to commit finishes the job."""
    job = service.start(chunks=[{}, {}], max_concurrency=2, max_retries=0)["id"]
    one, two = service.claimed(job, lease_seconds=600), service.claimed(job, lease_seconds=1)
    service.execute(
        "update public.chunk_processing_queue set locked_until = now() - interval '1 s' where id = %s",
        two["chunk_id"],
    )
    first, second = db.connect(autocommit=False), db.connect(autocommit=False)
    first.complete(one)
    actions = {
        "complete": lambda: second.complete(two),
        "fail": lambda: second.fail(two),
        "cleanup": second.cleanup,
    }
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(actions[last])
        until(lambda: later.done() or blocked(admin))
        first.connection.commit()
        later.result()
    second.connection.commit()
    progress = service.progress(job)
    assert progress["status"] == ("completed" if last == "complete" else "failed")
    assert service.value("select tests.finishes(id) from public.sync_jobs") == 1
    invariants.check(service)


def test_the_last_of_many_stripes_in_any_order(service: Session) -> None:
    job = service.start(chunks=[{}] * 16, max_concurrency=16)["id"]
    chunks = [service.claimed(job) for _ in range(16)]
    for chunk in reversed(chunks[1:]):
        assert service.complete(chunk)["job_status"] == "running"
    assert service.complete(chunks[0])["job_status"] == "completed"


def test_a_finish_that_was_missed_is_made_up_by_the_watchdog(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    service.drain(job)
    service.execute("update public.sync_jobs set status = 'running', completed_at = null")
    service.execute("delete from tests.ends")
    service.cleanup()
    assert service.progress(job)["status"] == "running"  # not quiet for a minute yet
    service.pass_time(timedelta(minutes=2))
    service.cleanup()
    assert service.progress(job)["status"] == "completed"
    service.cleanup()
    assert service.value("select tests.finishes(id) from public.sync_jobs") == 1
