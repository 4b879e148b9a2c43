"""Progress is the truth at every commit."""

from __future__ import annotations

import random
import time
from datetime import timedelta

from tests.sql import invariants
from tests.sql.database import Database, Session, reports
from tests.sql.threads import together

# Both figures in one statement, hence of one moment.
DIFFERENCES = """
select p.parent_sync_job_id, p.total_chunks, q.* from public.chunk_processing_status p
cross join lateral (
  select count(*) as total, count(*) filter (where c.status = 'pending') as pending,
    count(*) filter (where c.status = 'processing') as processing, count(*) filter (where c.status = 'completed') as completed,
    count(*) filter (where c.status = 'failed') as failed, count(*) filter (where c.status = 'cancelled') as cancelled,
    count(*) filter (where c.status in ('pending', 'processing') and exists (
      select from chunk_private.chunk_attempts a where a.chunk_id = c.id and a.outcome in ('retrying', 'lost'))) as retrying,
    coalesce(sum(c.items_processed) filter (where c.status in ('completed', 'processing')), 0) as items
  from public.chunk_processing_queue c where c.parent_sync_job_id = p.parent_sync_job_id
) q
where (p.total_chunks, p.pending_chunks, p.processing_chunks, p.completed_chunks, p.failed_chunks, p.cancelled_chunks,
       p.retrying_chunks, p.items_processed)
  is distinct from (q.total, q.pending, q.processing, q.completed, q.failed, q.cancelled, q.retrying, q.items)
"""


def test_progress_equals_a_count_while_sixteen_connections_work(db: Database, service: Session) -> None:
    service.call("save_sync_kind", kind="busy", max_concurrency=30, max_retries=4, retry_delay_seconds=0)
    jobs = [service.start("busy", chunks=[{}] * 60, max_concurrency=cap)["id"] for cap in (1, 7, 30)]
    deadline = time.monotonic() + 30

    def active(session: Session) -> bool:
        return bool(
            session.value(
                "select exists (select from public.sync_jobs where status in ('pending', 'running'))"
            )
        )

    def observe(session: Session) -> int:
        looks = 0
        while active(session) and time.monotonic() < deadline:
            assert session.rows(DIFFERENCES) == []
            assert invariants.broken(session) == []
            looks += 1
        return looks

    def work(session: Session, number: int) -> int:
        if number < 2:
            return observe(session)
        dice = random.Random(number)
        while active(session) and time.monotonic() < deadline:
            chunk = session.claim(kinds=["busy"])
            if chunk is None:
                session.cleanup(stuck_after=timedelta(0))
                continue
            act = dice.random()
            if act < 0.6:
                session.complete(chunk, items_processed=dice.randrange(5))
            elif act < 0.75:
                session.fail(chunk, retryable=act < 0.7)
            elif act < 0.8:
                session.complete(chunk, next_chunks=[{}])
            elif act < 0.9:
                session.extend(chunk, items_processed=3)
                session.complete(chunk)
        return 0

    looks = together(db, 16, work)
    assert sum(looks) > 10
    assert service.rows(DIFFERENCES) == []
    invariants.check(service)
    for job in jobs:
        assert service.progress(job)["status"] in ("completed", "failed")


def test_items_count_once(service: Session) -> None:
    job = service.start(total_items=30, chunk_size=10)["id"]
    first, second = service.claimed(job), service.claimed(job)
    service.extend(first, items_processed=4)
    assert service.progress(job)["items_processed"] == 4
    service.extend(first, items_processed=6)
    assert service.progress(job)["items_processed"] == 6
    service.complete(first, items_processed=10)
    assert service.progress(job)["items_processed"] == 10
    service.extend(second, items_processed=7)
    service.complete(second)  # says nothing: the heartbeat's figure stands
    progress = service.progress(job)
    assert (progress["items_processed"], progress["items_total"]) == (17, 30)


def test_percent_is_a_hundred_only_when_nothing_is_open(service: Session) -> None:
    job = service.start(chunks=[{}] * 2000, max_concurrency=1000)["id"]
    for _ in range(2):
        batch = service.call("claim_chunk_jobs_safe", worker_id="w", batch_size=100, kinds=["plain"])
        service.call("complete_chunk_jobs_safe", completions=reports(batch))
    assert service.progress(job)["percent_complete"] == 10
    service.execute("update public.sync_jobs set total_chunks = 200000")  # as if there were so many
    assert service.progress(job)["percent_complete"] == 0.1


def test_eta_follows_the_pace(service: Session) -> None:
    job = service.start(chunks=[{}] * 4)["id"]
    assert service.progress(job)["eta_seconds"] is None
    chunk = service.claimed(job)
    service.pass_time(timedelta(seconds=100))
    service.complete(chunk)
    assert 299 <= service.progress(job)["eta_seconds"] <= 310
    service.drain(job)
    assert service.progress(job)["eta_seconds"] is None


def test_the_view_and_the_function_agree(service: Session) -> None:
    job = service.start(chunks=[{}] * 4, payload={"a": 1}, job_key="k")["id"]
    service.fail(service.claimed(job))
    (row,) = service.rows("select to_jsonb(s) as progress from public.chunk_processing_status s")
    progress = service.progress(job)
    assert progress == row["progress"] | {"eta_seconds": progress["eta_seconds"]}
    assert progress["id"] == progress["parent_sync_job_id"] == str(job)


def test_a_lost_dispatch_shows_as_stalled_with_a_reason(service: Session) -> None:
    job = service.start("web", chunks=[{}])["id"]
    progress = service.progress(job)
    assert progress["stalled"] is True
    assert "configure" in progress["stalled_reason"]
    service.claimed(job, kinds=None)
    assert service.progress(job)["stalled"] is False


def test_a_job_without_workers_shows_as_stalled_after_a_minute(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    assert service.progress(job)["stalled"] is False
    service.pass_time(timedelta(seconds=90))
    assert service.progress(job)["stalled"] is True
    service.claimed(job)
    assert service.progress(job)["stalled"] is False
