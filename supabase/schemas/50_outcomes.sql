-- How attempts and jobs end, and what an outdated report is answered.

-- Lock before asking whether anything is left: two last finishers cannot see each other's uncommitted counters, but the
-- one that gets the job row second sees the first's.
create or replace function chunk_private.finish_if_done(job_id uuid)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job record;
  counts record;
begin
  select j.status, j.sealed, j.next_state is not null as leaves_state into job from public.sync_jobs j where j.id = job_id for no key update;
  if job.status in ('pending', 'running', 'paused') and job.sealed then
    select coalesce(sum(c.open_chunks), 0) as open, sum(c.failed_chunks) as failed into counts
    from chunk_private.newest_counters c where c.job_id = job_id;
    if counts.open = 0 then
      job.status := case when counts.failed > 0 then 'failed' else 'completed' end;
      update public.sync_jobs j
      set status = job.status, completed_at = now(), started_at = coalesce(j.started_at, now())
      where j.id = job_id;
      if job.status = 'completed' and job.leaves_state then
        perform chunk_private.promote_state(job_id);
      end if;
    end if;
  end if;
  return job.status;
end
$$;
comment on function chunk_private.finish_if_done is 'Ends a sealed job that has no open chunk left; returns the job''s status.';

create or replace function chunk_private.refuse_open_end()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from chunk_private.newest_counters c where c.job_id = new.id and c.open_chunks > 0) then
    raise exception using errcode = 'SC005',
      message = format('the sync job %s has %s open chunks: it cannot be %s', new.id,
        (select sum(c.open_chunks) from chunk_private.newest_counters c where c.job_id = new.id), new.status),
      hint = 'cancel_sync_job() ends a job and its open chunks.';
  end if;
  return null;
end
$$;
comment on function chunk_private.refuse_open_end is 'Trigger of sync_jobs: SC005 when somebody completes or fails a job by hand whose chunks have not ended. Cancelled by hand, the watchdog cancels them.';

do $$
begin
  -- Asked first: making a trigger again would wait for all who write jobs.
  if not exists (select from pg_trigger t where t.tgname = 'sync_jobs_refuse_open_end' and t.tgrelid = 'public.sync_jobs'::regclass) then
    create trigger sync_jobs_refuse_open_end after update of status on public.sync_jobs
      for each row when (new.completed_at is not null and old.completed_at is null and new.status <> 'cancelled')
      execute function chunk_private.refuse_open_end();
  end if;
end
$$;

create or replace function chunk_private.backoff(retry_delay_seconds int, attempts int)
returns interval
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select make_interval(secs => least($1 * 2.0 ^ least($2 - 1, 30), greatest($1, 3600)) * (0.75 + 0.25 * random()));
$$;
comment on function chunk_private.backoff is
  'How long a chunk waits after its attempts-th failure: the kind''s delay, doubled each time, up to an hour, less up to a quarter of jitter.';

-- Ends the attempt of a locked, processing chunk without success: back to pending while attempts are left, else failed.
-- Its slot is the caller's to pass on.
create or replace function chunk_private.end_attempt(
  chunk public.chunk_processing_queue, attempt_outcome text, reason text, retryable boolean, retry_after_seconds int
)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  retry constant boolean := coalesce(retryable, true) and chunk.attempts <= chunk.max_retries;
  delay interval;
  stripe bigint;
  held bigint;
begin
  insert into chunk_private.chunk_attempts (job_id, chunk_id, attempt, outcome, error, worker_id, claim_token, claimed_at)
  values (chunk.parent_sync_job_id, chunk.id, chunk.attempts,
    case when attempt_outcome = 'lost' then 'lost' when retry then 'retrying' else 'failed' end,
    reason, chunk.worker_id, chunk.claim_token, chunk.started_at);
  if retry then
    delay := case when retry_after_seconds is not null then make_interval(secs => retry_after_seconds)
      else (select chunk_private.backoff(k.retry_delay_seconds, chunk.attempts) from public.sync_kinds k where k.kind = chunk.kind) end;
    update public.chunk_processing_queue q
    set status = 'pending', has_failed = true, ready_at = now() + delay, error = reason, claim_token = null, locked_until = null,
        items_processed = q.checkpoint_items, items_counted = q.checkpoint_items, updated_at = now()
    where q.id = chunk.id;
    insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
    values (chunk.parent_sync_job_id, now() + delay, chunk.chunk_index);
  else
    update public.chunk_processing_queue q
    set status = 'failed', error = reason, locked_until = null, items_counted = q.checkpoint_items, completed_at = now(), updated_at = now()
    where q.id = chunk.id;
  end if;
  stripe := chunk.chunk_index % (select j.stripes from public.sync_jobs j where j.id = chunk.parent_sync_job_id);
  held := chunk_private.hold_counter(chunk.parent_sync_job_id, stripe);
  update chunk_private.job_counters c
  set open_chunks = c.open_chunks - (not retry)::int,
      failed_chunks = c.failed_chunks + (not retry)::int,
      retrying_chunks = c.retrying_chunks + (retry and not chunk.has_failed)::int - (not retry and chunk.has_failed)::int,
      items_processed = least(greatest(c.items_processed + coalesce(chunk.checkpoint_items, 0) - coalesce(chunk.items_counted, 0), 0), chunk_private.most_items()),
      last_activity_at = now(), changes = c.changes + 1,
      -- Why chunks failed for good says more than a retry that came later.
      last_error = case when retry and c.failed_chunks > 0 then c.last_error else reason end,
      last_error_at = case when retry and c.failed_chunks > 0 then c.last_error_at else now() end
  where c.job_id = chunk.parent_sync_job_id and c.stripe = stripe and c.generation = held;
  return case when retry then 'retrying' else 'failed' end;
end
$$;
comment on function chunk_private.end_attempt is 'Records a failed or lost attempt; returns retrying or failed.';

-- What a report answers whose chunk is not, or no longer, its own: a repeat of a report gets what the first one got.
create or replace function chunk_private.answer_again(chunk_id bigint, claim_token uuid)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'chunk_id', q.id,
    'outcome', case
      when a.outcome in ('lost', 'released') then 'stale'
      when a.outcome is not null then a.outcome
      when q.claim_token = $2 and q.completed_at is not null then q.status
      else 'stale'
    end,
    'chunk_status', q.status,
    'job_status', j.status,
    'remaining', (select coalesce(sum(c.open_chunks), 0) from chunk_private.newest_counters c where c.job_id = j.id),
    'next', to_jsonb(chunk_private.claimed_by($2)) -> 0
  )
  from public.chunk_processing_queue q
  join public.sync_jobs j on j.id = q.parent_sync_job_id
  left join chunk_private.chunk_attempts a on a.chunk_id = q.id and a.claim_token = $2
  where q.id = $1;
$$;
comment on function chunk_private.answer_again is 'The answer to a report by a token that does not hold the chunk now; null when there is no such chunk.';

create or replace function chunk_private.answer_again_or_refuse(chunk_id bigint, claim_token uuid)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  answer constant jsonb := chunk_private.answer_again(chunk_id, claim_token);
begin
  if answer is null then
    raise exception using errcode = 'SC001', message = format('there is no chunk %s', chunk_id);
  end if;
  return answer;
end
$$;
comment on function chunk_private.answer_again_or_refuse is 'What answer_again says; SC001 when there is no such chunk.';
