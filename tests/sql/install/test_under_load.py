"""The migrations run over themselves while sessions are at work: they lock out nobody, or end cleanly to be run again."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.sql import invariants
from tests.sql.database import Database, Row, Session, refused
from tests.sql.install.schema import run, schema
from tests.sql.server import MIGRATIONS, Cluster

TEXTS = [path.read_text(encoding="utf-8") for path in sorted(MIGRATIONS.glob("*.sql"))]
SESSIONS = 8
# What no session that claims, reports or reads has to wait for.
HARMLESS = ("AccessShareLock", "RowShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock")


@pytest.fixture(params=["cluster", "cluster_15"])
def migrated(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database with the queue, on each version."""
    cluster: Cluster = request.getfixturevalue(request.param)
    with cluster.database() as made:
        yield made


def relations(admin: Session) -> set[int]:
    """All there are in our schemas."""
    found = admin.rows(
        "select c.oid from pg_class c where c.relnamespace in ('public'::regnamespace, 'chunk_private'::regnamespace)"
    )
    return {row["oid"] for row in found}


def test_where_nothing_is_different_nobody_is_locked_out(migrated: Database) -> None:
    before = relations(migrated.connect("supabase_admin"))
    with psycopg.connect(migrated.dsn) as connection:
        connection.execute("set session authorization postgres")
        for text in TEXTS:
            connection.execute(text.encode())
        locked = connection.execute(
            "select l.relation, l.relation::regclass::text, l.mode from pg_locks l where l.pid = pg_backend_pid() and l.granted"
        ).fetchall()
    assert [lock[1:] for lock in locked if lock[0] in before and lock[2] not in HARMLESS] == []


def test_what_was_changed_by_hand_is_put_right(migrated: Database) -> None:
    admin = migrated.connect("supabase_admin")
    made = schema(admin)
    for change in (
        'alter policy "Users see their own jobs" on public.sync_jobs using (true)',
        'alter policy "Users see the slots of their own jobs" on chunk_private.slots to public',
        'drop policy "No user sees these" on chunk_private.lanes',
        "alter table chunk_private.settings disable row level security",
        "alter view public.chunk_processing_status set (security_invoker = false)",
        "create or replace view chunk_private.claim_lanes with (security_invoker = true) as"
        " select l.id, l.kind, l.priority, k.handler, k.lease_seconds, now() as floor"
        " from chunk_private.lanes l join public.sync_kinds k on k.kind = l.kind",
    ):
        admin.execute(change)
    assert schema(admin) != made
    run(migrated, TEXTS)
    assert schema(admin) == made


def test_a_lock_that_does_not_come_ends_it_cleanly_and_it_can_be_repeated(migrated: Database) -> None:
    admin = migrated.connect("supabase_admin")
    made = schema(admin)
    admin.execute("alter table public.sync_jobs disable row level security")
    reading = migrated.connect(autocommit=False)
    reading.rows("select from public.sync_jobs")
    with refused("55P03"):
        run(migrated, [text.replace("lock_timeout = '5s'", "lock_timeout = '50ms'") for text in TEXTS])
    reading.connection.rollback()
    run(migrated, TEXTS)
    assert schema(admin) == made


def work(session: Session, stop: threading.Event, number: int) -> Counter[str]:
    """Claim, report and read until told to stop; count the errors that are not the database's way to say "again"."""
    errors: Counter[str] = Counter()
    while not stop.is_set():
        try:
            job = session.start("web", chunks=[{}] * 3, max_concurrency=3)["id"]
            if number % 2:
                batch: list[Row] = session.call("claim_chunk_jobs_safe", worker_id="w", batch_size=3)
                completions = [{"chunk_id": c["chunk_id"], "claim_token": c["claim_token"]} for c in batch]
                session.call("complete_chunk_jobs_safe", completions=completions)
            else:
                session.drain(job, kinds=None)
            session.call("append_sync_chunks", parent_sync_job_id=job, chunks=[{}]) if number == 2 else None
            session.progress(job)
            session.cleanup()
        except psycopg.Error as error:
            errors[error.sqlstate or str(error)] += 1
    return errors


@pytest.mark.parametrize("times", [3, pytest.param(30, marks=pytest.mark.soak)])
def test_sessions_at_work_meet_no_deadlock(migrated: Database, times: int) -> None:
    sessions = [migrated.connect() for _ in range(SESSIONS)]
    stop = threading.Event()
    with ThreadPoolExecutor(SESSIONS) as pool:
        working = [pool.submit(work, session, stop, number) for number, session in enumerate(sessions)]
        try:
            outcomes: Counter[str] = Counter()
            for _ in range(times):
                try:
                    run(migrated, TEXTS)
                    outcomes["done"] += 1
                except psycopg.Error as error:
                    outcomes[error.sqlstate or str(error)] += 1
        finally:
            stop.set()
        errors = sum((future.result() for future in working), Counter[str]())
    assert outcomes == {"done": times}
    assert set(errors) <= {"SC005"}, errors  # appending to a job that has ended
    invariants.check(migrated.connect())
