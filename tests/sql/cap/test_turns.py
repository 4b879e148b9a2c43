"""Jobs take turns."""

from __future__ import annotations

import time

import pytest

from tests.sql import invariants
from tests.sql.database import Database, Session
from tests.sql.threads import together

JOBS, WORKERS = 30, 8
WHAT_THERE_WAS = """
    select format('at %s, %s of %s slots not claimed, ready from %s to %s', clock_timestamp(),
      count(*) filter (where not claimed), count(*), min(ready_at) filter (where not claimed), max(ready_at))
    from chunk_private.slots"""


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.soak)])
def test_thirty_jobs_share_eight_workers_and_hardly_a_claim_is_empty(
    db: Database, service: Session, count: int
) -> None:
    """While more than a worker's worth of chunks is claimable, a claim finds one; and no job waits for another's end."""
    jobs = [service.start(chunks=[{}] * count, max_concurrency=4)["id"] for _ in range(JOBS)]
    order: list[str] = []
    empty: list[str] = []

    def work(session: Session, number: int) -> int:
        claims = 0
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and len(order) < JOBS * count - JOBS * 4:
            chunk = session.claim(worker_id=f"w{number}")
            claims += 1
            if chunk is None:
                empty.append(session.value(WHAT_THERE_WAS))
                continue
            order.append(str(chunk["parent_sync_job_id"]))
            session.complete(chunk)
        return claims

    claims = sum(together(db, WORKERS, work))
    assert len(empty) < 0.01 * claims, f"{len(empty)} of {claims} claims were empty: " + "; ".join(empty)
    # After a half of the work each job has had about a half of its own.
    half = order[: len(order) // 2]
    shares = [half.count(job) for job in jobs]
    assert min(shares) > 0.5 * len(half) / JOBS, shares
    assert max(shares) < 2 * len(half) / JOBS, shares
    invariants.check(service)


# Which chunks of a job are not fresh any more.
TOUCHED = """
select q.chunk_index from public.chunk_processing_queue q where q.parent_sync_job_id = %s and q.status <> 'pending'
union select s.chunk_index from chunk_private.slots s where s.job_id = %s
"""


def test_a_small_job_is_not_starved_by_a_big_one(service: Session) -> None:
    service.start(chunks=[{}] * 500, max_concurrency=8)
    small = service.start(chunks=[{}] * 3, max_concurrency=1)["id"]
    for _claims in range(60):
        service.complete(service.claimed())
        if service.progress(small)["status"] == "completed":
            break
    assert service.progress(small)["status"] == "completed"


def test_a_batch_claim_takes_from_every_job(service: Session) -> None:
    for _ in range(5):
        service.start(chunks=[{}] * 10, max_concurrency=4)
    batch = service.call("claim_chunk_jobs_safe", worker_id="w", batch_size=20, kinds=["plain"])
    assert len({chunk["parent_sync_job_id"] for chunk in batch}) == 5


def test_kinds_without_a_handler_are_claimed_by_name_only(service: Session) -> None:
    service.start("plain", chunks=[{}])
    web = service.start("web", chunks=[{}])
    assert str(service.claimed(kinds=None)["parent_sync_job_id"]) == web["id"]
    assert service.claim(kinds=None) is None
    assert service.claim(kinds=["web", "custom"]) is None
    assert service.claim(kinds=["custom", "plain"]) is not None


def test_reports_after_a_batch_go_on_with_the_lowest_fresh_chunks(service: Session) -> None:
    """A batch takes its chunks from one stripe, which is then far ahead of the others."""
    job = service.start(total_items=4_000, chunk_size=1, max_concurrency=50)["id"]
    for _ in range(3):
        batch = service.call("claim_chunk_jobs_safe", worker_id="w", batch_size=50, kinds=["plain"])
        service.call(
            "complete_chunk_jobs_safe",
            completions=[{"chunk_id": c["chunk_id"], "claim_token": c["claim_token"]} for c in batch],
        )
    fresh = sorted(set(range(4_000)) - {row["chunk_index"] for row in service.rows(TOUCHED, job, job)})
    for _ in range(20):
        service.complete(service.claimed())
    handed_out = {row["chunk_index"] for row in service.rows(TOUCHED, job, job)} & set(fresh)
    assert max(handed_out) < fresh[0] + 32, "all stripes have their turn"
