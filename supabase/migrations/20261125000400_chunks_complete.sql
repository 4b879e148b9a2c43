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

-- Counts the chunks from first_index to end_index - 1 as open, and lines them up as never released.
create or replace function chunk_private.count_fresh(job_id uuid, owner_id uuid, shards int, first_index bigint, end_index bigint)
returns void
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
begin
  insert into chunk_private.job_counters as n (job_id, shard, owner_id, open_chunks)
  select job_id, s.shard, owner_id, (end_index - f.first + shards - 1) / shards
  from generate_series(0, shards - 1) s (shard)
  cross join lateral (select first_index + (s.shard - first_index % shards + shards) % shards as first) f
  where f.first < end_index
  order by s.shard
  on conflict on constraint job_counters_pkey
  do update set open_chunks = n.open_chunks + excluded.open_chunks, last_activity_at = now();
  insert into chunk_private.fresh_stripes as n (job_id, stripe, next_index, end_index)
  select job_id, s.stripe, first_index + (s.stripe - first_index % shards + shards) % shards, end_index
  from generate_series(0, shards - 1) s (stripe)
  where first_index < end_index
  order by s.stripe
  on conflict on constraint fresh_stripes_pkey do update set end_index = excluded.end_index;
end
$$;
comment on function chunk_private.count_fresh is 'Counts new chunks of a job as open and never released.';

-- Adds chunks to an active job, under its exclusive gate.
create or replace function chunk_private.add_chunks(job_id uuid, chunks jsonb, items_total bigint)
returns void
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  job record;
  added constant bigint := jsonb_array_length(chunks);
begin
  select j.kind, j.owner_id, j.priority, j.max_retries, j.total_chunks, j.counter_shards into job
  from public.sync_jobs j where j.id = job_id;
  insert into public.chunk_processing_queue
    (parent_sync_job_id, kind, owner_id, chunk_index, priority, max_retries, payload)
  select job_id, job.kind, job.owner_id, job.total_chunks + c.place - 1, job.priority, job.max_retries, c.payload
  from jsonb_array_elements(chunks) with ordinality c (payload, place);
  perform chunk_private.count_fresh(job_id, job.owner_id, job.counter_shards, job.total_chunks, job.total_chunks + added);
  update public.sync_jobs j
  set total_chunks = j.total_chunks + added,
      items_total = case when items_total is null then j.items_total else coalesce(j.items_total, 0) + items_total end
  where j.id = job_id;
end
$$;
comment on function chunk_private.add_chunks is 'Appends checked chunks to a job''s end, and counts them.';

create or replace function chunk_private.check_length(argument text, list jsonb, longest int)
returns void
language plpgsql
immutable
set search_path = ''
as $$
begin
  if jsonb_array_length(list) > longest then
    raise exception using errcode = 'SC004', detail = argument,
      message = format('%s has %s items; one call may carry %s', argument, jsonb_array_length(list), longest);
  end if;
end
$$;
comment on function chunk_private.check_length is 'Raises SC004, naming the argument, when a JSON array is longer.';

create or replace function chunk_private.check_chunks(argument text, chunks jsonb)
returns void
language plpgsql
immutable
set search_path = ''
as $$
declare
  bad bigint;
begin
  if jsonb_typeof(chunks) <> 'array' then
    raise exception using errcode = 'SC003', detail = argument,
      message = format('%s must be an array of JSON objects, not %s', argument, jsonb_typeof(chunks));
  end if;
  if jsonb_array_length(chunks) > 100000 then
    raise exception using errcode = 'SC004', detail = argument,
      message = format('%s has %s chunks; one call may carry 100000', argument, jsonb_array_length(chunks)),
      hint = 'Start the job with sealed => false and append the others with append_sync_chunks().';
  end if;
  select min(c.place) into bad from jsonb_array_elements(chunks) with ordinality c (payload, place)
  where jsonb_typeof(c.payload) <> 'object';
  if bad is not null then
    raise exception using errcode = 'SC003', detail = argument,
      message = format('%s[%s] must be a JSON object, not %s', argument, bad - 1, jsonb_typeof(chunks -> (bad - 1)::int));
  end if;
end
$$;
comment on function chunk_private.check_chunks is 'Raises SC003 or SC004, naming the argument, unless it is an array of at most 100,000 objects.';

create or replace function chunk_private.check_report(
  success boolean, retry_after_seconds int, next_chunks jsonb, items_processed bigint, items_total bigint
)
returns boolean
language plpgsql
immutable
set search_path = ''
as $$
begin
  if success is null then
    raise exception using errcode = 'SC003', detail = 'success', message = 'success must be true or false, not null';
  end if;
  if retry_after_seconds not between 0 and 604800 then
    perform chunk_private.check_range('retry_after_seconds', retry_after_seconds, 0, 604800);
  end if;
  if items_processed not between 0 and 9007199254740991 then -- the largest that every JSON reader keeps exact
    perform chunk_private.check_range('items_processed', items_processed, 0, 9007199254740991);
  end if;
  if items_total not between 0 and 9007199254740991 then
    perform chunk_private.check_range('items_total', items_total, 0, 9007199254740991);
  end if;
  if next_chunks is not null then
    perform chunk_private.check_chunks('next_chunks', next_chunks);
    if not success and jsonb_array_length(next_chunks) > 0 then
      raise exception using errcode = 'SC003', detail = 'next_chunks', message = 'next_chunks goes with success only';
    end if;
    return next_chunks <> '[]';
  end if;
  return false;
end
$$;
comment on function chunk_private.check_report is
  'Raises SC003 or SC004, naming the argument, for a report that makes no sense; says whether it appends chunks.';

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

-- Bulk reports --------------------------------------------------------------------------------------------------------

do $$
begin
  if to_regtype('chunk_private.report') is null then
    create type chunk_private.report as (
      place int,
      job_id uuid,
      lease_seconds int,
      chunk_id bigint,
      claim_token uuid,
      success boolean,
      result jsonb,
      error text,
      retryable boolean,
      retry_after_seconds int,
      next_chunks jsonb,
      items_processed bigint,
      items_total bigint,
      claim_next boolean
    );
    create type chunk_private.accepted_report as (
      place int,
      job_id uuid,
      chunk_id bigint,
      chunk_index bigint,
      success boolean,
      had_failed boolean,
      items bigint,
      claim_next boolean,
      appends boolean,
      items_total bigint,
      claim_token uuid,
      worker_id text,
      lease_seconds int
    );
  end if;
end
$$;
comment on type chunk_private.report is 'One item of a bulk report: its place in the list, its chunk''s job and length of lease, and the arguments of complete_chunk_job_safe.';
comment on type chunk_private.accepted_report is 'What the rest of a bulk report needs of an item whose claim holds, without its payload and result.';

create or replace function chunk_private.read_reports(completions jsonb, first_place int)
returns chunk_private.report[]
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  reports chunk_private.report[];
begin
  reports := array(
    select row(
      first_place + r.place - 1, q.parent_sync_job_id, greatest(1, extract(epoch from q.locked_until - q.updated_at)), r.chunk_id,
      r.claim_token, coalesce(r.success, true), r.result, r.error, coalesce(r.retryable, true), r.retry_after_seconds,
      nullif(r.next_chunks, '[]'), r.items_processed, r.items_total, coalesce(r.claim_next, false)
    )::chunk_private.report
    from rows from (jsonb_to_recordset(completions) as (
      chunk_id bigint, claim_token uuid, success boolean, result jsonb, error text, retryable boolean, retry_after_seconds int,
      next_chunks jsonb, items_processed bigint, items_total bigint, claim_next boolean
    )) with ordinality r (
      chunk_id, claim_token, success, result, error, retryable, retry_after_seconds, next_chunks, items_processed, items_total,
      claim_next, place
    )
    left join public.chunk_processing_queue q on q.id = r.chunk_id
    order by r.chunk_id, r.place
  );
  perform chunk_private.check_report(r.success, r.retry_after_seconds, r.next_chunks, r.items_processed, r.items_total)
  from unnest(reports) r
  where r.retry_after_seconds is not null or r.next_chunks is not null or r.items_processed is not null or r.items_total is not null;
  if jsonb_path_exists(completions, '$[*].success ? (@ == null)') then
    raise exception using errcode = 'SC003', detail = 'success', message = 'success must be true or false, not null';
  end if;
  if exists (select from unnest(reports) r where r.chunk_id is null or r.claim_token is null) then
    raise exception using errcode = 'SC003', detail = 'completions', message = 'each item of completions needs chunk_id and claim_token';
  end if;
  return reports;
end
$$;
comment on function chunk_private.read_reports is
  'The items of a bulk report in order of their chunks, checked, with the defaults of complete_chunk_job_safe.';

create or replace function public.complete_chunk_jobs_safe(completions jsonb)
returns jsonb
language plpgsql
set search_path = ''
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  reports chunk_private.report[];
  accepted chunk_private.accepted_report[];
  answers jsonb[];
  outcomes text[];
  item record;
  job record;
  appended bigint := 0;
  open_here bigint;
  changing uuid[];
  to_claim bigint[];
  claimed chunk_private.claimed_chunk[];
  place int;
begin
  if jsonb_typeof(completions) is distinct from 'array' then
    raise exception using errcode = 'SC003', detail = 'completions', message = 'completions must be a JSON array of objects';
  end if;
  perform chunk_private.check_length('completions', completions, 1000);
  answers := array_fill(null::jsonb, array[jsonb_array_length(completions)]);
  begin
    reports := chunk_private.read_reports(completions, 1);
  exception when others then
    -- One is bad: read them one by one, so that only it is refused.
    reports := array[]::chunk_private.report[];
    for item in select c.value, c.place::int from jsonb_array_elements(completions) with ordinality c (value, place) loop
      begin
        reports := reports || chunk_private.read_reports(jsonb_build_array(item.value), item.place);
      exception when others then
        answers[item.place] := jsonb_build_object(
          'chunk_id', case when jsonb_typeof(item.value) = 'object' then item.value -> 'chunk_id' end,
          'outcome', 'error', 'code', sqlstate, 'message', sqlerrm
        );
      end;
    end loop;
    reports := array(select r from unnest(reports) r order by r.chunk_id, r.place);
  end;

  for job in
    select r.job_id as id, bool_or(r.next_chunks is not null) as appends, sum(jsonb_array_length(r.next_chunks)) as chunks
    from unnest(reports) r
    where r.job_id is not null
    group by r.job_id
    order by r.job_id
  loop
    appended := appended + coalesce(job.chunks, 0);
    if appended > 100000 then
      raise exception using errcode = 'SC004', detail = 'completions',
        message = 'completions have more than 100000 next_chunks together; one call may carry 100000';
    end if;
    if job.appends then
      perform pg_advisory_xact_lock(uuid_hash_extended(job.id, 0));
    else
      perform pg_advisory_xact_lock_shared(uuid_hash_extended(job.id, 0));
    end if;
  end loop;

  -- In order of id, as they stand in the array, and no chunk that is somebody else's by now: those take theirs in no order.
  -- Of two reports for one chunk the first counts. What failed is written again below.
  with ended as (
    update public.chunk_processing_queue q
    set status = case when r.success then 'completed' else q.status end, result = case when r.success then r.result end,
        error = null, locked_until = case when not r.success then q.locked_until end, completed_at = case when r.success then now() end,
        items_processed = coalesce(case when r.success then r.items_processed end, q.items_processed),
        items_total = coalesce(case when r.success then r.items_total end, q.items_total), updated_at = now()
    from unnest(reports) r
    where q.id = r.chunk_id and q.claim_token = r.claim_token and q.completed_at is null
    returning row(
      r.place, q.parent_sync_job_id, q.id, q.chunk_index, r.success, q.attempts > 1, coalesce(q.items_processed, 0), r.claim_next,
      r.next_chunks is not null, r.items_total, q.claim_token, q.worker_id, r.lease_seconds
    )::chunk_private.accepted_report as report
  )
  select array_agg(e.report) into accepted from ended e;

  -- All counters before the first job, all jobs before the first slot is passed on.
  for job in
    select j.id, j.counter_shards as shards, bool_or(not a.success) as fails,
      bool_or(a.appends or a.success and a.items_total is not null) as grows
    from unnest(accepted) a
    join public.sync_jobs j on j.id = a.job_id
    group by j.id
    order by j.id
  loop
    if job.fails then
      perform 1 from chunk_private.job_counters c
      where c.job_id = job.id and c.shard in (select a.chunk_index % job.shards from unnest(accepted) a where a.job_id = job.id)
      order by c.shard
      for no key update;
      for item in
        select a.place, q as chunk, r.error, r.retryable, r.retry_after_seconds
        from unnest(accepted) a
        join unnest(reports) r on r.place = a.place
        join public.chunk_processing_queue q on q.id = a.chunk_id
        where a.job_id = job.id and not a.success
      loop
        outcomes[item.place] := chunk_private.end_attempt(
          item.chunk, 'error', coalesce(item.error, 'the worker gave no error text'), item.retryable, item.retry_after_seconds
        );
      end loop;
    end if;
    with counted as (
      update chunk_private.job_counters c
      set open_chunks = c.open_chunks - d.done,
          completed_chunks = c.completed_chunks + d.done,
          retrying_chunks = c.retrying_chunks - d.retried,
          items_processed = c.items_processed + d.items,
          last_activity_at = now()
      from (
        select a.chunk_index % job.shards as shard, count(*) as done, count(*) filter (where a.had_failed) as retried,
          sum(a.items)::bigint as items
        from unnest(accepted) a
        where a.job_id = job.id and a.success
        group by 1
        order by 1
      ) d
      where c.job_id = job.id and c.shard = d.shard
      returning c.open_chunks
    )
    select min(n.open_chunks) into open_here from counted n;
    if job.fails then
      open_here := (select min(c.open_chunks) from chunk_private.job_counters c where c.job_id = job.id);
    end if;
    if job.grows or open_here = 0 then
      changing := changing || job.id;
    end if;
  end loop;
  for job in
    select a.job_id as id, bool_or(a.appends) as appends, sum(a.items_total) filter (where a.success and not a.appends) as items_total
    from unnest(accepted) a
    where a.job_id = any (changing)
    group by a.job_id
    order by a.job_id
  loop
    if job.appends then
      perform chunk_private.add_chunks(job.id, r.next_chunks, r.items_total)
      from unnest(accepted) a
      join unnest(reports) r on r.place = a.place
      where a.job_id = job.id and a.appends;
    end if;
    if job.items_total is not null then
      update public.sync_jobs j set items_total = coalesce(j.items_total, 0) + job.items_total where j.id = job.id;
    end if;
    perform chunk_private.finish_if_done(job.id);
  end loop;

  for job in
    select j as row, d.freed, d.appends, d.wanting, d.claim_ids,
      (select sum(c.open_chunks) from chunk_private.job_counters c where c.job_id = j.id)::bigint as remaining
    from (
      select a.job_id, array_agg(a.chunk_index) as freed, bool_or(a.appends) as appends,
        coalesce(array_agg(a.place) filter (where a.claim_next), '{}') as wanting,
        coalesce(array_agg(a.claim_token) filter (where a.claim_next), '{}') as claim_ids
      from unnest(accepted) a
      group by a.job_id
    ) d
    join public.sync_jobs j on j.id = d.job_id
    order by j.id
  loop
    for item in
      select a.place, jsonb_build_object(
        'chunk_id', a.chunk_id, 'outcome', o.outcome, 'job_status', (job.row).status, 'next', null, 'remaining', job.remaining,
        'chunk_status', case o.outcome when 'retrying' then 'pending' else o.outcome end
      ) as answer
      from unnest(accepted) a
      cross join lateral (select coalesce(outcomes[a.place], 'completed') as outcome) o
      where a.job_id = (job.row).id
    loop
      answers[item.place] := item.answer;
    end loop;
    to_claim := chunk_private.pass_slots_on(job.row, job.freed, job.claim_ids);
    for item in
      select a.worker_id, a.lease_seconds, array_agg(n.chunk_index order by n.nr) as chunk_indexes, array_agg(a.place order by n.nr) as places
      from unnest(to_claim, job.wanting) with ordinality n (chunk_index, place, nr)
      join unnest(accepted) a on a.place = n.place
      where n.chunk_index is not null
      group by a.worker_id, a.lease_seconds
    loop
      claimed := chunk_private.start_attempts(
        array_fill((job.row).id, array[cardinality(item.places)]), item.chunk_indexes, item.worker_id, (
          select k.handler from public.sync_kinds k where k.kind = (job.row).kind
        ), item.lease_seconds
      );
      for i in 1..cardinality(claimed) loop
        place := item.places[array_position(item.chunk_indexes, claimed[i].chunk_index)];
        answers[place] := answers[place] || jsonb_build_object('next', claimed[i]);
      end loop;
    end loop;
    if job.appends then
      perform chunk_private.fill_slots((job.row).id);
    end if;
  end loop;

  for item in select r.place, r.chunk_id, r.claim_token from unnest(reports) r where answers[r.place] is null loop
    answers[item.place] := coalesce(chunk_private.answer_again(item.chunk_id, item.claim_token), jsonb_build_object(
      'chunk_id', item.chunk_id, 'outcome', 'error', 'code', 'SC001', 'message', format('there is no chunk %s', item.chunk_id)
    ));
  end loop;
  return to_jsonb(answers);
end
$$;
comment on function public.complete_chunk_jobs_safe is
  'Reports many chunks (at most 1,000) at once: an array of objects with the arguments of complete_chunk_job_safe, answered in order. A bad item is answered with outcome error, code and message; the others go through.';

-- Heartbeats and giving back --------------------------------------------------------------------------------------------

create or replace function public.extend_chunk_leases(leases jsonb, lease_seconds int default null)
returns jsonb
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  answers jsonb;
begin
  if jsonb_typeof(leases) is distinct from 'array' then
    raise exception using errcode = 'SC003', detail = 'leases',
      message = 'leases must be a JSON array of objects with chunk_id and claim_token';
  end if;
  perform chunk_private.check_length('leases', leases, 1000);
  begin
    perform max(r.chunk_id), max(r.claim_token::text), max(r.items_processed)
    from jsonb_array_elements(leases) l (item)
    cross join lateral jsonb_to_record(l.item) r (chunk_id bigint, claim_token uuid, items_processed bigint);
  exception when data_exception then
    raise exception using errcode = 'SC003', detail = 'leases', message = 'leases must be objects with chunk_id and claim_token: ' || sqlerrm;
  end;
  perform chunk_private.check_range('lease_seconds', lease_seconds, 1, 86400) where lease_seconds is not null;
  perform chunk_private.check_range('items_processed', (l.item ->> 'items_processed')::bigint, 0, 9007199254740991)
  from jsonb_array_elements(leases) l (item) where l.item ->> 'items_processed' is not null;
  perform pg_advisory_xact_lock_shared(uuid_hash_extended(g.job_id, 0))
  from (
    select distinct q.parent_sync_job_id as job_id
    from jsonb_array_elements(leases) l (item)
    join public.chunk_processing_queue q on q.id = (l.item ->> 'chunk_id')::bigint
    order by 1
  ) g;
  with wanted as (
    select l.place, r.chunk_id, r.claim_token, r.items_processed
    from jsonb_array_elements(leases) with ordinality l (item, place)
    cross join lateral jsonb_to_record(l.item) r (chunk_id bigint, claim_token uuid, items_processed bigint)
  ),
  locked as (
    select q.id, q.status, q.claim_token, q.locked_until, q.locked_until - q.updated_at as lease_length
    from public.chunk_processing_queue q
    where q.id = any (array(select w.chunk_id from wanted w)) and q.claim_token = any (array(select w.claim_token from wanted w))
    order by q.id
    for no key update
  ),
  extended as (
    update public.chunk_processing_queue q
    set locked_until = now() + coalesce(make_interval(secs => lease_seconds), l.lease_length),
        items_processed = coalesce(w.items_processed, q.items_processed),
        updated_at = now()
    from locked l
    join wanted w on w.chunk_id = l.id and w.claim_token = l.claim_token
    where q.id = l.id and l.status = 'processing'
    returning q.id, q.claim_token, q.locked_until
  )
  select coalesce(jsonb_agg(jsonb_build_object(
    'chunk_id', w.chunk_id,
    'ok', e.id is not null,
    'cancel_requested', coalesce(l.status = 'cancelled' and l.claim_token = w.claim_token, false),
    'locked_until', e.locked_until
  ) order by w.place), '[]') into answers
  from wanted w
  left join locked l on l.id = w.chunk_id
  left join extended e on e.id = w.chunk_id and e.claim_token = w.claim_token;
  return answers;
end
$$;
comment on function public.extend_chunk_leases is
  'The heartbeat of many claims (at most 1,000): an array of {chunk_id, claim_token, items_processed?}. Each is answered with ok (the claim still holds), cancel_requested and locked_until. lease_seconds null keeps each claim''s own length.';

create or replace function public.extend_chunk_lease(
  chunk_id bigint, claim_token uuid, lease_seconds int default null, items_processed bigint default null
)
returns jsonb
language sql
set search_path = ''
as $$
  select public.extend_chunk_leases(
    jsonb_build_array(jsonb_build_object('chunk_id', $1, 'claim_token', $2, 'items_processed', $4)), $3
  ) -> 0;
$$;
comment on function public.extend_chunk_lease is
  'The heartbeat of one claim: ok (it still holds), cancel_requested (the job was cancelled) and locked_until. items_processed is shown in progress, and counted by the completion only.';

create or replace function public.release_chunk_job(chunk_id bigint, claim_token uuid, reason text default null)
returns jsonb
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  chunk public.chunk_processing_queue;
  job public.sync_jobs;
  explanation constant text := coalesce(reason, 'given back by its worker');
begin
  perform pg_advisory_xact_lock_shared(uuid_hash_extended(q.parent_sync_job_id, 0))
  from public.chunk_processing_queue q where q.id = chunk_id;
  if not found then
    raise exception using errcode = 'SC001', message = format('there is no chunk %s', chunk_id);
  end if;
  select q.* into chunk from public.chunk_processing_queue q
  where q.id = chunk_id and q.claim_token = claim_token and q.completed_at is null
  for no key update;
  if not found then
    return chunk_private.answer_again_or_refuse(chunk_id, claim_token) || coalesce((
      select jsonb_build_object('outcome', 'released') from chunk_private.chunk_attempts a
      where a.chunk_id = chunk_id and a.claim_token = claim_token and a.outcome = 'released'
    ), '{}');
  end if;
  if chunk.given_back >= (select s.max_given_back from chunk_private.settings s) then
    return public.complete_chunk_job_safe(chunk_id, claim_token, success => false, error => explanation || ' (too often: counted as an attempt)');
  end if;

  insert into chunk_private.chunk_attempts (chunk_id, attempt, outcome, error, worker_id, claim_token, claimed_at)
  values (chunk.id, chunk.attempts, 'released', explanation, chunk.worker_id, chunk.claim_token, chunk.started_at);
  update public.chunk_processing_queue q
  set status = 'pending', attempts = q.attempts - 1, given_back = q.given_back + 1, claim_token = null, locked_until = null,
      items_processed = null, updated_at = now()
  where q.id = chunk.id;
  select j.* into job from public.sync_jobs j where j.id = chunk.parent_sync_job_id;
  -- It keeps its slot, unless the job was paused meanwhile.
  delete from chunk_private.slots s where s.job_id = job.id and s.chunk_index = chunk.chunk_index;
  if job.status = 'paused' then
    insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index) values (job.id, now(), chunk.chunk_index);
  else
    perform chunk_private.give_slots(job, array[chunk.chunk_index], array[now()], '{}', now() + interval '25 seconds');
  end if;
  return jsonb_build_object('chunk_id', chunk_id, 'outcome', 'released', 'chunk_status', 'pending', 'job_status', job.status);
end
$$;
comment on function public.release_chunk_job is
  'Gives a claimed chunk back unfinished, for a worker that must stop: the attempt is not counted, up to ten times a chunk.';
