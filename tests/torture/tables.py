"""Looks at the tables: often while it runs, each time in one snapshot, and at all of it in the end."""

from __future__ import annotations

import threading
from typing import Any, Self

import psycopg
from psycopg.rows import dict_row

from tests.sql import invariants
from tests.sql.database import Session
from tests.torture.connection import connect
from tests.torture.recorder import Recorder

_LOOK_SECONDS = 0.08
# Every so manieth look is at the invariants too, which cost more.
_INVARIANTS_EVERY = 6
_LOOK = """
select jsonb_build_object('jobs', coalesce(jsonb_agg(jsonb_build_object(
  'id', s.id,
  'counts', jsonb_build_array(s.total_chunks, s.pending_chunks, s.processing_chunks, s.completed_chunks, s.failed_chunks, s.cancelled_chunks),
  'rows', r.counts,
  'held', r.held
)), '[]'))
from public.chunk_processing_status s
cross join lateral (
  select jsonb_build_array(count(*), count(*) filter (where q.status = 'pending'), count(*) filter (where q.status = 'processing'),
      count(*) filter (where q.status = 'completed'), count(*) filter (where q.status = 'failed'),
      count(*) filter (where q.status = 'cancelled')) as counts,
    coalesce(jsonb_object_agg(q.id, q.claim_token) filter (where q.status = 'processing'), '{}') as held
  from public.chunk_processing_queue q where q.parent_sync_job_id = s.id
) r
where s.completed_at is null or s.completed_at > now() - interval '2 seconds'
"""
_ALL = """
select coalesce(jsonb_agg(jsonb_build_object(
  'id', j.id, 'status', j.status, 'cap', j.max_concurrency, 'sealed', j.sealed,
  'events', (select coalesce(jsonb_agg(e.event order by e.id), '[]') from torture.events e where e.job_id = j.id),
  'chunks', (
    select coalesce(jsonb_agg(jsonb_build_object('id', q.id, 'status', q.status, 'marker', q.payload ->> 'm', 'token', q.claim_token,
      'result', q.result) order by q.chunk_index), '[]')
    from public.chunk_processing_queue q where q.parent_sync_job_id = j.id
  )
)), '[]') as jobs from public.sync_jobs j
"""


def read(db_url: str) -> dict[str, Any]:
    """All that the checks need of the tables, when nothing moves any more."""
    with connect(db_url, row_factory=dict_row) as connection:
        session = Session(connection)
        return {
            "jobs": session.value(_ALL),
            "broken": invariants.broken(session) + invariants.not_level(session),
        }


class Observer:
    """Looks again and again, until the end of the block, and records what it sees."""

    def __init__(self, db_url: str, recorder: Recorder) -> None:
        """Take the superuser's connection string."""
        self._db_url = db_url
        self._recorder = recorder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop."""
        self._over.set()
        self._thread.join(10)

    def _watch(self) -> None:
        while not self._over.is_set():
            try:
                with connect(self._db_url, row_factory=dict_row) as connection:
                    self._look(Session(connection))
            except psycopg.Error:
                self._over.wait(_LOOK_SECONDS)

    def _look(self, session: Session) -> None:
        looks = 0
        while not self._over.wait(_LOOK_SECONDS):
            looks += 1
            self._record("observe", lambda: session.value(_LOOK))
            if looks % _INVARIANTS_EVERY == 0:
                self._record("check_invariants", lambda: invariants.broken(session))

    def _record(self, what: str, look: Any) -> None:
        operation = self._recorder.begin(what, {})
        try:
            self._recorder.ok(operation, look())
        except psycopg.Error as error:
            self._recorder.failed(operation, error.sqlstate, str(error))
            raise
