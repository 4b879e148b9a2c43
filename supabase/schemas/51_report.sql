-- Reports: how a worker says that its chunk has ended, fenced by the claim's token.

create or replace function chunk_private.count_failure(
  chunk public.chunk_processing_queue, reason text, retryable boolean, retry_after_seconds int, throttled_seconds int, out outcome text,
  out id uuid, out status text, out stripes smallint, out handler text, out open_here bigint, out remaining bigint, out limit_key text,
  out fresh_from bigint
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  outcome := case
    when throttled_seconds is not null then chunk_private.throttle_attempt(chunk, coalesce(reason, 'throttled'), throttled_seconds)
    else chunk_private.end_attempt(chunk, 'error', coalesce(reason, 'the worker gave no error text'), retryable, retry_after_seconds)
  end;
  select j.id, j.status, j.stripes, k.handler, o.open_here, o.remaining, j.limit_key, o.fresh_from
  into id, status, stripes, handler, open_here, remaining, limit_key, fresh_from
  from public.sync_jobs j
  join public.sync_kinds k on k.kind = j.kind
  cross join lateral (
    select sum(c.open_chunks)::bigint as remaining, max(c.fresh_from) as fresh_from,
      min(c.open_chunks) filter (where c.stripe = chunk.chunk_index % j.stripes) as open_here
    from chunk_private.newest_counters c where c.job_id = j.id
  ) o
  where j.id = chunk.parent_sync_job_id;
end
$$;
comment on function chunk_private.count_failure is
  'Ends the attempt of a locked chunk with an error, or gives it back when it was throttled; returns the outcome, and of its job what the rest of the report needs.';

-- One body with headings: its phases as functions would cost a tenth of the report.
create or replace function public.complete_chunk_job_safe(
  chunk_id bigint, claim_token uuid, success boolean default true, result jsonb default null, error text default null,
  retryable boolean default true, retry_after_seconds int default null, next_chunks jsonb default null,
  items_processed bigint default null, items_total bigint default null, claim_next boolean default false,
  handler_down boolean default false, next_state jsonb default null, throttled_seconds int default null
)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
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
  rests boolean;
  fresh_index bigint;
  sends boolean;
  to_claim bigint;
  next jsonb;
begin
  -- Arguments, and the level
  if current_setting('transaction_isolation') <> 'read committed' then
    perform chunk_private.check_isolation('complete_chunk_job_safe');
  end if;
  if success is null or num_nonnulls(retry_after_seconds, next_chunks, items_processed, items_total, next_state, throttled_seconds) > 0 then
    appends := chunk_private.check_report(success, retry_after_seconds, next_chunks, items_processed, items_total, next_state, throttled_seconds);
  end if;
  if success and octet_length(result::text) > 200 then
    perform chunk_private.check_result(result);
  end if;
  if claim_next then
    select greatest(1, extract(epoch from q.locked_until - q.updated_at))::int into lease_seconds
    from public.chunk_processing_queue q where q.id = chunk_id;
  end if;

  -- Fence and gate: a chunk with this token and no end is processing. The gate stands in the `where`, behind the fence: it is
  -- entered before the chunk is locked, in one statement with it. What this statement reads may be older than the gate; the
  -- job is therefore read by the next one.
  if success then
    update public.chunk_processing_queue q
    set status = 'completed', result = complete_chunk_job_safe.result, error = null, locked_until = null,
        items_processed = coalesce(complete_chunk_job_safe.items_processed, q.items_processed),
        items_total = coalesce(complete_chunk_job_safe.items_total, q.items_total),
        checkpoint = null, completed_at = now(), updated_at = now()
    where q.id = chunk_id and q.claim_token = complete_chunk_job_safe.claim_token and q.completed_at is null and case when appends
      then pg_advisory_xact_lock(uuid_hash_extended(q.parent_sync_job_id, 0))::text
      else pg_advisory_xact_lock_shared(uuid_hash_extended(q.parent_sync_job_id, 0))::text
    end is not null
    returning q.parent_sync_job_id as job_id, q.chunk_index, q.has_failed, q.items_processed, q.items_counted, q.worker_id into chunk;
  else
    select q.parent_sync_job_id as job_id, q.chunk_index, q.has_failed, q.items_processed, q.items_counted, q.worker_id, q.attempts into chunk
    from public.chunk_processing_queue q
    where q.id = chunk_id and q.claim_token = complete_chunk_job_safe.claim_token and q.completed_at is null
      and pg_advisory_xact_lock_shared(uuid_hash_extended(q.parent_sync_job_id, 0))::text is not null
    for no key update;
  end if;
  if not found then
    return chunk_private.answer_again_or_refuse(chunk_id, claim_token);
  end if;

  -- Counters. One whose generation has risen while we waited for it is passed over, locked: the second time finds it.
  if success then
    for time in 1 .. 2 loop
      update chunk_private.job_counters c
      set open_chunks = c.open_chunks - 1,
          completed_chunks = c.completed_chunks + 1,
          retrying_chunks = c.retrying_chunks - chunk.has_failed::int,
          items_processed = least(greatest(c.items_processed + coalesce(chunk.items_processed, 0) - coalesce(chunk.items_counted, 0), 0), chunk_private.most_items()),
          slots_from = case when j.raises then chunk_private.lowest_place(j.id) else c.slots_from end,
          fresh_from = case when j.raises then chunk_private.lowest_generation(j.id) else c.fresh_from end,
          changes = case when j.joins > c.generation then 0 else c.changes + 1 end, generation = j.joins, last_activity_at = now()
      from (
        select j.id, j.status, j.stripes, j.limit_key, k.handler, n.own, n.newest, n.oldest, n.open_chunks, n.fresh_from, n.changes % 16 = 15 as raises,
          case when n.own < n.newest then n.newest else n.own + (n.changes + 1 >= chunk_private.changes_a_generation())::int end as joins
        from public.sync_jobs j
        join public.sync_kinds k on k.kind = j.kind
        cross join lateral (
          select min(o.generation) filter (where o.is_own) as own, min(o.changes) filter (where o.is_own) as changes,
            max(o.generation) as newest, min(o.generation) as oldest, sum(o.open_chunks)::bigint as open_chunks,
            max(o.fresh_from) as fresh_from
          from ( -- as newest_counters has them: without another look at the job
            select o.stripe = chunk.chunk_index % j.stripes as is_own, o.generation, o.changes, o.open_chunks, o.fresh_from
            from chunk_private.job_counters o
            where o.job_id = j.id
            order by o.generation desc limit least(j.stripes, j.total_chunks)
          ) o
        ) n
        where j.id = chunk.job_id
        offset 0 -- before the counter, which is then found by its whole key
      ) j
      where c.job_id = j.id and c.generation = j.own and c.stripe = chunk.chunk_index % j.stripes
      returning j.id, j.status, j.stripes, j.handler, j.limit_key, c.open_chunks as open_here, j.open_chunks - 1 as remaining, j.fresh_from,
        case when j.joins > greatest(j.newest, j.oldest + 2) then j.joins end as begun
      into job;
      exit when found;
    end loop;
    if job.begun is not null then -- and some have stayed behind
      perform chunk_private.bring_along(job.id, job.begun);
    end if;
    if appends then
      perform chunk_private.add_chunks(job.id, next_chunks, items_total);
      job.remaining := job.remaining + jsonb_array_length(next_chunks);
      job.open_here := null;
    elsif items_total is not null then
      perform chunk_private.add_items(job.id, items_total);
    end if;
    if next_state is not null then
      perform chunk_private.stage_state(job.id, next_state);
    end if;
  else
    job := chunk_private.count_failure(
      (select q from public.chunk_processing_queue q where q.id = chunk_id), error, retryable, retry_after_seconds,
      throttled_seconds
    );
    outcome := job.outcome;
  end if;

  -- The job's end
  if job.open_here = 0 then
    job.status := chunk_private.finish_if_done(job.id);
  end if;

  -- The chunk's slot goes to the next one. In most reports the job runs on, no retry is due, and a stripe is free: that in
  -- two statements, since calling take_fresh and hand_out would cost a tenth of the report. All else is pass_slots_on's.
  rests := coalesce(handler_down, false) and not success and throttled_seconds is null;
  if rests then
    perform chunk_private.rest_slot(j, chunk.chunk_index, chunk.attempts) from public.sync_jobs j where j.id = job.id;
  elsif job.status in ('pending', 'running') and job.limit_key is null then
    update chunk_private.fresh_stripes f
    set next_index = f.next_index + job.stripes
    where f.ctid = (
      select s.ctid from chunk_private.fresh_stripes s
      where s.job_id = job.id and s.generation >= job.fresh_from and s.next_index < s.end_index
        and not exists (select from chunk_private.returned_chunks r where r.job_id = job.id and r.ready_at <= now())
      order by s.next_index limit 1 for no key update skip locked
    )
    returning f.next_index - job.stripes into fresh_index;
  end if;
  if fresh_index is null and not rests then
    to_claim := chunk_private.pass_slots_on(
      (select j from public.sync_jobs j where j.id = job.id), array[chunk.chunk_index], case when claim_next then claim_token end
    );
  elsif fresh_index is not null then
    to_claim := case when claim_next then fresh_index end;
    sends := to_claim is null and job.handler is not null;
    update chunk_private.slots s
    set chunk_index = fresh_index, ready_at = now(), claimed = to_claim is not null, claim_id = case when claim_next then claim_token end,
        dispatched_at = case when sends then now() end, dispatch_count = sends::int
    where s.job_id = job.id and s.chunk_index = chunk.chunk_index;
    if not found then -- somebody has deleted it
      to_claim := null;
      perform chunk_private.hand_out(j, array[fresh_index], array[now()], null, now()) from public.sync_jobs j where j.id = job.id;
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
  if job.limit_key is not null then
    next := chunk_private.settle_report(job.id, job.limit_key, case when outcome = 'throttled' then throttled_seconds end, error,
      case when claim_next then claim_token end, chunk.worker_id, job.handler, lease_seconds);
  end if;

  -- The answer
  return jsonb_build_object(
    'chunk_id', chunk_id, 'outcome', outcome, 'job_status', job.status, 'next', next,
    'remaining', case when job.status in ('completed', 'failed') then 0 else job.remaining end,
    'chunk_status', case when outcome in ('retrying', 'throttled') then 'pending' else outcome end
  );
end
$$;
comment on function public.complete_chunk_job_safe is
  'Reports a chunk''s end, once: by the token of its claim. outcome: completed, retrying, failed, throttled, cancelled (the job was) or stale (the claim was lost; nothing is changed). next_chunks become chunks of the same job in the same transaction. next_state is merged into what the job leaves for the next one with its job_key, if it completes. claim_next claims the next chunk of the job for the same worker. handler_down says that the failure is the handler''s rather than the chunk''s: the slot rests until the retry. throttled_seconds says that what it works on asked for a pause: the chunk goes back without an attempt, and its limit_key is blocked for as long, an hour at most. A repeated report answers what the first one did.';
