"""Claims where there are thousands of kinds: they cost what those of a few cost, and miss nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.sql.database import Database, Session
from tests.sql.server import Cluster

# As starting a job of one chunk in each of these kinds would leave it, but in one statement for all.
KINDS = """
insert into public.sync_kinds (kind, handler, max_concurrency)
select 'k' || n, case when n <= %(with_handler)s then 'h' end, 1000 from generate_series(1, %(kinds)s) n;
insert into chunk_private.lanes (kind, priority)
select 'k' || n, 0 from generate_series(1, %(kinds)s) n order by n
"""
JOBS = """
with job as (
  insert into public.sync_jobs (kind, max_concurrency, max_retries, total_chunks, priority)
  select 'k' || n, 1, 3, 1, %(priority)s from generate_series(%(first)s::int, %(last)s::int) n, generate_series(1, %(each)s)
  returning id, kind
),
lane as (
  insert into chunk_private.lanes (kind, priority) select distinct j.kind, %(priority)s from job j on conflict do nothing returning id, kind
),
chunk as (
  insert into public.chunk_processing_queue (parent_sync_job_id, kind, chunk_index) select j.id, j.kind, 0 from job j
),
counter as (
  insert into chunk_private.job_counters (job_id, stripe, open_chunks) select j.id, 0, 1 from job j
)
insert into chunk_private.slots (job_id, chunk_index, lane, ready_at)
select j.id, 0, (
    select l.id from lane l where l.kind = j.kind
    union all select l.id from chunk_private.lanes l where l.kind = j.kind and l.priority = %(priority)s
  ), now() + %(in_seconds)s * interval '1 second'
from job j
"""


def fill(session: Session, kinds: int, *, with_handler: int | None = None) -> None:
    """Make so many kinds that were used before, and nothing that waits; of the first ones, or all, with a handler."""
    values = {"kinds": kinds, "with_handler": kinds if with_handler is None else with_handler}
    for statement in ("delete from public.sync_kinds k", *KINDS.split(";")):
        session.connection.execute(statement, values if "%(" in statement else None)


def wait(
    session: Session, first: int, last: int, *, priority: int = 0, in_seconds: float = -1, each: int = 1
) -> None:
    """Let a chunk, or some, wait in each of these kinds."""
    values = {"first": first, "last": last, "priority": priority, "in_seconds": in_seconds, "each": each}
    session.connection.execute(JOBS, values)


def claim(session: Session, **arguments: Any) -> Any:
    """Claim of all kinds that have a handler."""
    return session.claim(kinds=None, **arguments)


def cpu(session: Session) -> int:
    """The nanoseconds of CPU that a session's backend has had."""
    schedule = Path(f"/proc/{session.connection.info.backend_pid}/schedstat")
    return int(schedule.read_text().split()[0])


@pytest.fixture(scope="module")
def sizes(cluster: Cluster) -> Iterator[dict[str, Database]]:
    """Five kinds, and five thousand, in which few chunks wait, or some in each, most of them for Python workers or not."""
    with ExitStack() as opened:
        made: dict[str, Database] = {}
        for name, kinds, with_handler, waiting, each in (
            ("few", 5, 5, 5, 300),
            ("many", 5000, 5000, 3, 200),
            ("full", 5000, 5000, 5000, 1),
            ("others", 5000, 100, 3, 200),
        ):
            made[name] = opened.enter_context(cluster.database(fresh=True))
            session = made[name].connect()
            fill(session, kinds, with_handler=with_handler)
            wait(session, with_handler - waiting + 1, with_handler, each=each)
            if with_handler < kinds:
                wait(session, with_handler + 1, kinds)
            made[name].connect("supabase_admin").execute("vacuum analyze")
        yield made


CLAIMS: dict[str, Callable[[Session], Any]] = {
    "one": lambda session: session.claimed(kinds=None),
    "a batch": lambda session: session.call("claim_chunk_jobs_safe", worker_id="w", batch_size=1)[0],
    "by job": lambda session: session.claimed(
        session.value(
            "select s.job_id::text from chunk_private.slots s join public.sync_jobs j on j.id = s.job_id"
            " join public.sync_kinds k on k.kind = j.kind and k.handler is not null where not s.claimed limit 1"
        ),
        kinds=None,
    ),
}


@pytest.mark.parametrize("size", ["many", "full", "others"])
@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_costs_with_5000_kinds_what_it_costs_with_five(
    sizes: dict[str, Database], size: str, name: str
) -> None:
    """In CPU of the backend: the least of some turns, which other processes do not disturb."""
    sessions = {which: sizes[which].connect() for which in ("few", size)}
    spent: dict[str, list[int]] = {which: [] for which in sessions}
    for _ in range(30):
        for which, session in sessions.items():
            before = cpu(session)
            for _ in range(5):
                CLAIMS[name](session)
            spent[which].append(cpu(session) - before)
    assert min(spent[size]) <= 2 * min(spent["few"])


def test_every_kind_is_found_the_highest_priority_first(service: Session) -> None:
    fill(service, 120)
    for priority in (-3, 0, 2):
        wait(service, 1, 120, priority=priority)
    wait(service, 50, 50, priority=3)
    taken = []
    while (chunk := claim(service)) is not None:
        taken.append(chunk)
    priority_of = {
        row["id"]: row["priority"] for row in service.rows("select j.id, j.priority from public.sync_jobs j")
    }
    order = [priority_of[chunk["parent_sync_job_id"]] for chunk in taken]
    assert len(order) == 361
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize("waiting", [2, 100])
def test_kinds_take_turns(service: Session, waiting: int) -> None:
    fill(service, 120)
    wait(service, 121 - waiting, 120, each=200 // waiting)
    taken = Counter(claim(service)["kind"] for _ in range(100))
    assert len(taken) > waiting / 4
    assert max(taken.values()) < 80


def test_what_may_not_be_claimed_hides_nothing(service: Session) -> None:
    fill(service, 300, with_handler=150)
    wait(service, 1, 149, in_seconds=60)
    wait(service, 151, 299)
    assert claim(service) is None
    wait(service, 150, 150)
    assert claim(service)["kind"] == "k150"
    named = [f"k{n}" for n in range(200, 300)]
    assert service.claimed(kinds=named)["kind"] in named
    wait(service, 300, 300)
    assert service.claimed(kinds=["k7", "k300"])["kind"] == "k300"


def test_a_start_that_is_refused_takes_no_number(db: Database, service: Session) -> None:
    anna = db.connect("authenticated", user="8d4d9c63-5f4b-4c0e-9a57-7f7f4f6f3c15")
    service.execute("update chunk_private.settings set user_max_active_jobs = 1")
    anna.start(chunks=[{}])
    admin = db.connect("supabase_admin")
    sequences = "select s.sequencename, s.last_value from pg_sequences s where s.schemaname in ('public', 'chunk_private')"
    before = admin.rows(sequences)
    for _ in range(50):
        with pytest.raises(psycopg.Error) as caught:
            anna.start(chunks=[{}], priority=-2)
        assert caught.value.sqlstate == "SC004"
    assert admin.rows(sequences) == before
    assert admin.value("select count(*) from chunk_private.lanes") == 1
