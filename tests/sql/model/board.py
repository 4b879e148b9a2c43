"""Both sides of the game: the database and the model of it, and what must always agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from tests.sql import invariants
from tests.sql.database import Row, Session
from tests.sql.model.expected import ACTIVE, Chunk, Job, Limit


class Board(RuleBasedStateMachine):
    """A few jobs in the database and in the model; the sessions are set by the test."""

    session: Session
    admin: Session
    played = 0

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, Job] = {}
        self.started = 0
        self.states: dict[str, tuple[int, dict[str, int]]] = {}
        self.limits: dict[str, Limit] = {}
        # Every claim ever made: job, chunk, row.
        self.claims: list[tuple[str, Chunk, Row]] = []

    @initialize()
    def empty(self) -> None:
        """Each example begins without jobs; what earlier ones have left in the tables is cleared away at times."""
        self.session.execute("delete from public.sync_jobs")
        self.session.execute("delete from public.sync_states")
        self.session.execute("delete from public.sync_limits")
        for key, places in (("x", 1), ("y", 2)):
            self.session.call("save_sync_limit", key=key, max_concurrency=places)
            self.limits[key] = Limit(places)
        type(self).played += 1
        if self.played % 100 == 0:
            self.admin.execute("vacuum")

    # What must always be so

    @invariant()
    def holds(self) -> None:
        """The invariants of the queue, and every row as the model has it."""
        violations = invariants.broken(self.session)
        assert not violations, violations
        asleep = invariants.not_level(self.session)
        assert not asleep, asleep
        rows = self.session.rows(
            "select p.parent_sync_job_id::text as id, p.status, p.retrying_chunks, tests.finishes(j.id) as finishes, j.sealed,"
            " (select count(*) from chunk_private.slots s where s.job_id = j.id) as slots,"
            " (select coalesce(array_agg(row(q.status, q.attempts, coalesce(q.claim_token::text, ''), q.checkpoint ->> 'at')::text"
            " order by q.chunk_index), '{}') from public.chunk_processing_queue q where q.parent_sync_job_id = j.id) as chunks"
            " from public.chunk_processing_status p join public.sync_jobs j on j.id = p.parent_sync_job_id"
        )
        assert {row["id"] for row in rows} == set(self.jobs)
        left = self.session.rows("select s.job_key, s.state from public.sync_states s")
        assert {row["job_key"]: row["state"] for row in left} == {
            key: state for key, (_, state) in self.states.items()
        }
        for row in rows:
            job = self.jobs[row["id"]]
            assert (row["status"], row["finishes"], row["sealed"]) == (job.status, job.finishes, job.sealed)
            assert row["retrying_chunks"] == job.retrying
            chunks = [
                f"({c.status},{c.attempts},{c.token or chr(34) * 2},{'' if c.checkpoint is None else c.checkpoint})"
                for c in job.chunks
            ]
            assert row["chunks"] == chunks
            # Nothing happens at the same time here, hence no slot is ever left free.
            if job.status in ACTIVE:
                open_chunks = job.count("pending", "processing")
                most = min(job.cap, open_chunks)
                # Of a job with a limit key no more than that has places, unless it had more before.
                assert (
                    min(job.slots_at_least(), open_chunks)
                    <= row["slots"]
                    <= (most if job.limit else min(job.slots_at_least(), open_chunks))
                )

    # Helpers

    def job(self, pick: int) -> tuple[str, Job]:
        """One of the jobs."""
        return list(self.jobs.items())[pick % len(self.jobs)]

    def a_claim(self, pick: int) -> tuple[Job, Chunk, Row]:
        """One of the claims, more often a late one."""
        job_id, chunk, row = self.claims[-1 - pick % len(self.claims)]
        return self.jobs[job_id], chunk, row

    def took(self, row: Row, lease: int) -> None:
        """Note a claim, and that it was lawful."""
        job_id, token = str(row["parent_sync_job_id"]), str(row["claim_token"])
        job = self.jobs[job_id]
        chunk = job.chunks[row["chunk_index"]]
        job.claim(chunk, token, lease)
        assert (row["attempt"], row["max_attempts"]) == (chunk.attempts, 1 + job.max_retries)
        self.claims.append((job_id, chunk, row))

    def known(self, job: Job, row: Row, released: str = "stale") -> str:
        """What a report answers whose token does not hold: what it answered, or would have."""
        outcome = job.outcomes[str(row["claim_token"])]
        return {"lost": "stale", "released": released}.get(outcome, outcome)

    def check_report(self, answer: Any, expected: str, job: Job) -> None:
        """Outcome and the job's state."""
        assert answer["outcome"] == expected
        assert answer["remaining"] == job.count("pending", "processing")

    def follow(self, job: Job, chunk: Chunk, answer: Any, *, asked: bool, first: bool) -> None:
        """The chunk that a report has claimed for the same worker."""
        if not first:
            return
        if answer["next"] is None:
            # With a limit key it may be another job's turn.
            assert not (asked and job.must_give() and job.limit is None)
            assert answer["job_status"] == job.status
        else:
            assert asked
            self.took(answer["next"], chunk.lease)

    def impossible(self, call: Callable[[], object]) -> None:
        """It must be refused."""
        with pytest.raises(psycopg.Error) as caught:
            call()
        assert caught.value.sqlstate == "SC005"
