-- Reading the list of a bulk report, and entering its gates.

do $$
begin
  if to_regtype('chunk_private.report') is null then
    create type chunk_private.report as (
      place int,
      job_id uuid,
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
      next_state jsonb,
      throttled_seconds int
    );
    create type chunk_private.accepted_report as (
      place int,
      job_id uuid,
      chunk_id bigint,
      chunk_index bigint,
      success boolean,
      had_failed boolean,
      items bigint,
      appends boolean,
      items_total bigint,
      stages boolean
    );
  end if;
end
$$;
comment on type chunk_private.report is 'One item of a bulk report: its place in the list, its chunk''s job, and the arguments of complete_chunk_job_safe.';
comment on type chunk_private.accepted_report is 'What the rest of a bulk report needs of an item whose claim holds, without its payload and result.';

create or replace function chunk_private.read_reports(completions jsonb, first_place int)
returns chunk_private.report[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  reports chunk_private.report[];
begin
  reports := array(
    select row(
      first_place + r.place - 1, q.parent_sync_job_id, r.chunk_id, r.claim_token, coalesce(r.success, true), r.result, r.error, coalesce(r.retryable, true), r.retry_after_seconds,
      nullif(r.next_chunks, '[]'), r.items_processed, r.items_total, r.next_state, r.throttled_seconds
    )::chunk_private.report
    from rows from (jsonb_to_recordset(completions) as (
      chunk_id bigint, claim_token uuid, success boolean, result jsonb, error text, retryable boolean, retry_after_seconds int,
      next_chunks jsonb, items_processed bigint, items_total bigint, next_state jsonb, throttled_seconds int
    )) with ordinality r (
      chunk_id, claim_token, success, result, error, retryable, retry_after_seconds, next_chunks, items_processed, items_total,
      next_state, throttled_seconds, place
    )
    left join lateral (select q.parent_sync_job_id from public.chunk_processing_queue q where q.id = r.chunk_id limit 1) q on true
    order by r.chunk_id, r.place
  );
  perform chunk_private.check_report(r.success, r.retry_after_seconds, r.next_chunks, r.items_processed, r.items_total, r.next_state,
    r.throttled_seconds)
  from unnest(reports) r
  where r.retry_after_seconds is not null or r.next_chunks is not null or r.items_processed is not null or r.items_total is not null
    or r.next_state is not null or r.throttled_seconds is not null;
  perform chunk_private.check_result(r.result) from unnest(reports) r where r.success and octet_length(r.result::text) > 200;
  if jsonb_path_exists(completions, '$[*].success ? (@ == null)') then
    raise exception using errcode = 'SC003', detail = 'success', message = 'success must be true or false, not null';
  elsif jsonb_path_exists(completions, '$[*].claim_next ? (@ == true)') then
    raise exception using errcode = 'SC003', detail = 'claim_next', message = 'claim_next goes with complete_chunk_job_safe only';
  end if;
  if exists (select from unnest(reports) r where r.chunk_id is null or r.claim_token is null) then
    raise exception using errcode = 'SC003', detail = 'completions', message = 'each item of completions needs chunk_id and claim_token';
  end if;
  return reports;
end
$$;
comment on function chunk_private.read_reports is
  'The items of a bulk report in order of their chunks, checked, with the defaults of complete_chunk_job_safe.';

create or replace function chunk_private.read_reports_apart(
  completions jsonb, out reports chunk_private.report[], out refusals jsonb[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  item record;
begin
  reports := array[]::chunk_private.report[];
  refusals := array_fill(null::jsonb, array[jsonb_array_length(completions)]);
  for item in select c.value, c.place::int from jsonb_array_elements(completions) with ordinality c (value, place) loop
    begin
      reports := reports || chunk_private.read_reports(jsonb_build_array(item.value), item.place);
    exception when sqlstate 'SC003' or sqlstate 'SC004' or data_exception then
      refusals[item.place] := jsonb_build_object(
        'chunk_id', case when jsonb_typeof(item.value) = 'object' then item.value -> 'chunk_id' end,
        'outcome', 'error', 'code', sqlstate, 'message', left(sqlerrm, 500)
      );
    end;
  end loop;
  reports := array(select r from unnest(reports) r order by r.chunk_id, r.place);
end
$$;
comment on function chunk_private.read_reports_apart is
  'What read_reports does, one item at a time, so that only the bad ones are refused: their answers stand at their places.';

create or replace function chunk_private.enter_gates(reports chunk_private.report[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job record;
  appended bigint := 0;
begin
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
      perform chunk_private.enter_alone(job.id);
    else
      perform chunk_private.enter_shared(job.id);
    end if;
  end loop;
end
$$;
comment on function chunk_private.enter_gates is
  'Enters the gates of the reported jobs in their order: alone where chunks are appended. SC004 for more than 100,000 of these.';
