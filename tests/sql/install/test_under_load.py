"""The migrations run over themselves while sessions are at work: they lock out nobody, or end cleanly to be run again."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from supabase_chunks.local import platform
from tests.sql import invariants
from tests.sql.database import Database, Row, Session, refused
from tests.sql.install.schema import RELEASES, run, schema
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


def locked_out(database: Database, text: str, among: set[int], *, commits: bool = False) -> list[str]:
    """Of which relations a migration locks out sessions that claim, report or read."""
    with psycopg.connect(database.dsn) as connection:
        connection.execute("set session authorization postgres")
        connection.execute(text.encode())
        locked = connection.execute(
            "select distinct l.relation, l.relation::regclass::text from pg_locks l"
            " where l.pid = pg_backend_pid() and l.granted and l.relation = any (%s) and l.mode <> all (%s)",
            (list(among), list(HARMLESS)),
        ).fetchall()
        if not commits:
            connection.rollback()
    return sorted(name for _, name in locked)


def test_where_nothing_is_different_nobody_is_locked_out(migrated: Database) -> None:
    before = relations(migrated.connect("supabase_admin"))
    assert [locked_out(migrated, text, before) for text in TEXTS] == [[]] * len(TEXTS)


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


def next_release(number: int) -> list[str]:
    """Another release, in which every policy and every view is different."""
    texts = TEXTS
    for old, new in (
        ("auth.uid() as uid)')", "auth.uid() as uid) and true')"),
        ("auth.uid() as uid))')", "auth.uid() as uid) and true)')"),
        ("'No user sees these', 'false'", "'No user sees these', 'false and true'"),
        ("then trunc(100.0 *", "then trunc(100.00 *"),
        ("::float8)\n  end, '-infinity')", "::float8 + 0)\n  end, '-infinity')"),
        ("order by o.generation desc limit least(", "order by o.generation desc limit least(1000, "),
        ("order by o.generation desc limit j.stripes\n", "order by o.generation desc limit j.stripes + 0\n"),
    ) * (number % 2):
        assert any(old in text for text in texts), old
        texts = [text.replace(old, new) for text in texts]
    return texts


def one_by_one(texts: list[str]) -> list[str]:
    """What supabase/schemas/README.md asks for: a file for each relation that others are locked out of, then the rest."""
    locking = r"^select chunk_private\.set_reading_policy\((?s:.*?)\);|^create view (?s:.*?)^select chunk_private\.replace_view.*;"
    return [found.group() for text in texts for found in re.finditer(locking, text, re.MULTILINE)] + texts


def test_a_file_locks_others_out_of_one_relation_at_most(migrated: Database) -> None:
    """Two such locks in one transaction deadlock with sessions at work."""
    before = relations(migrated.connect("supabase_admin"))
    assert max(len(locked_out(migrated, text, before)) for text in next_release(1)) > 10
    files = one_by_one(next_release(1))
    assert [text for text in files if len(locked_out(migrated, text, before, commits=True)) > 1] == []
    assert [locked_out(migrated, text, before) for text in next_release(1)] == [[]] * len(TEXTS)


def test_what_is_released_keeps_to_that(cluster: Cluster) -> None:
    with cluster.database(template=None) as database:
        platform.install(database.dsn)
        admin = database.connect("supabase_admin")
        before: set[int] = set()
        for names in RELEASES.values():
            for name in names:
                text = (MIGRATIONS / f"{name}.sql").read_text(encoding="utf-8")
                locked = locked_out(database, text, before, commits=True)
                assert len(locked) <= 1, (
                    f"{name}: one relation a file (supabase/schemas/README.md), not {locked}"
                )
            before = relations(admin)


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.soak)])
def test_an_upgrade_that_changes_all_policies_and_views_meets_no_deadlock(
    migrated: Database, times: int
) -> None:
    meets_no_deadlock(migrated, [one_by_one(next_release(number)) for number in range(1, times + 1)])


@pytest.mark.parametrize("times", [3, pytest.param(30, marks=pytest.mark.soak)])
def test_sessions_at_work_meet_no_deadlock(migrated: Database, times: int) -> None:
    meets_no_deadlock(migrated, [TEXTS] * times)


def meets_no_deadlock(migrated: Database, upgrades: list[list[str]]) -> None:
    """Run them while sessions are at work."""
    sessions = [migrated.connect() for _ in range(SESSIONS)]
    stop = threading.Event()
    with ThreadPoolExecutor(SESSIONS) as pool:
        working = [pool.submit(work, session, stop, number) for number, session in enumerate(sessions)]
        outcomes: Counter[str] = Counter()
        try:
            for upgrade in upgrades:
                try:
                    for text in upgrade:
                        run(migrated, [text])
                    outcomes["done"] += 1
                except psycopg.Error as error:
                    outcomes[error.sqlstate or str(error)] += 1
        finally:
            stop.set()
        errors = sum((future.result() for future in working), Counter[str]())
    assert outcomes == {"done": len(upgrades)}
    assert set(errors) <= {"SC005"}, errors  # appending to a job that has ended
    invariants.check(migrated.connect())
