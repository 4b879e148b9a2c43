-- Progress: one definition of every figure, the view; the function gives one row of it as JSON.
--
-- One statement, so that all figures are of one moment. Nothing here grows with the number of chunks: up to 16 counters,
-- and the slots in use with the chunks in them (bounded by max_concurrency).

create view chunk_private.wanted_view
with (security_invoker = true)
as
select
  j.id,
  j.id as parent_sync_job_id,
  j.kind,
  j.status,
  j.total_chunks,
  n.open_chunks - p.processing_chunks as pending_chunks,
  p.processing_chunks,
  n.completed_chunks,
  n.failed_chunks,
  n.cancelled_chunks,
  n.retrying_chunks,
  j.items_total,
  n.items_processed + p.items_processed as items_processed,
  case
    when j.total_chunks > 0 then trunc(100.0 * (n.completed_chunks + n.failed_chunks) / j.total_chunks, 1)
    when j.status = 'completed' then 100.0
    else 0.0
  end as percent_complete,
  case
    when j.status = 'running' and n.completed_chunks + n.failed_chunks > 0 then
      ceil(extract(epoch from now() - j.started_at) * n.open_chunks / (n.completed_chunks + n.failed_chunks))::bigint
  end as eta_seconds,
  w.stalled_reason is not null as stalled,
  w.stalled_reason,
  case
    when j.limit_key is not null and j.status in ('pending', 'running') and p.processing_chunks = 0 and n.open_chunks > 0
    then chunk_private.waiting_for(j.id)
  end as waiting_for,
  j.created_at,
  j.started_at,
  j.completed_at,
  greatest(n.last_activity_at, p.last_activity_at, j.completed_at) as last_activity_at,
  n.last_error,
  j.job_key,
  j.payload,
  j.owner_id,
  j.priority,
  j.sealed
from public.sync_jobs j
cross join lateral (
  select
    coalesce(sum(c.open_chunks), 0)::bigint as open_chunks,
    coalesce(sum(c.completed_chunks), 0)::bigint as completed_chunks,
    coalesce(sum(c.failed_chunks), 0)::bigint as failed_chunks,
    coalesce(sum(c.cancelled_chunks), 0)::bigint as cancelled_chunks,
    coalesce(sum(c.retrying_chunks), 0)::bigint as retrying_chunks,
    coalesce(sum(c.items_processed), 0)::bigint as items_processed,
    max(c.last_activity_at) as last_activity_at,
    (array_agg(c.last_error order by c.failed_chunks > 0 desc, c.last_error_at desc nulls last))[1] as last_error,
    coalesce(max(c.slots_from), 0) as slots_from
  from chunk_private.newest_counters c
  where c.job_id = j.id
) n
cross join lateral (
  select
    count(q.id) as processing_chunks,
    coalesce(sum(q.items_processed - coalesce(q.items_counted, 0)), 0)::bigint as items_processed,
    max(q.updated_at) as last_activity_at,
    count(*) filter (where q.locked_until < now() - interval '1 minute') as overdue_chunks,
    min(s.ready_at) filter (where not s.claimed and not s.parked and s.ready_at <= now()) as waiting_since
  from chunk_private.slots s
  left join lateral ( -- of a slot that waits none: null is found at once
    select q.id, q.items_processed, q.items_counted, q.updated_at, q.locked_until from public.chunk_processing_queue q
    where q.parent_sync_job_id = case when s.claimed then s.job_id end and q.chunk_index = s.chunk_index
    limit 1
  ) q on true
  where s.job_id = j.id and s.chunk_index >= n.slots_from
) p
left join lateral (
  select case
    when n.open_chunks = 0 and not j.sealed and coalesce(n.last_activity_at, j.created_at) < now() - interval '1 minute' then
      'waiting for more chunks: append them, or seal the job'
    when p.processing_chunks > 0 and p.overdue_chunks = p.processing_chunks then
      'lost workers: every lease has run out; is the watchdog running?'
    when p.processing_chunks = 0 and k.handler is not null and p.waiting_since is not null and d.error is not null then
      'webhook failed: ' || d.error
    when p.processing_chunks = 0 and p.waiting_since < now() - interval '1 minute' and k.handler is null then
      format('no worker has claimed a chunk of kind %s for %s s', j.kind, ceil(extract(epoch from now() - p.waiting_since)))
    when p.processing_chunks = 0 and p.waiting_since < now() - interval '1 minute' then
      format('no webhook has led to a claim for %s s', ceil(extract(epoch from now() - p.waiting_since)))
  end as stalled_reason
  from public.sync_kinds k
  left join lateral (
    select d.error from chunk_private.dispatches d
    where d.job_id = j.id and (d.error is not null or d.answered_at is not null)
    order by d.id desc limit 1
  ) d on true
  where k.kind = j.kind
) w on j.status in ('pending', 'running');

select chunk_private.replace_view('public.chunk_processing_status');

comment on view public.chunk_processing_status is 'One row a job: counts, progress, and whether it stands still, exact at every commit.';
comment on column public.chunk_processing_status.parent_sync_job_id is 'The same as id, named as in chunk_processing_queue.';
comment on column public.chunk_processing_status.pending_chunks is 'Waiting: for a claim, for the end of a backoff, or for a slot.';
comment on column public.chunk_processing_status.retrying_chunks is 'Of the pending and processing ones, those that have failed at least once.';
comment on column public.chunk_processing_status.items_processed is 'Items of completed chunks, and of running ones as their last heartbeat said.';
comment on column public.chunk_processing_status.percent_complete is 'Completed and failed chunks of all known so far, rounded down: 100 only when nothing is open.';
comment on column public.chunk_processing_status.eta_seconds is 'Seconds to the end at the pace so far; null before the first chunk has ended.';
comment on column public.chunk_processing_status.stalled is 'Whether a running job stands still; why: stalled_reason.';
comment on column public.chunk_processing_status.waiting_for is
  'The limit key that it waits for, as {key, until}: until its block ends, or with null for room. It is not stalled then. The service also sees the reason and counts.';
comment on column public.chunk_processing_status.last_error is 'The last error of a chunk that failed for good; while there is none, of an attempt.';
comment on column public.chunk_processing_status.last_activity_at is 'The last claim, heartbeat, report or append.';

create or replace function public.get_sync_job_progress_safe(parent_sync_job_id uuid)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- which would read what an old snapshot keeps of the slots
set jit = off
as $$
#variable_conflict use_variable
declare
  progress jsonb;
begin
  select to_jsonb(s) into progress from public.chunk_processing_status s where s.id = get_sync_job_progress_safe.parent_sync_job_id;
  if progress is null then
    raise exception using errcode = 'SC001', message = format('there is no sync job %s', coalesce(parent_sync_job_id::text, '(null)')),
      hint = 'Or it belongs to another user.';
  end if;
  return progress;
end
$$;
comment on function public.get_sync_job_progress_safe is 'A job''s row of chunk_processing_status as JSON. SC001 when there is none, or it is another user''s.';
