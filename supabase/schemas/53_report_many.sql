-- Reporting many chunks at once: set by set, in the order of locks.

-- In order of id, as they stand in the array, and no chunk that is somebody else's by now: those take theirs in no order.
-- Of two reports for one chunk the first counts. What failed is written again by count_reports.
create or replace function chunk_private.accept_reports(reports chunk_private.report[])
returns chunk_private.accepted_report[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  accepted chunk_private.accepted_report[];
begin
  with ended as (
    update public.chunk_processing_queue q
    set status = case when r.success then 'completed' else q.status end, result = case when r.success then r.result end,
        error = null, locked_until = case when not r.success then q.locked_until end, completed_at = case when r.success then now() end,
        items_processed = coalesce(case when r.success then r.items_processed end, q.items_processed),
        items_total = coalesce(case when r.success then r.items_total end, q.items_total),
        checkpoint = case when not r.success then q.checkpoint end, updated_at = now()
    from unnest(reports) r
    where q.id = r.chunk_id and q.id = any (array(select c.chunk_id from unnest(reports) c)) -- so written, no others are read
      and q.claim_token = r.claim_token and q.completed_at is null
    returning row(
      r.place, q.parent_sync_job_id, q.id, q.chunk_index, r.success, q.has_failed,
      coalesce(q.items_processed, 0) - coalesce(q.items_counted, 0), r.next_chunks is not null, r.items_total, r.next_state is not null
    )::chunk_private.accepted_report as report
  )
  select array_agg(e.report) into accepted from ended e;
  return accepted;
end
$$;
comment on function chunk_private.accept_reports is 'The fence of a bulk report: completes or locks the chunks whose claims hold, and returns what was accepted.';

create or replace function chunk_private.count_reports(
  accepted chunk_private.accepted_report[], reports chunk_private.report[], out outcomes text[], out changing uuid[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job record;
  item record;
  begun bigint;
  open_here bigint;
begin
  for job in
    select j.id, j.stripes, bool_or(not a.success) as fails, bool_or(a.appends or a.success and a.items_total is not null or a.stages) as changes
    from unnest(accepted) a
    cross join lateral (select j.id, j.stripes from public.sync_jobs j where j.id = a.job_id limit 1) j
    group by j.id, j.stripes
    order by j.id
  loop
    perform 1 from chunk_private.job_counters c
    where c.ctid = any (array(
      select n.place from chunk_private.newest_counters n
      where n.job_id = job.id
        and n.stripe = any (array(select a.chunk_index % job.stripes from unnest(accepted) a where a.job_id = job.id))
    ))
    order by c.stripe for no key update;
    if job.fails then
      for item in
        select a.place, q as chunk, r.error, r.retryable, r.retry_after_seconds, r.throttled_seconds
        from unnest(accepted) a
        join unnest(reports) r on r.place = a.place
        join public.chunk_processing_queue q on q.id = a.chunk_id
        where a.job_id = job.id and not a.success
      loop
        outcomes[item.place] := case
          when item.throttled_seconds is not null then
            chunk_private.throttle_attempt(item.chunk, coalesce(item.error, 'throttled'), item.throttled_seconds)
          else chunk_private.end_attempt(
            item.chunk, 'error', coalesce(item.error, 'the worker gave no error text'), item.retryable, item.retry_after_seconds
          )
        end;
      end loop;
    end if;
    with newest as materialized (
      select n.place, n.stripe, n.generation, n.changes, max(n.generation) over () as newest, min(n.generation) over () as oldest
      from chunk_private.newest_counters n where n.job_id = job.id
    ),
    counted as (
      update chunk_private.job_counters c
      set open_chunks = c.open_chunks - d.done,
          completed_chunks = c.completed_chunks + d.done,
          retrying_chunks = c.retrying_chunks - d.retried,
          items_processed = least(greatest(c.items_processed + d.items, 0), chunk_private.most_items()),
          slots_from = case when d.done > 8 or d.joins > d.newest then (select chunk_private.lowest_place(job.id)) else c.slots_from end,
          fresh_from = case when d.done > 8 or d.joins > d.newest then (select chunk_private.lowest_generation(job.id)) else c.fresh_from end,
          changes = case when d.joins > c.generation then 0 else c.changes + 1 end, generation = d.joins, last_activity_at = now()
      from (
        select n.place, n.newest, n.oldest, a.done, a.retried, a.items,
          case when n.generation < n.newest then n.newest else n.generation + (n.changes + 1 >= chunk_private.changes_a_generation())::int end as joins
        from (
          select a.chunk_index % job.stripes as stripe, count(*) as done, count(*) filter (where a.had_failed) as retried, sum(a.items)::bigint as items
          from unnest(accepted) a
          where a.job_id = job.id and a.success
          group by 1
        ) a
        join newest n on n.stripe = a.stripe
      ) d
      where c.ctid = d.place
      returning c.open_chunks, case when d.joins > greatest(d.newest, d.oldest + 2) then d.joins end as begun
    )
    select min(n.open_chunks), max(n.begun) into open_here, begun from counted n;
    if begun is not null then
      perform chunk_private.bring_along(job.id, begun);
    end if;
    if job.fails then
      open_here := (select min(c.open_chunks) from chunk_private.newest_counters c where c.job_id = job.id);
    end if;
    if job.changes or open_here = 0 then
      changing := changing || job.id;
    end if;
  end loop;
end
$$;
comment on function chunk_private.count_reports is
  'Counts what was accepted, and ends the attempts that failed: their outcomes, by place, and the jobs whose rows change next.';

create or replace function chunk_private.change_jobs(
  changing uuid[], accepted chunk_private.accepted_report[], reports chunk_private.report[]
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job record;
begin
  for job in
    select a.job_id as id, bool_or(a.appends) as appends, bool_or(a.stages) as stages,
      coalesce(sum(a.items_total) filter (where a.success and not a.appends), 0)::bigint as items_total
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
    if job.items_total > 0 then
      perform chunk_private.add_items(job.id, job.items_total);
    end if;
    if job.stages then
      perform chunk_private.stage_state(job.id, r.next_state)
      from unnest(accepted) a
      join unnest(reports) r on r.place = a.place
      where a.job_id = job.id and a.stages
      order by a.place;
    end if;
    perform chunk_private.finish_if_done(job.id);
  end loop;
end
$$;
comment on function chunk_private.change_jobs is 'Gives jobs the chunks, items and state that reports have brought, and ends those that are done.';

create or replace function public.complete_chunk_jobs_safe(completions jsonb)
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
  reports chunk_private.report[];
  accepted chunk_private.accepted_report[];
  answers jsonb[];
  counted record;
  item record;
  job record;
  limited uuid[];
begin
  -- Arguments, and the level
  perform chunk_private.check_isolation('complete_chunk_jobs_safe');
  if jsonb_typeof(completions) is distinct from 'array' then
    raise exception using errcode = 'SC003', detail = 'completions', message = 'completions must be a JSON array of objects';
  end if;
  perform chunk_private.check_length('completions', completions, 1000);
  begin
    answers := array_fill(null::jsonb, array[jsonb_array_length(completions)]);
    reports := chunk_private.read_reports(completions, 1);
  exception when sqlstate 'SC003' or sqlstate 'SC004' or data_exception then -- one is bad: only it is refused
    select r.reports, r.refusals into reports, answers from chunk_private.read_reports_apart(completions) r;
  end;

  -- All gates, all chunks, all counters, all jobs, before the first slot is passed on.
  perform chunk_private.enter_gates(reports);
  accepted := chunk_private.accept_reports(reports);
  counted := chunk_private.count_reports(accepted, reports);
  perform chunk_private.change_jobs(counted.changing, accepted, reports);

  -- Slots, and the answers of what was accepted
  for job in
    select j.row, d.freed, d.appends,
      (select sum(c.open_chunks) from chunk_private.newest_counters c where c.job_id = d.job_id)::bigint as remaining
    from (
      select a.job_id, array_agg(a.chunk_index) as freed, bool_or(a.appends) as appends
      from unnest(accepted) a group by a.job_id
    ) d
    cross join lateral (select j as row from public.sync_jobs j where j.id = d.job_id limit 1) j
    order by d.job_id
  loop
    for item in
      select a.place, jsonb_build_object(
        'chunk_id', a.chunk_id, 'outcome', o.outcome, 'job_status', (job.row).status, 'next', null, 'remaining', job.remaining,
        'chunk_status', case when o.outcome in ('retrying', 'throttled') then 'pending' else o.outcome end
      ) as answer
      from unnest(accepted) a
      cross join lateral (select coalesce(counted.outcomes[a.place], 'completed') as outcome) o
      where a.job_id = (job.row).id
    loop
      answers[item.place] := item.answer;
    end loop;
    perform chunk_private.pass_slots_on(job.row, job.freed, null);
    if job.appends then
      perform chunk_private.fill_slots((job.row).id);
    end if;
    if (job.row).limit_key is not null then
      limited := limited || (job.row).id;
    end if;
  end loop;
  if limited is not null then
    perform chunk_private.settle_reports(limited, accepted, reports, counted.outcomes);
  end if;

  -- The answers of what was not: repeated, outdated, or of no chunk
  for item in select r.place, r.chunk_id, r.claim_token from unnest(reports) r where answers[r.place] is null loop
    answers[item.place] := coalesce(chunk_private.answer_again(item.chunk_id, item.claim_token), jsonb_build_object(
      'chunk_id', item.chunk_id, 'outcome', 'error', 'code', 'SC001', 'message', format('there is no chunk %s', item.chunk_id)
    ));
  end loop;
  return to_jsonb(answers);
end
$$;
comment on function public.complete_chunk_jobs_safe is
  'Reports many chunks (at most 1,000) at once: an array of objects with the arguments of complete_chunk_job_safe (but claim_next), answered in order. A bad item is answered with outcome error, code and message; the others go through.';
