-- Complete: a worker's report, fenced by the claim's token. Heartbeats and giving back belong here too.
--
-- The fence is in the `where` of the write, next to the primary key: a chunk with this token and no end is processing.

-- Lock before asking whether anything is left: two last finishers cannot see each other's uncommitted counters, but the
-- one that gets the job row second sees the first's.
create or replace function chunk_private.finish_if_done(job_id uuid)
returns text
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  job record;
  counts record;
begin
  select j.status, j.sealed into job from public.sync_jobs j where j.id = job_id for no key update;
  if job.status in ('pending', 'running', 'paused') and job.sealed then
    select coalesce(sum(c.open_chunks), 0) as open, sum(c.failed_chunks) as failed into counts
    from chunk_private.job_counters c where c.job_id = job_id;
    if counts.open = 0 then
      job.status := case when counts.failed > 0 then 'failed' else 'completed' end;
      update public.sync_jobs j
      set status = job.status, completed_at = now(), started_at = coalesce(j.started_at, now()), finishes = j.finishes + 1
      where j.id = job_id;
    end if;
  end if;
  return job.status;
end
$$;
comment on function chunk_private.finish_if_done is 'Ends a sealed job that has no open chunk left; returns the job''s status.';

create or replace function chunk_private.backoff(retry_delay_seconds int, attempts int)
returns interval
language sql
volatile
set search_path = ''
as $$
  select make_interval(secs => least($1 * 2.0 ^ least($2 - 1, 30), greatest($1, 3600)) * (0.75 + 0.25 * random()));
$$;
comment on function chunk_private.backoff is
  'How long a chunk waits after its attempts-th failure: the kind''s delay, doubled each time, up to an hour, less up to a quarter of jitter.';

-- Ends the attempt of a locked, processing chunk without success: back to pending while attempts are left, else failed.
-- Its slot is the caller's to pass on.
create or replace function chunk_private.end_attempt(
  chunk public.chunk_processing_queue, attempt_outcome text, error text, retryable boolean, retry_after_seconds int
)
returns text
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  retry constant boolean := coalesce(retryable, true) and chunk.attempts <= chunk.max_retries;
  delay interval;
begin
  insert into chunk_private.chunk_attempts (chunk_id, attempt, outcome, error, worker_id, claim_token, claimed_at)
  values (chunk.id, chunk.attempts,
    case when attempt_outcome = 'lost' then 'lost' when retry then 'retrying' else 'failed' end,
    error, chunk.worker_id, chunk.claim_token, chunk.started_at);
  if retry then
    delay := case when retry_after_seconds is not null then make_interval(secs => retry_after_seconds)
      else (select chunk_private.backoff(k.retry_delay_seconds, chunk.attempts) from public.sync_kinds k where k.kind = chunk.kind) end;
    update public.chunk_processing_queue q
    set status = 'pending', ready_at = now() + delay, error = error, claim_token = null, locked_until = null, items_processed = null,
        updated_at = now()
    where q.id = chunk.id;
    insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
    values (chunk.parent_sync_job_id, now() + delay, chunk.chunk_index);
  else
    update public.chunk_processing_queue q
    set status = 'failed', error = error, locked_until = null, completed_at = now(), updated_at = now()
    where q.id = chunk.id;
  end if;
  update chunk_private.job_counters c
  set open_chunks = c.open_chunks - (not retry)::int,
      failed_chunks = c.failed_chunks + (not retry)::int,
      retrying_chunks = c.retrying_chunks + (retry and chunk.attempts = 1)::int - (not retry and chunk.attempts > 1)::int,
      last_activity_at = now(),
      -- Why chunks failed for good says more than a retry that came later.
      last_error = case when retry and c.failed_chunks > 0 then c.last_error else error end,
      last_error_at = case when retry and c.failed_chunks > 0 then c.last_error_at else now() end
  where c.job_id = chunk.parent_sync_job_id
    and c.shard = chunk.chunk_index % (select j.counter_shards from public.sync_jobs j where j.id = chunk.parent_sync_job_id);
  return case when retry then 'retrying' else 'failed' end;
end
$$;
comment on function chunk_private.end_attempt is 'Records a failed or lost attempt; returns retrying or failed.';

-- What a report answers whose chunk is not, or no longer, its own: a repeat of a report gets what the first one got.
create or replace function chunk_private.answer_again(chunk_id bigint, claim_token uuid)
returns jsonb
language sql
set search_path = ''
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
    'remaining', (select coalesce(sum(c.open_chunks), 0) from chunk_private.job_counters c where c.job_id = j.id),
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
set search_path = ''
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

create or replace function public.complete_chunk_job_safe(
  chunk_id bigint, claim_token uuid, success boolean default true, result jsonb default null, error text default null,
  retryable boolean default true, retry_after_seconds int default null, next_chunks jsonb default null,
  items_processed bigint default null, items_total bigint default null, claim_next boolean default false
)
returns jsonb
language plpgsql
set search_path = ''
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  appends boolean := false;
  lease_seconds int;
  chunk record;
  job record;
  outcome text := 'completed';
  fresh_index bigint;
  sends boolean;
  to_claim bigint;
  next jsonb;
begin
  if success is null or num_nonnulls(retry_after_seconds, next_chunks, items_processed, items_total) > 0 then
    appends := chunk_private.check_report(success, retry_after_seconds, next_chunks, items_processed, items_total);
  end if;
  if claim_next then
    select greatest(1, extract(epoch from q.locked_until - q.updated_at))::int into lease_seconds
    from public.chunk_processing_queue q where q.id = chunk_id;
  end if;

  -- The gate stands in the `where`, behind the fence: it is entered before the chunk is locked, in one statement with it. What
  -- this statement reads may be older than the gate; the job is therefore read by the next one.
  if success then
    update public.chunk_processing_queue q
    set status = 'completed', result = result, error = null, locked_until = null,
        items_processed = coalesce(items_processed, q.items_processed), items_total = coalesce(items_total, q.items_total),
        completed_at = now(), updated_at = now()
    where q.id = chunk_id and q.claim_token = claim_token and q.completed_at is null and case when appends
      then pg_advisory_xact_lock(uuid_hash_extended(q.parent_sync_job_id, 0))::text
      else pg_advisory_xact_lock_shared(uuid_hash_extended(q.parent_sync_job_id, 0))::text
    end is not null
    returning q.parent_sync_job_id as job_id, q.chunk_index, q.attempts, q.items_processed, q.worker_id into chunk;
  else
    select q.parent_sync_job_id as job_id, q.chunk_index, q.attempts, q.items_processed, q.worker_id into chunk
    from public.chunk_processing_queue q
    where q.id = chunk_id and q.claim_token = claim_token and q.completed_at is null
      and pg_advisory_xact_lock_shared(uuid_hash_extended(q.parent_sync_job_id, 0))::text is not null
    for no key update;
  end if;
  if not found then
    return chunk_private.answer_again_or_refuse(chunk_id, claim_token);
  end if;

  if success then
    update chunk_private.job_counters c
    set open_chunks = c.open_chunks - 1,
        completed_chunks = c.completed_chunks + 1,
        retrying_chunks = c.retrying_chunks - (chunk.attempts > 1)::int,
        items_processed = c.items_processed + coalesce(chunk.items_processed, 0),
        last_activity_at = now()
    from public.sync_jobs j
    join public.sync_kinds k on k.kind = j.kind
    where j.id = chunk.job_id and c.job_id = j.id and c.shard = chunk.chunk_index % j.counter_shards
    returning j.id, j.status, j.counter_shards as shards, k.handler, c.open_chunks as open_here,
      (select sum(o.open_chunks)::bigint - 1 from chunk_private.job_counters o where o.job_id = j.id) as remaining
    into job;
    if appends then
      perform chunk_private.add_chunks(job.id, next_chunks, items_total);
      job.remaining := job.remaining + jsonb_array_length(next_chunks);
      job.open_here := null;
    elsif items_total is not null then
      update public.sync_jobs j set items_total = coalesce(j.items_total, 0) + items_total where j.id = job.id;
    end if;
  else
    outcome := chunk_private.end_attempt(
      (select q from public.chunk_processing_queue q where q.id = chunk_id), 'error',
      coalesce(error, 'the worker gave no error text'), retryable, retry_after_seconds
    );
    select j.id, j.status, j.counter_shards as shards, k.handler, o.open_here, o.remaining into job
    from public.sync_jobs j
    join public.sync_kinds k on k.kind = j.kind
    cross join lateral (
      select sum(c.open_chunks)::bigint as remaining, min(c.open_chunks) filter (where c.shard = chunk.chunk_index % j.counter_shards) as open_here
      from chunk_private.job_counters c where c.job_id = j.id
    ) o
    where j.id = chunk.job_id;
  end if;
  if job.open_here = 0 then
    job.status := chunk_private.finish_if_done(job.id);
  end if;

  -- The chunk's slot goes to the next one. In most reports the job runs on, no retry is due, and a stripe is free: that in
  -- two statements, since calling take_fresh and give_slots would cost a tenth of the report. All else is pass_slots_on's.
  if job.status in ('pending', 'running') then
    update chunk_private.fresh_stripes f
    set next_index = f.next_index + job.shards
    where f.job_id = job.id and f.stripe = (
      select s.stripe from chunk_private.fresh_stripes s
      where s.job_id = job.id and s.next_index < s.end_index
        and not exists (select from chunk_private.returned_chunks r where r.job_id = job.id and r.ready_at <= now())
      order by s.next_index limit 1 for no key update skip locked
    )
    returning f.next_index - job.shards into fresh_index;
  end if;
  if fresh_index is null then
    to_claim := (chunk_private.pass_slots_on(
      (select j from public.sync_jobs j where j.id = job.id), array[chunk.chunk_index],
      case when claim_next then array[claim_token] else array[]::uuid[] end
    ))[1];
  else
    to_claim := case when claim_next then fresh_index end;
    sends := to_claim is null and job.handler is not null;
    update chunk_private.slots s
    set chunk_index = fresh_index, ready_at = now(), claimed = to_claim is not null, claim_id = case when claim_next then claim_token end,
        dispatched_at = case when sends then now() end, dispatch_count = sends::int
    where s.job_id = job.id and s.chunk_index = chunk.chunk_index;
    if not found then -- somebody has deleted it
      to_claim := null;
      perform chunk_private.give_slots(j, array[fresh_index], array[now()], '{}', now()) from public.sync_jobs j where j.id = job.id;
    elsif sends then
      perform chunk_private.dispatch(j, array[fresh_index]) from public.sync_jobs j where j.id = job.id;
    end if;
  end if;
  if to_claim is not null then
    next := to_jsonb(chunk_private.start_attempt(job.id, to_claim, chunk.worker_id, job.handler, lease_seconds, false));
  end if;
  if appends then
    perform chunk_private.fill_slots(job.id);
  end if;
  return jsonb_build_object(
    'chunk_id', chunk_id, 'outcome', outcome, 'job_status', job.status, 'next', next,
    'remaining', case when job.status in ('completed', 'failed') then 0 else job.remaining end,
    'chunk_status', case outcome when 'retrying' then 'pending' else outcome end
  );
end
$$;
comment on function public.complete_chunk_job_safe is
  'Reports a chunk''s end, once: by the token of its claim. outcome: completed, retrying, failed, cancelled (the job was) or stale (the claim was lost; nothing is changed). next_chunks become chunks of the same job in the same transaction. claim_next claims the next chunk of the job for the same worker. A repeated report answers what the first one did.';
