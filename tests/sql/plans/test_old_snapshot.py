"""While somebody's transaction holds an old snapshot, no call reads more and more of what is outdated.

Counted in pages that a call touches, since time says little on a busy machine. `make bench ARGS=pinned` takes the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.sql.database import Database, Row, Session

WARM_UP, CYCLES = 600, 1_200  # a generation is 512 changes at most
CLAIM = "select chunk_id, claim_token from public.claim_next_chunk_job_safe('w', kinds => '{{plain}}', parent_sync_job_id => {})"
CALLS = (
    "claim",
    "claim by job",
    "report",
    "claim_next",
    "failure",
    "progress",
    "claim of 20",
    "report of 20",
    "append",
)


@pytest.fixture
def pinned(db: Database) -> Iterator[Session]:
    """A session at work, while another holds a snapshot of before."""
    old = db.connect(autocommit=False)
    session = db.connect(settings="-c synchronous_commit=off")
    session.start(total_items=20_000, chunk_size=1, max_concurrency=40)
    old.execute("set transaction isolation level repeatable read")
    old.rows("select count(*) from public.sync_jobs")
    yield session
    old.connection.rollback()


class Reads:
    """How many pages each call touches, the median of some."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._job = session.value("select id from public.sync_jobs")

    def _pages(self, call: str, *arguments: object) -> int:
        explained = self._session.value(
            f"explain (analyze, buffers, timing off, format json) {call}", *arguments
        )
        plan = explained[0]["Plan"]
        return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])

    def _processing(self, many: int = 1) -> list[Row]:
        return self._session.rows(
            "select chunk_id, claim_token from jsonb_to_recordset(public.claim_chunk_jobs_safe('w', %s, kinds => '{plain}'))"
            " as c (chunk_id bigint, claim_token uuid)",
            many,
        )

    def of_all(self) -> dict[str, int]:
        """Do each call a few times."""
        found: dict[str, list[int]] = {call: [] for call in CALLS}
        for _ in range(7):
            for call, pages in self._once().items():
                found[call].append(pages)
        return {call: sorted(pages)[3] for call, pages in found.items()}

    def _once(self) -> dict[str, int]:
        def tokens(chunks: list[Row]) -> tuple[Any, ...]:
            return (chunks[0]["chunk_id"], chunks[0]["claim_token"])

        report = "select public.complete_chunk_job_safe(%s, %s)"
        pages = {
            "claim": self._pages(CLAIM.format("null")),
            "claim by job": self._pages(CLAIM.format("%s"), self._job),
            "report": self._pages(report, *tokens(self._processing())),
            "claim_next": self._pages(
                "select public.complete_chunk_job_safe(%s, %s, claim_next => true)",
                *tokens(self._processing()),
            ),
            "failure": self._pages(
                "select public.complete_chunk_job_safe(%s, %s, success => false, retryable => false)",
                *tokens(self._processing()),
            ),
            "progress": self._pages("select public.get_sync_job_progress_safe(%s)", self._job),
            "claim of 20": self._pages("select public.claim_chunk_jobs_safe('w', 20, kinds => '{plain}')"),
            "report of 20": self._pages(
                "select public.complete_chunk_jobs_safe(%s)", Jsonb(_reports(self._processing(20)))
            ),
        }
        # What EXPLAIN has claimed is processing all the same: back to where it was.
        for chunk in self._session.rows(
            "select id as chunk_id, claim_token from public.chunk_processing_queue where status = 'processing'"
        ):
            self._session.complete(chunk)
        self._session.execute("update public.sync_jobs set sealed = false where sealed")
        pages["append"] = self._pages(
            "select public.append_sync_chunks(%s, %s)", self._job, Jsonb([{"n": n} for n in range(16)])
        )
        return pages


def _reports(chunks: list[Row]) -> list[dict[str, Any]]:
    return [{"chunk_id": c["chunk_id"], "claim_token": str(c["claim_token"])} for c in chunks]


def test_no_call_reads_more_with_time(pinned: Session) -> None:
    reads = Reads(pinned)
    for _ in range(WARM_UP):
        pinned.complete(pinned.claimed())
    at_first = reads.of_all()
    for _ in range(CYCLES):
        pinned.complete(pinned.claimed())
    later = reads.of_all()
    grown = {call: (at_first[call], later[call]) for call in CALLS if later[call] > 1.5 * at_first[call] + 30}
    assert not grown, grown
