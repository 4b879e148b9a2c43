-- Cancel, pause, resume, retry.

create or replace function chunk_private.cancel_sync_job(parent_sync_job_id uuid)
returns jsonb
language plpgsql
security definer -- users may cancel their own jobs and write no table
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job constant public.sync_jobs := chunk_private.enter_own_job(parent_sync_job_id, 'cancel_sync_job');
begin
  if job.status in ('completed', 'failed') then
    perform chunk_private.refuse(job, 'cancelled');
  elsif job.status <> 'cancelled' then
    -- The slots first: this waits for claims that are under way, and leaves nothing to later ones.
    delete from chunk_private.slots s where s.job_id = job.id;
    delete from chunk_private.returned_chunks r where r.job_id = job.id;
    delete from chunk_private.fresh_stripes f where f.job_id = job.id;
    with ended as (
      update public.chunk_processing_queue q
      set status = 'cancelled', locked_until = null, completed_at = now(), updated_at = now()
      where q.parent_sync_job_id = job.id and q.status in ('pending', 'processing')
      returning q.id, q.attempts, q.worker_id, q.claim_token, q.started_at, q.chunk_index,
        coalesce(q.items_processed, 0) - coalesce(q.items_counted, 0) as items
    ),
    recorded as (
      insert into chunk_private.chunk_attempts (job_id, chunk_id, attempt, outcome, worker_id, claim_token, claimed_at)
      select job.id, e.id, e.attempts, 'cancelled', e.worker_id, e.claim_token, e.started_at from ended e where e.claim_token is not null
    )
    update chunk_private.job_counters c
    set open_chunks = 0, retrying_chunks = 0, cancelled_chunks = c.cancelled_chunks + c.open_chunks, last_activity_at = now(),
        items_processed = least(greatest(c.items_processed + coalesce((
          select sum(e.items) from ended e where e.chunk_index % job.stripes = c.stripe and e.claim_token is not null
        ), 0), 0), chunk_private.most_items())::bigint
    where c.job_id = job.id;
    update public.sync_jobs j
    set status = 'cancelled', completed_at = now()
    where j.id = job.id;
  end if;
  perform chunk_private.settle_limits(array[job.limit_key]);
  return public.get_sync_job_progress_safe(job.id);
end
$$;
comment on function chunk_private.cancel_sync_job is 'The body of cancel_sync_job.';

create or replace function chunk_private.pause_sync_job(parent_sync_job_id uuid)
returns jsonb
language plpgsql
security definer -- users may pause their own jobs and write no table
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job constant public.sync_jobs := chunk_private.enter_own_job(parent_sync_job_id, 'pause_sync_job');
begin
  if job.status in ('completed', 'failed', 'cancelled') then
    perform chunk_private.refuse(job, 'paused');
  elsif job.status <> 'paused' then
    with taken_back as (
      delete from chunk_private.slots s where s.job_id = job.id and not s.claimed returning s.ready_at, s.chunk_index
    )
    insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
    select job.id, t.ready_at, t.chunk_index from taken_back t;
    update public.sync_jobs j set status = 'paused' where j.id = job.id;
  end if;
  perform chunk_private.settle_limits(array[job.limit_key]);
  return public.get_sync_job_progress_safe(job.id);
end
$$;
comment on function chunk_private.pause_sync_job is 'The body of pause_sync_job.';

create or replace function chunk_private.resume_sync_job(parent_sync_job_id uuid)
returns jsonb
language plpgsql
security definer -- users may resume their own jobs and write no table
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job constant public.sync_jobs := chunk_private.enter_own_job(parent_sync_job_id, 'resume_sync_job');
begin
  if job.status in ('completed', 'failed', 'cancelled') then
    perform chunk_private.refuse(job, 'resumed');
  elsif job.status = 'paused' then
    if not chunk_private.is_service() then
      perform chunk_private.lock_user(job.owner_id);
      perform chunk_private.check_webhooks(job.owner_id);
    end if;
    update public.sync_jobs j
    set status = case when j.started_at is null then 'pending' else 'running' end
    where j.id = job.id;
    perform chunk_private.fill_slots(job.id);
  end if;
  perform chunk_private.settle_limits(array[job.limit_key]);
  return public.get_sync_job_progress_safe(job.id);
end
$$;
comment on function chunk_private.resume_sync_job is 'The body of resume_sync_job.';

create or replace function chunk_private.retry_failed_chunks(parent_sync_job_id uuid, from_start boolean)
returns jsonb
language plpgsql
security definer -- users may retry their own jobs and write no table
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job constant public.sync_jobs := chunk_private.enter_own_job(parent_sync_job_id, 'retry_failed_chunks');
  reopened bigint;
begin
  if job.status in ('completed', 'cancelled') then
    perform chunk_private.refuse(job, 'retried');
  elsif not chunk_private.is_service() then
    perform chunk_private.lock_user(job.owner_id);
    perform chunk_private.check_webhooks(job.owner_id);
    if job.status = 'failed' then
      perform chunk_private.check_active_jobs(job.owner_id);
    end if;
  end if;
  if from_start then
    update chunk_private.job_counters c
    set items_processed = greatest(c.items_processed - f.items, 0), changes = c.changes + 1
    from (
      select q.chunk_index % job.stripes as stripe, sum(q.items_counted)::bigint as items
      from public.chunk_processing_queue q
      where q.parent_sync_job_id = job.id and q.status = 'failed' and q.items_counted is not null
      group by 1
    ) f
    where c.job_id = job.id and c.stripe = f.stripe;
  end if;
  with chunk as (
    update public.chunk_processing_queue q
    set status = 'pending', attempts = 0, given_back = 0, throttled = null, has_failed = false, claim_token = null, completed_at = null, updated_at = now(),
        items_processed = case when not from_start then q.checkpoint_items end,
        items_counted = case when not from_start then q.items_counted end, checkpoint = case when not from_start then q.checkpoint end,
        checkpoint_items = case when not from_start then q.checkpoint_items end, checkpoint_at = null, checkpoints = null
    where q.parent_sync_job_id = job.id and q.status = 'failed'
    returning q.chunk_index
  )
  insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
  select job.id, now(), c.chunk_index from chunk c;
  get diagnostics reopened = row_count;
  if reopened <> (select coalesce(sum(c.failed_chunks), 0) from chunk_private.newest_counters c where c.job_id = job.id) then
    perform chunk_private.refuse(job, 'retried any more: purge_sync_jobs() has begun to delete its chunks');
  end if;
  update chunk_private.job_counters c
  set open_chunks = c.open_chunks + c.failed_chunks, failed_chunks = 0, slots_from = 0, changes = c.changes + 1, last_activity_at = now()
  where c.job_id = job.id;
  if job.status = 'failed' then
    begin
      update public.sync_jobs j set status = 'running', completed_at = null where j.id = job.id;
    exception when unique_violation then
      raise exception using errcode = 'SC005',
        message = format('the sync job %s cannot be retried: another job with the key %L is active', job.id, job.job_key);
    end;
  end if;
  perform chunk_private.fill_slots(job.id);
  perform chunk_private.settle_limits(array[job.limit_key]);
  return public.get_sync_job_progress_safe(job.id);
end
$$;
comment on function chunk_private.retry_failed_chunks is 'The body of retry_failed_chunks.';

create or replace function public.cancel_sync_job(parent_sync_job_id uuid)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set statement_timeout = '60s'
set enable_seqscan = off
set jit = off
as $$ select chunk_private.cancel_sync_job($1); $$;
comment on function public.cancel_sync_job is
  'Ends a job and all its open chunks at once; a worker hears of it at its next heartbeat, and its late report answers cancelled. SC005 when the job has completed or failed.';

create or replace function public.pause_sync_job(parent_sync_job_id uuid)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set statement_timeout = '60s'
set enable_seqscan = off
set jit = off
as $$ select chunk_private.pause_sync_job($1); $$;
comment on function public.pause_sync_job is 'Stops handing out a job''s chunks; those that are processing go on. SC005 when the job has ended.';

create or replace function public.resume_sync_job(parent_sync_job_id uuid)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set statement_timeout = '60s'
set enable_seqscan = off
set jit = off
as $$ select chunk_private.resume_sync_job($1); $$;
comment on function public.resume_sync_job is 'Goes on with a paused job. SC005 when the job has ended.';

create or replace function public.retry_failed_chunks(parent_sync_job_id uuid, from_start boolean default false)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set statement_timeout = '60s'
set enable_seqscan = off
set jit = off
as $$ select chunk_private.retry_failed_chunks($1, $2); $$;
comment on function public.retry_failed_chunks is
  'Reopens the failed chunks of a job with all their attempts; the others stay as they are. They go on from their checkpoints, or with from_start from their beginning. SC005 when the job has completed, was cancelled or is being purged; SC004 when a user has as many active jobs as allowed.';
