-- Complete: a worker's report, fenced by the claim's token. Heartbeats and giving back belong here too.
--
-- A report locks its row by primary key and then compares token and status in variables: the same conditions in the
-- `where` would be planned as a scan of the index of processing chunks, which an old snapshot keeps full of dead entries.

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
    select sum(c.open_chunks) as open, sum(c.failed_chunks) as failed into counts
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
  shards smallint;
begin
  select j.kind, j.owner_id, j.priority, j.max_retries, j.max_concurrency, j.total_chunks, j.counter_shards into job
  from public.sync_jobs j where j.id = job_id;
  shards := greatest(job.counter_shards, least(16, job.max_concurrency, job.total_chunks + added), 1);
  insert into public.chunk_processing_queue
    (parent_sync_job_id, kind, owner_id, chunk_index, priority, max_retries, counter_shard, payload)
  select job_id, job.kind, job.owner_id, job.total_chunks + c.place - 1, job.priority, job.max_retries,
    (job.total_chunks + c.place - 1) % shards, c.payload
  from jsonb_array_elements(chunks) with ordinality c (payload, place);
  insert into chunk_private.job_counters as n (job_id, shard, owner_id, open_chunks)
  select job_id, s.shard, job.owner_id,
    (added - 1 - (s.shard - job.total_chunks % shards + shards) % shards + shards) / shards
  from generate_series(0, shards - 1) s (shard)
  order by s.shard
  on conflict on constraint job_counters_pkey
  do update set open_chunks = n.open_chunks + excluded.open_chunks, last_activity_at = now();
  update public.sync_jobs j
  set total_chunks = j.total_chunks + added, counter_shards = shards,
      items_total = case when items_total is null then j.items_total else coalesce(j.items_total, 0) + items_total end
  where j.id = job_id;
end
$$;
comment on function chunk_private.add_chunks is 'Appends checked chunks to a job''s end, and counts them.';

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
returns void
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
  if items_processed < 0 then
    perform chunk_private.check_range('items_processed', items_processed, 0, 9223372036854775807);
  end if;
  if items_total < 0 then
    perform chunk_private.check_range('items_total', items_total, 0, 9223372036854775807);
  end if;
  if next_chunks is not null then
    perform chunk_private.check_chunks('next_chunks', next_chunks);
    if not success and jsonb_array_length(next_chunks) > 0 then
      raise exception using errcode = 'SC003', detail = 'next_chunks', message = 'next_chunks goes with success only';
    end if;
  end if;
end
$$;
comment on function chunk_private.check_report is 'Raises SC003 or SC004, naming the argument, for a report that makes no sense.';

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
create or replace function chunk_private.end_attempt(
  chunk public.chunk_processing_queue, attempt_outcome text, error text, retryable boolean, retry_after_seconds int
)
returns text
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  retry constant boolean := retryable and chunk.attempts <= chunk.max_retries;
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
    set status = 'pending', released = false, ready_at = now() + delay, error = error,
        claim_token = null, claim_id = null, locked_until = null, updated_at = now()
    where q.id = chunk.id;
  else
    update public.chunk_processing_queue q
    set status = 'failed', released = false, error = error, locked_until = null, completed_at = now(), updated_at = now()
    where q.id = chunk.id;
  end if;
  update chunk_private.job_counters c
  set open_chunks = c.open_chunks - (not retry)::int,
      failed_chunks = c.failed_chunks + (not retry)::int,
      retrying_chunks = c.retrying_chunks + (retry and chunk.attempts = 1)::int - (not retry and chunk.attempts > 1)::int,
      last_activity_at = now(), last_error = error, last_error_at = now()
  where c.job_id = chunk.parent_sync_job_id and c.shard = chunk.counter_shard;
  return case when retry then 'retrying' else 'failed' end;
end
$$;
comment on function chunk_private.end_attempt is 'Records a failed or lost attempt; returns retrying or failed.';

-- What a report answers whose chunk is not, or no longer, its own: a repeat of a report gets what the first one got.
create or replace function chunk_private.answer_again(chunk public.chunk_processing_queue, claim_token uuid)
returns jsonb
language sql
set search_path = ''
as $$
  select jsonb_build_object(
    'chunk_id', ($1).id,
    'outcome', coalesce(
      case when ($1).claim_token = $2 and ($1).completed_at is not null then ($1).status end,
      (select a.outcome from chunk_private.chunk_attempts a
        where a.chunk_id = ($1).id and a.claim_token = $2 and a.outcome in ('retrying', 'failed', 'cancelled')),
      'stale'
    ),
    'chunk_status', ($1).status,
    'job_status', j.status,
    'remaining', (select coalesce(sum(c.open_chunks), 0) from chunk_private.job_counters c where c.job_id = j.id),
    'next', (select to_jsonb(n) from chunk_private.claimed_by($2) n where n.parent_sync_job_id = j.id limit 1)
  )
  from public.sync_jobs j where j.id = ($1).parent_sync_job_id;
$$;
comment on function chunk_private.answer_again is 'The answer to a report by a token that does not hold the chunk now.';

create or replace function public.complete_chunk_job_safe(
  chunk_id bigint, claim_token uuid, success boolean default true, result jsonb default null, error text default null,
  retryable boolean default true, retry_after_seconds int default null, next_chunks jsonb default null,
  items_processed bigint default null, items_total bigint default null, claim_next boolean default false
)
returns jsonb
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  chunk public.chunk_processing_queue;
  job record;
  slots record;
  outcome text := 'completed';
  next jsonb;
begin
  perform chunk_private.check_report(success, retry_after_seconds, next_chunks, items_processed, items_total);
  select q.parent_sync_job_id into chunk.parent_sync_job_id from public.chunk_processing_queue q where q.id = chunk_id;
  if jsonb_array_length(next_chunks) > 0 then
    perform pg_advisory_xact_lock(uuid_hash_extended(chunk.parent_sync_job_id, 0));
  else
    perform pg_advisory_xact_lock_shared(uuid_hash_extended(chunk.parent_sync_job_id, 0));
  end if;
  select q.* into chunk from public.chunk_processing_queue q where q.id = chunk_id for no key update;
  if not found then
    raise exception using errcode = 'SC001', message = format('there is no chunk %s', chunk_id);
  end if;
  if chunk.status <> 'processing' or chunk.claim_token is distinct from claim_token then
    return chunk_private.answer_again(chunk, claim_token);
  end if;

  if success then
    update public.chunk_processing_queue q
    set status = 'completed', released = false, result = result, error = null, locked_until = null,
        items_processed = coalesce(items_processed, q.items_processed), items_total = coalesce(items_total, q.items_total),
        completed_at = now(), updated_at = now()
    where q.id = chunk_id;
    update chunk_private.job_counters c
    set open_chunks = c.open_chunks - 1,
        completed_chunks = c.completed_chunks + 1,
        retrying_chunks = c.retrying_chunks - (chunk.attempts > 1)::int,
        items_processed = c.items_processed + coalesce(items_processed, chunk.items_processed, 0),
        last_activity_at = now()
    where c.job_id = chunk.parent_sync_job_id and c.shard = chunk.counter_shard;
    if jsonb_array_length(next_chunks) > 0 then
      perform chunk_private.add_chunks(chunk.parent_sync_job_id, next_chunks, items_total);
    elsif items_total is not null then
      update public.sync_jobs j set items_total = coalesce(j.items_total, 0) + items_total where j.id = chunk.parent_sync_job_id;
    end if;
  else
    outcome := chunk_private.end_attempt(chunk, 'error', coalesce(error, 'the worker gave no error text'), retryable, retry_after_seconds);
  end if;

  select j.id, j.status, j.owner_id, n.remaining, n.remaining_here into job
  from public.sync_jobs j
  cross join lateral (
    select sum(c.open_chunks)::bigint as remaining, sum(c.open_chunks) filter (where c.shard = chunk.counter_shard) as remaining_here
    from chunk_private.job_counters c where c.job_id = j.id
  ) n
  where j.id = chunk.parent_sync_job_id;
  if job.remaining_here = 0 then
    job.status := chunk_private.finish_if_done(job.id);
  end if;

  if job.status in ('pending', 'running') then
    select * into slots from chunk_private.pass_slots_on(job.id, chunk_id, 1, claim_next::int);
    if cardinality(slots.next_ids) > 0 then
      select to_jsonb(m) into next
      from chunk_private.mark_claimed(slots.next_ids, chunk.worker_id, chunk_private.lease_length(chunk), claim_token) m;
    end if;
    if jsonb_array_length(next_chunks) > 0 then
      slots.to_dispatch := slots.to_dispatch || chunk_private.fill_slots(job.id);
    end if;
    if cardinality(slots.to_dispatch) > 0 then
      perform chunk_private.dispatch(job.id, job.owner_id, slots.to_dispatch);
    end if;
  end if;
  return jsonb_build_object(
    'chunk_id', chunk_id, 'outcome', outcome, 'job_status', job.status, 'remaining', job.remaining, 'next', next,
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
      place bigint,
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
  end if;
end
$$;
comment on type chunk_private.report is 'One item of a bulk report: the arguments of complete_chunk_job_safe and its place in the list.';

create or replace function chunk_private.read_reports(completions jsonb, first_place bigint)
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
      first_place + c.place - 1, r.chunk_id, r.claim_token, coalesce(r.success, true), nullif(c.item -> 'result', 'null'), r.error,
      coalesce(r.retryable, true), r.retry_after_seconds, nullif(nullif(r.next_chunks, 'null'), '[]'), r.items_processed, r.items_total,
      coalesce(r.claim_next, false)
    )::chunk_private.report
    from jsonb_array_elements(completions) with ordinality c (item, place)
    cross join lateral jsonb_to_record(c.item) r (
      chunk_id bigint, claim_token uuid, success boolean, error text, retryable boolean, retry_after_seconds int,
      next_chunks jsonb, items_processed bigint, items_total bigint, claim_next boolean
    )
  );
  perform chunk_private.check_report(r.success, r.retry_after_seconds, r.next_chunks, r.items_processed, r.items_total)
  from unnest(reports) r;
  if exists (select from unnest(reports) r where r.chunk_id is null or r.claim_token is null) then
    raise exception using errcode = 'SC003', detail = 'completions', message = 'each item of completions needs chunk_id and claim_token';
  end if;
  return reports;
end
$$;
comment on function chunk_private.read_reports is 'The items of a bulk report, checked, with the defaults of complete_chunk_job_safe.';

create or replace function public.complete_chunk_jobs_safe(completions jsonb)
returns jsonb
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  reports chunk_private.report[];
  refused jsonb := '{}';
  held public.chunk_processing_queue[];
  mine bigint[];
  touched record;
  slots record;
  report record;
  next_ids bigint[];
  nexts jsonb := '{}';
begin
  if jsonb_typeof(completions) is distinct from 'array' then
    raise exception using errcode = 'SC003', detail = 'completions', message = 'completions must be a JSON array of objects';
  end if;
  perform chunk_private.check_range('the number of completions', jsonb_array_length(completions), 0, 1000);
  begin
    reports := chunk_private.read_reports(completions, 1);
  exception when others then
    -- One is bad: read them one by one, so that only it is refused.
    reports := '{}';
    for report in select c.item, c.place from jsonb_array_elements(completions) with ordinality c (item, place) loop
      begin
        reports := reports || chunk_private.read_reports(jsonb_build_array(report.item), report.place);
      exception when others then
        refused := refused || jsonb_build_object(
          report.place::text,
          jsonb_build_object('chunk_id', report.item -> 'chunk_id', 'outcome', 'error', 'code', sqlstate, 'message', sqlerrm)
        );
      end;
    end loop;
  end;

  for touched in
    select q.parent_sync_job_id as job_id, bool_or(r.next_chunks is not null) as appends
    from unnest(reports) r
    join public.chunk_processing_queue q on q.id = r.chunk_id
    group by q.parent_sync_job_id
    order by q.parent_sync_job_id
  loop
    if touched.appends then
      perform pg_advisory_xact_lock(uuid_hash_extended(touched.job_id, 0));
    else
      perform pg_advisory_xact_lock_shared(uuid_hash_extended(touched.job_id, 0));
    end if;
  end loop;
  held := array(
    select q from public.chunk_processing_queue q
    where q.id = any (array(select r.chunk_id from unnest(reports) r))
    order by q.id
    for no key update
  );
  mine := array(
    select min(r.place) from unnest(reports) r
    join unnest(held) h on h.id = r.chunk_id and h.status = 'processing' and h.claim_token = r.claim_token
    group by r.chunk_id
  );
  perform 1 from chunk_private.job_counters c
  where (c.job_id, c.shard) in (select h.parent_sync_job_id, h.counter_shard from unnest(held) h)
  order by c.job_id, c.shard
  for no key update;

  update public.chunk_processing_queue q
  set status = 'completed', released = false, result = r.result, error = null, locked_until = null,
      items_processed = coalesce(r.items_processed, q.items_processed), items_total = coalesce(r.items_total, q.items_total),
      completed_at = now(), updated_at = now()
  from unnest(reports) r
  where q.id = r.chunk_id and r.place = any (mine) and r.success;
  update chunk_private.job_counters c
  set open_chunks = c.open_chunks - d.done,
      completed_chunks = c.completed_chunks + d.done,
      retrying_chunks = c.retrying_chunks - d.retried,
      items_processed = c.items_processed + d.items,
      last_activity_at = now()
  from (
    select h.parent_sync_job_id, h.counter_shard, count(*) as done, count(*) filter (where h.attempts > 1) as retried,
      sum(coalesce(r.items_processed, h.items_processed, 0))::bigint as items
    from unnest(reports) r
    join unnest(held) h on h.id = r.chunk_id
    where r.place = any (mine) and r.success
    group by h.parent_sync_job_id, h.counter_shard
  ) d
  where c.job_id = d.parent_sync_job_id and c.shard = d.counter_shard;
  perform chunk_private.end_attempt(h, 'error', coalesce(r.error, 'the worker gave no error text'), r.retryable, r.retry_after_seconds)
  from unnest(reports) r
  join unnest(held) h on h.id = r.chunk_id
  where r.place = any (mine) and not r.success;

  for touched in
    select h.parent_sync_job_id as job_id, sum(r.items_total) filter (where r.next_chunks is null) as items_total
    from unnest(reports) r
    join unnest(held) h on h.id = r.chunk_id
    where r.place = any (mine)
    group by h.parent_sync_job_id
    order by h.parent_sync_job_id
  loop
    perform chunk_private.add_chunks(touched.job_id, r.next_chunks, r.items_total)
    from unnest(reports) r
    join unnest(held) h on h.id = r.chunk_id
    where r.place = any (mine) and h.parent_sync_job_id = touched.job_id and r.success and r.next_chunks is not null;
    if touched.items_total is not null then
      update public.sync_jobs j set items_total = coalesce(j.items_total, 0) + touched.items_total where j.id = touched.job_id;
    end if;
    if exists (select from chunk_private.job_counters c where c.job_id = touched.job_id and c.open_chunks = 0) then
      perform chunk_private.finish_if_done(touched.job_id);
    end if;
  end loop;

  for touched in
    select j.id as job_id, j.owner_id, count(*)::int as freed, min(h.id) as first_id, bool_or(r.next_chunks is not null) as appends,
      array_agg(r.place order by r.place) filter (where r.claim_next) as wanting
    from unnest(reports) r
    join unnest(held) h on h.id = r.chunk_id
    join public.sync_jobs j on j.id = h.parent_sync_job_id
    where r.place = any (mine) and j.status in ('pending', 'running')
    group by j.id
    order by j.id
  loop
    select * into slots
    from chunk_private.pass_slots_on(touched.job_id, touched.first_id, touched.freed, coalesce(cardinality(touched.wanting), 0));
    for report in
      select r.place, r.claim_token, h as chunk, h.worker_id, n.id as next_id
      from unnest(slots.next_ids, touched.wanting) n (id, place)
      join unnest(reports) r on r.place = n.place
      join unnest(held) h on h.id = r.chunk_id
      where n.id is not null
    loop
      nexts := nexts || jsonb_build_object(report.place::text, (
        select to_jsonb(m) from chunk_private.mark_claimed(
          array[report.next_id], report.worker_id, chunk_private.lease_length(report.chunk), report.claim_token
        ) m
      ));
    end loop;
    if touched.appends then
      slots.to_dispatch := slots.to_dispatch || chunk_private.fill_slots(touched.job_id);
    end if;
    if cardinality(slots.to_dispatch) > 0 then
      perform chunk_private.dispatch(touched.job_id, touched.owner_id, slots.to_dispatch);
    end if;
  end loop;

  return (
    with jobs as (
      select j.id, j.status, (select sum(c.open_chunks) from chunk_private.job_counters c where c.job_id = j.id)::bigint as remaining
      from public.sync_jobs j
      where j.id in (select h.parent_sync_job_id from unnest(held) h)
    )
    select coalesce(jsonb_agg(a.answer order by a.place), '[]')
    from (
      select r.place, case
        when h.id is null then jsonb_build_object(
          'chunk_id', r.chunk_id, 'outcome', 'error', 'code', 'SC001', 'message', format('there is no chunk %s', r.chunk_id))
        when r.place = any (mine) then jsonb_build_object(
          'chunk_id', r.chunk_id, 'outcome', o.outcome, 'chunk_status', case o.outcome when 'retrying' then 'pending' else o.outcome end,
          'job_status', j.status, 'remaining', j.remaining, 'next', nexts -> r.place::text)
        else chunk_private.answer_again((select q from public.chunk_processing_queue q where q.id = r.chunk_id), r.claim_token)
      end as answer
      from unnest(reports) r
      left join unnest(held) h on h.id = r.chunk_id
      left join jobs j on j.id = h.parent_sync_job_id
      cross join lateral (
        select case when r.success then 'completed' else (
          select t.outcome from chunk_private.chunk_attempts t
          where t.chunk_id = r.chunk_id and t.claim_token = r.claim_token
        ) end as outcome
      ) o
      union all
      select e.key::bigint, e.value from jsonb_each(refused) e
    ) a
  );
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
  perform chunk_private.check_range('the number of leases', jsonb_array_length(leases), 0, 1000);
  perform chunk_private.check_range('lease_seconds', lease_seconds, 1, 86400) where lease_seconds is not null;
  perform pg_advisory_xact_lock_shared(uuid_hash_extended(g.job_id, 0))
  from (
    select distinct q.parent_sync_job_id as job_id
    from jsonb_array_elements(leases) l (item)
    join public.chunk_processing_queue q on q.id = (l.item ->> 'chunk_id')::bigint
    order by 1
  ) g;
  with wanted as (
    select l.place, r.chunk_id, r.claim_token, greatest(r.items_processed, 0) as items_processed
    from jsonb_array_elements(leases) with ordinality l (item, place)
    cross join lateral jsonb_to_record(l.item) r (chunk_id bigint, claim_token uuid, items_processed bigint)
  ),
  locked as (
    select q.id, q.status, q.claim_token, q.locked_until, q.locked_until - q.updated_at as lease_length
    from public.chunk_processing_queue q
    where q.id = any (array(select w.chunk_id from wanted w))
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
  job record;
  explanation constant text := coalesce(reason, 'given back by its worker');
begin
  select q.parent_sync_job_id into chunk.parent_sync_job_id from public.chunk_processing_queue q where q.id = chunk_id;
  perform pg_advisory_xact_lock_shared(uuid_hash_extended(chunk.parent_sync_job_id, 0));
  select q.* into chunk from public.chunk_processing_queue q where q.id = chunk_id for no key update;
  if not found then
    raise exception using errcode = 'SC001', message = format('there is no chunk %s', chunk_id);
  end if;
  if chunk.status <> 'processing' or chunk.claim_token is distinct from claim_token then
    if exists (
      select from chunk_private.chunk_attempts a
      where a.chunk_id = chunk_id and a.claim_token = claim_token and a.outcome = 'released'
    ) then
      return jsonb_build_object('chunk_id', chunk_id, 'outcome', 'released', 'chunk_status', chunk.status);
    end if;
    return chunk_private.answer_again(chunk, claim_token);
  end if;
  if chunk.given_back >= (select s.max_given_back from chunk_private.settings s) then
    return public.complete_chunk_job_safe(chunk_id, claim_token, success => false, error => explanation || ' (too often: counted as an attempt)');
  end if;

  insert into chunk_private.chunk_attempts (chunk_id, attempt, outcome, error, worker_id, claim_token, claimed_at)
  values (chunk.id, chunk.attempts, 'released', explanation, chunk.worker_id, chunk.claim_token, chunk.started_at);
  select j.id, j.owner_id, j.status, k.handler into job
  from public.sync_jobs j join public.sync_kinds k on k.kind = j.kind
  where j.id = chunk.parent_sync_job_id;
  -- It keeps its slot, unless the job was paused meanwhile.
  update public.chunk_processing_queue q
  set status = 'pending', released = job.status <> 'paused', ready_at = now(), attempts = q.attempts - 1, given_back = q.given_back + 1,
      claim_token = null, claim_id = null, locked_until = null, updated_at = now(),
      dispatched_at = case when job.handler is not null then now() end, dispatch_count = (job.handler is not null)::int
  where q.id = chunk.id;
  if job.handler is not null and job.status <> 'paused' then
    perform chunk_private.dispatch(job.id, job.owner_id, array[chunk.id]);
  end if;
  return jsonb_build_object('chunk_id', chunk_id, 'outcome', 'released', 'chunk_status', 'pending');
end
$$;
comment on function public.release_chunk_job is
  'Gives a claimed chunk back unfinished, for a worker that must stop: the attempt is not counted, up to ten times a chunk.';
