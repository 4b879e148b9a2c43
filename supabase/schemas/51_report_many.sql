-- Reporting many chunks at once.

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
