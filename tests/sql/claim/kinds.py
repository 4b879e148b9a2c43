"""Kinds by the thousand, with jobs that wait, made in a moment."""

from __future__ import annotations

from tests.sql.database import Session

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
