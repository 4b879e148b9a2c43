"""Ordered pairs of operations, in two open transactions on one job."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.sql import invariants
from tests.sql.cleanup.hooks import configure
from tests.sql.database import Database, Session
from tests.sql.deadlocks.operations import ON_LIMITS, ON_ONE_CHUNK, OPERATIONS, LimitedScene, Scene
from tests.sql.threads import together, until

# What an operation may rightly answer when the other one came first.
RIGHTLY_REFUSED = ("SC001", "SC005")


def wait_or_end(running: Future[Any], observer: Session, pid: int) -> None:
    """Wait until the second operation has ended, or waits for a lock."""
    query = "select coalesce(wait_event_type = 'Lock', false) from pg_stat_activity where pid = %s"
    until(lambda: running.done() or observer.value(query, pid))


def bring_to_its_end(session: Session, scene: Scene) -> None:
    """Claims and reports alone, without the watchdog, must bring the job to its end."""
    status = session.progress(scene.job)["status"]
    if status == "paused":
        session.control("resume_sync_job", scene.job)
    for _round in range(50):
        held = session.rows(
            "select q.id as chunk_id, q.claim_token::text from public.chunk_processing_queue q"
            " where (q.parent_sync_job_id = %s or %s) and q.status = 'processing'",
            scene.job,
            scene.limit_key is not None,
        )
        session.call("complete_chunk_jobs_safe", completions=held)
        batch = session.call(
            "claim_chunk_jobs_safe",
            worker_id="w",
            batch_size=100,
            # Of one job with a limit key all may sleep, while those of others are awake.
            parent_sync_job_id=None if scene.limit_key else scene.job,
        )
        if not batch:
            break
    status = session.progress(scene.job)["status"]
    assert status in ("completed", "failed", "cancelled"), status
    assert not session.chunks(scene.job, "pending")


# Which lock what others wait for: each meets each of these, both ways round.
MEET_ALL = {
    "claim a batch",
    "complete and claim",
    "append in bulk",
    "fail in bulk",
    "give back and go on",
    "watchdog",
    "cancel",
    "retry failed",
    "append",
    "purge",
}


def partners(first: str) -> Iterator[str]:
    """What an operation meets in `make test`: those above, itself, and every fifth of the rest. `make soak` has all pairs."""
    names = list(OPERATIONS)
    for place, second in enumerate(names):
        both_lock_much = {first, second} <= MEET_ALL
        if both_lock_much or first == second or (names.index(first) + place) % 5 == 0:
            yield second


@pytest.mark.parametrize("first", OPERATIONS)
def test_no_pair_deadlocks_or_strands_a_chunk(
    db: Database, service: Session, admin: Session, first: str
) -> None:
    _meet(db, service, admin, first, partners(first))


# What makes, frees or deletes slots, and so has to do with limits.
OF_LIMITED_JOBS = {
    name: OPERATIONS[name]
    for name in OPERATIONS
    if name
    not in ("extend", "extend in bulk", "save a checkpoint", "save the state", "progress", "retry from start")
} | ON_LIMITS


def partners_on_limits(first: str) -> list[str]:
    """Itself and every tenth in `make test`, others for each; `make soak` has all pairs."""
    names = list(OF_LIMITED_JOBS)
    return [
        second
        for place, second in enumerate(names)
        if second == first or (names.index(first) + place) % 10 == 0
    ]


@pytest.mark.parametrize("first", OF_LIMITED_JOBS)
def test_no_pair_of_jobs_with_a_limit_key_does(
    db: Database, service: Session, admin: Session, first: str
) -> None:
    _meet(db, service, admin, first, partners_on_limits(first), LimitedScene)


@pytest.mark.soak
@pytest.mark.parametrize("first", OF_LIMITED_JOBS)
def test_no_pair_at_all_of_jobs_with_a_limit_key_does(
    db: Database, service: Session, admin: Session, first: str
) -> None:
    _meet(db, service, admin, first, OF_LIMITED_JOBS, LimitedScene)


@pytest.mark.soak
@pytest.mark.parametrize("first", OPERATIONS)
def test_no_pair_at_all_does(db: Database, service: Session, admin: Session, first: str) -> None:
    _meet(db, service, admin, first, OPERATIONS)


def _meet(
    db: Database,
    service: Session,
    admin: Session,
    first: str,
    seconds: Iterable[str],
    make: type[Scene] = Scene,
) -> None:
    configure(service)
    operations = OPERATIONS | ON_LIMITS
    one, two = db.connect(autocommit=False), db.connect()
    two_pid = two.connection.info.backend_pid
    with ThreadPoolExecutor(1) as pool:
        for second in seconds:
            # Two chunks; and then both on the same one, where that makes a difference.
            for other in (1, 0) if {first, second} <= ON_ONE_CHUNK else (1,):
                scene = make(service)
                operations[first](one, scene, 0)
                later = pool.submit(operations[second], two, scene, other)
                wait_or_end(later, admin, two_pid)
                one.connection.commit()
                try:
                    later.result(timeout=10)
                except psycopg.Error as error:
                    assert error.sqlstate in RIGHTLY_REFUSED, f"{first} → {second}: {error}"  # noqa: PT017
                if service.rows("select 1 from public.sync_jobs where id = %s", scene.job):
                    violations = invariants.broken(service)
                    if "watchdog" in (first, second):
                        service.cleanup()  # it only tries for a limit key
                    violations += invariants.not_level(service)
                    assert not violations, f"{first} → {second}: {violations}"
                    if isinstance(scene, LimitedScene):
                        service.pass_time(timedelta(seconds=2))  # a block is for one
                    bring_to_its_end(service, scene)
                service.execute("delete from public.sync_jobs")
                admin.execute("truncate net.http_request_queue")


def test_a_storm_of_everything_at_once(db: Database, service: Session) -> None:
    """Twelve connections do whatever they like to three jobs: no deadlock, and all invariants hold at each look."""
    configure(service)
    service.call(
        "save_sync_kind",
        kind="web",
        handler="do-it",
        max_concurrency=8,
        max_retries=50,
        retry_delay_seconds=0,
    )
    _storm(db, service, seconds=2.0)


def test_a_storm_on_one_limit_key(db: Database, service: Session) -> None:
    """The same of jobs that share one."""
    configure(service)
    service.call("save_sync_limit", key=LimitedScene.limit_key, max_concurrency=5)
    _storm(db, service, seconds=2.0, limit_key=LimitedScene.limit_key)


@pytest.mark.soak
def test_a_long_storm(db: Database, service: Session) -> None:
    configure(service)
    _storm(db, service, seconds=150.0)
    service.call("save_sync_limit", key=LimitedScene.limit_key, max_concurrency=5)
    _storm(db, service, seconds=150.0, limit_key=LimitedScene.limit_key)


def _storm(db: Database, service: Session, *, seconds: float, limit_key: str | None = None) -> None:
    jobs: list[str] = [
        service.start("web", chunks=[{}] * 30, max_concurrency=8, job_key=key, limit_key=limit_key)["id"]
        for key in "abc"
    ]
    operations = OPERATIONS | (
        {name: ON_LIMITS[name] for name in ("throttle in bulk", "save the limit", "pace")}
        if limit_key
        else {}
    )
    end = time.monotonic() + seconds

    def work(session: Session, number: int) -> int:
        dice = random.Random(number)
        scene = Scene.__new__(Scene)
        scene.key = dice.choice("abc")
        scene.limit_key = limit_key
        acts = 0
        while time.monotonic() < end:
            if number == 0:
                violations = invariants.broken(session)
                assert not violations, violations
                continue
            job = dice.choice(jobs)
            mine = session.rows(
                "select q.id as chunk_id, q.claim_token from public.chunk_processing_queue q"
                " where q.parent_sync_job_id = %s and q.status = 'processing' order by random() limit 4",
                job,
            )
            scene.job = job
            scene.held = mine + [{"chunk_id": 0, "claim_token": None}] * (4 - len(mine))
            name = dice.choice([n for n in operations if n not in ("purge", "cancel") or dice.random() < 0.1])
            try:
                operations[name](session, scene, 0)
            except psycopg.Error as error:
                if error.sqlstate not in (*RIGHTLY_REFUSED, "SC003"):
                    raise AssertionError(f"{name}: {error}") from error
            acts += 1
            if (
                session.rows("select 1 from public.sync_jobs where id = %s and completed_at is null", job)
                == []
            ):
                jobs[dice.randrange(3)] = session.start(
                    "web", chunks=[{}] * 30, max_concurrency=8, limit_key=limit_key
                )["id"]
        return acts

    acts = together(db, 12, work)
    assert sum(acts) > (100 if limit_key is None else 30)
    invariants.check(service)
    service.cleanup()
    assert invariants.not_level(service) == []
