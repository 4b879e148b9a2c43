"""The invariants of the queue, as one query that finds what breaks them."""

from __future__ import annotations

from tests.sql.database import Session

_VIOLATIONS = """
with chunks as (
  select q.parent_sync_job_id as job_id,
    count(*) as total,
    count(*) filter (where q.status in ('pending', 'processing')) as open,
    count(*) filter (where q.status = 'pending') as pending,
    count(*) filter (where q.status = 'processing') as processing,
    count(*) filter (where q.status = 'completed') as completed,
    count(*) filter (where q.status = 'failed') as failed,
    count(*) filter (where q.status = 'cancelled') as cancelled,
    sum(case when q.status = 'completed' or q.status = 'cancelled' and q.claim_token is not null then coalesce(q.items_processed, 0)
      else coalesce(q.items_counted, 0) end) as items,
    max(q.chunk_index) as last_index,
    count(*) filter (where q.status in ('pending', 'processing') and q.has_failed) as retrying,
    bool_and(q.attempts <= 1 + q.max_retries) as attempts_bounded,
    bool_and(q.status <> 'processing' or (q.claim_token is not null and q.locked_until < now() + interval '25 hours')) as leased,
    bool_and(q.kind = j.kind and q.owner_id is not distinct from j.owner_id) as copied,
    -- Where each chunk stands: in a slot, returned, or in the stripes of the fresh ones.
    count(*) filter (where coalesce(s.claimed, false) <> (q.status = 'processing')) as wrongly_claimed,
    count(*) filter (where (s.job_id is not null)::int + r.times + (f.stripe is not null)::int
      <> (q.status in ('pending', 'processing'))::int) as misplaced
  from public.chunk_processing_queue q
  join public.sync_jobs j on j.id = q.parent_sync_job_id
  left join chunk_private.slots s on s.job_id = j.id and s.chunk_index = q.chunk_index
  left join chunk_private.fresh_stripes f on f.job_id = j.id and f.stripe = q.chunk_index % j.stripes
    and q.chunk_index >= f.next_index and q.chunk_index < f.end_index
  cross join lateral (
    select count(*)::int as times from chunk_private.returned_chunks r where r.job_id = j.id and r.chunk_index = q.chunk_index
  ) r
  group by q.parent_sync_job_id
),
slots as (
  select s.job_id, count(*) as taken, count(*) filter (where not s.claimed) as waiting,
    bool_and((l.kind, l.priority) is not distinct from (j.kind, j.priority)) as copied,
    count(*) filter (where not s.claimed and s.ready_at > now() + interval '8 days') as never_due,
    min(s.chunk_index) as lowest,
    bool_and(s.limit_key is not distinct from j.limit_key and not (s.parked and (s.claimed or s.limit_key is null))) as limited
  from chunk_private.slots s join public.sync_jobs j on j.id = s.job_id left join chunk_private.lanes l on l.id = s.lane
  group by s.job_id
),
counters as (
  select c.job_id, sum(c.open_chunks) as open, sum(c.completed_chunks) as completed, sum(c.failed_chunks) as failed,
    sum(c.cancelled_chunks) as cancelled, sum(c.retrying_chunks) as retrying, sum(c.items_processed) as items,
    count(*) - count(distinct c.stripe) as doubled, max(c.slots_from) as slots_from
  from chunk_private.job_counters c group by c.job_id
),
jobs as (
  select j.*, coalesce(q.total, 0) as n, coalesce(q.open, 0) as open, coalesce(q.pending, 0) as pending,
    coalesce(q.processing, 0) as processing, coalesce(q.completed, 0) as completed, coalesce(q.failed, 0) as failed,
    coalesce(q.cancelled, 0) as cancelled, coalesce(q.items, 0) as items,
    coalesce(q.retrying, 0) as retrying, coalesce(s.waiting, 0) as waiting, coalesce(s.taken, 0) as slots, coalesce(s.never_due, 0) as never_due, s.lowest, coalesce(q.last_index, -1) as last_index,
    q.attempts_bounded, q.leased, q.copied and coalesce(s.copied, true) as copied,
    coalesce(s.limited, true) as limited, coalesce(q.misplaced, 0) as misplaced,
    coalesce(q.wrongly_claimed, 0) as wrongly_claimed, c as counted
  from public.sync_jobs j
  left join chunks q on q.job_id = j.id
  left join slots s on s.job_id = j.id
  left join counters c on c.job_id = j.id
)
select j.id, j.status, v.violation
from jobs j
cross join lateral (values
  (j.status in ('completed', 'failed', 'cancelled') and j.open > 0, 'an ended job has open chunks'),
  (j.n <> j.total_chunks or j.last_index <> j.total_chunks - 1, 'total_chunks is not the number of chunks'),
  (j.completed + j.failed + j.cancelled + j.pending + j.processing <> j.n, 'the states do not add up'),
  (not j.attempts_bounded, 'more attempts than 1 + max_retries'),
  (not j.leased, 'a processing chunk without token, or without a lease that ends'),
  (j.never_due > 0, 'a slot that is never due'),
  (not j.copied, 'kind, owner or priority differ from the job''s'),
  (not j.limited, 'a slot with another limit key than its job, or parked without one, or parked and claimed'),
  (j.waiting + j.processing > j.max_concurrency, 'more than max_concurrency chunks with a slot'),
  (j.slots <> j.waiting + j.processing, 'a slot without a chunk'),
  (j.lowest < (j.counted).slots_from, 'a slot below slots_from, which nobody looks for'),
  ((j.counted).doubled > 0, 'two counters of a stripe'),
  (j.wrongly_claimed > 0, 'a claimed slot whose chunk is not processing, or the reverse'),
  (j.misplaced > 0, 'an open chunk that is nowhere, or twice, or an ended one that is somewhere'),
  ((j.counted).open <> j.open or (j.counted).completed <> j.completed or (j.counted).failed <> j.failed
    or (j.counted).cancelled <> j.cancelled, 'the counters differ from the rows'),
  ((j.counted).retrying <> j.retrying, 'the retrying chunks are not those that have failed'),
  ((j.counted).items <> j.items, 'the counted items differ from the rows'),
  (j.counted is null and j.n > 0, 'a job without counters'),
  (j.status in ('pending', 'running') and j.waiting + j.processing = 0 and (j.sealed or j.open > 0),
    'an active job with no slot in use'),
  (j.status = 'paused' and j.waiting > 0, 'a paused job has slots that wait'),
  (j.status = 'paused' and j.sealed and j.open = 0, 'a paused job that is done'),
  (j.status = 'completed' and j.completed <> j.n, 'completed, but not every chunk is'),
  (j.status = 'failed' and j.failed = 0, 'failed without a failed chunk'),
  ((j.status in ('completed', 'failed', 'cancelled')) <> (j.completed_at is not null), 'ended without time, or time without end')
) v (broken, violation)
where v.broken
"""
_ABOVE_THEIR_LIMIT = """
select n.limit_key, n.processing, r.most
from (
  select j.limit_key, count(*) as processing
  from public.sync_jobs j join public.chunk_processing_queue q on q.parent_sync_job_id = j.id and q.status = 'processing'
  where j.limit_key is not null group by j.limit_key
) n
cross join lateral chunk_private.limit_of(n.limit_key) r
where n.processing > r.most and not exists (select from public.sync_limits l where l.key = n.limit_key and l.updated_at > l.created_at)
"""
_NOT_LEVEL = """
select k.limit_key, w.lane, w.how_many from (
  select distinct s.limit_key from chunk_private.slots s where s.limit_key is not null
) k
cross join lateral chunk_private.slots_to_wake(k.limit_key) w
"""


def broken(session: Session) -> list[str]:
    """What is wrong now, as text; nothing when all is well."""
    violations = [f"{row['violation']} ({row['status']})" for row in session.rows(_VIOLATIONS)]
    return violations + [
        f"{row['processing']} chunks of {row['limit_key']} at once, of {row['most']} allowed"
        for row in session.rows(_ABOVE_THEIR_LIMIT)
    ]


def not_level(session: Session) -> list[str]:
    """Of which limit keys too few slots are awake: what settle_limit leaves at every commit, and the watchdog in the end."""
    return [
        f"{row['how_many']} slots of {row['limit_key']} sleep though there is room"
        for row in session.rows(_NOT_LEVEL)
    ]


def check(session: Session) -> None:
    """Fail when an invariant is broken."""
    violations = broken(session)
    assert not violations, violations
