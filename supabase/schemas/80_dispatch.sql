-- Dispatch: the webhooks that ask the processor to claim, and what became of them.

-- Vault and pg_net may be used by the owner of the migrations only, hence a definer. A webhook must never break the write
-- that asks for it: every failure ends in the table of dispatches, and the chunk stays claimable.
create or replace function chunk_private.dispatch(job public.sync_jobs, chunk_indexes bigint[])
returns int
language plpgsql
security definer -- reads the Vault and calls pg_net, which service_role may not
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  chunk_ids constant bigint[] := array(
    select q.id from public.chunk_processing_queue q
    where q.parent_sync_job_id = job.id and q.chunk_index = any (chunk_indexes) order by q.chunk_index
  );
  base_url text;
  processor_key text;
  chunk_id bigint;
  problem text;
  wait_seconds int;
  request_ids bigint[] := array[]::bigint[];
  problems text[] := array[]::text[];
  request_id bigint;
begin
  begin
    select max(s.decrypted_secret) filter (where s.name = 'project_url'),
      max(s.decrypted_secret) filter (where s.name = 'chunk_processor_key')
    into base_url, processor_key
    from vault.decrypted_secrets s where s.name in ('project_url', 'chunk_processor_key');
    if base_url is null or processor_key is null then
      problem := 'not configured: call configure_chunk_processing() with the project''s URL and a secret key';
    end if;
  exception when others then
    problem := 'the Vault cannot be read: ' || sqlerrm;
  end;
  foreach chunk_id in array chunk_ids loop
    request_id := null;
    if problem is null then
      wait_seconds := (
        select ceil(extract(epoch from q.ready_at - now()))::int
        from public.chunk_processing_queue q where q.id = chunk_id and q.ready_at > now()
      );
      begin
        request_id := net.http_post(
          url => base_url || '/functions/v1/background-sync-processor',
          body => jsonb_strip_nulls(
            jsonb_build_object('parent_sync_job_id', job.id, 'chunk_id', chunk_id, 'wait_seconds', wait_seconds)
          ),
          headers => jsonb_build_object('Content-Type', 'application/json', 'apikey', processor_key),
          timeout_milliseconds => 10000
        );
      exception
        when undefined_function or invalid_schema_name then
          problem := 'the extension pg_net is not installed';
        when others then
          problem := 'pg_net refused the request: ' || sqlerrm;
      end;
    end if;
    request_ids := request_ids || request_id;
    problems := problems || problem;
  end loop;
  insert into chunk_private.dispatches (job_id, owner_id, chunk_id, request_id, error)
  select job.id, job.owner_id, d.chunk_id, d.request_id, d.problem
  from unnest(chunk_ids, request_ids, problems) d (chunk_id, request_id, problem);
  return cardinality(array_remove(request_ids, null));
end
$$;
comment on function chunk_private.dispatch is
  'Asks pg_net for one webhook a chunk, sent after commit; returns how many it took. URL and key come from the Vault at each call. wait_seconds in it: the chunk''s retry is due then.';

create or replace function chunk_private.collect_dispatch_outcomes()
returns int
language plpgsql
security definer -- reads pg_net's answers, which service_role may not
set search_path = pg_catalog, pg_temp
as $$
declare
  collected int;
begin
  if to_regclass('net._http_response') is null
    or not exists (select from chunk_private.dispatches d where d.answered_at is null and d.request_id is not null) then
    return 0;
  end if;
  -- pg_net's tables are unlogged: after a crash they are empty and its ids begin again, hence the look at the times.
  update chunk_private.dispatches d
  set status_code = r.status_code,
      answered_at = r.created,
      error = case
        when r.timed_out then coalesce(r.error_msg, 'no answer in time')
        when r.error_msg is not null then r.error_msg
        when r.status_code >= 300 then left(format('HTTP %s: %s', r.status_code, r.content), 300)
      end
  from net._http_response r
  where r.id = d.request_id and r.created >= d.created_at and d.answered_at is null and d.request_id is not null;
  get diagnostics collected = row_count;
  update chunk_private.dispatches d
  set answered_at = now(), error = 'pg_net kept no answer'
  where d.answered_at is null and d.request_id is not null and d.created_at < now() - interval '5 minutes'
    and not exists (select from net.http_request_queue w where w.id = d.request_id);
  return collected;
end
$$;
comment on function chunk_private.collect_dispatch_outcomes is 'Copies the answers that pg_net has got to the dispatches; returns how many.';

create or replace function chunk_private.webhooks_waiting()
returns int
language plpgsql
stable
security definer -- reads pg_net's queue, which service_role may not
set search_path = pg_catalog, pg_temp
as $$
begin
  if to_regclass('net.http_request_queue') is null then
    return 0;
  end if;
  return (
    select count(*) from chunk_private.dispatches d
    join net.http_request_queue r on r.id = d.request_id
    where d.answered_at is null and d.request_id is not null
  );
exception when others then
  return 0; -- a pg_net that cannot be looked into; what cannot be sent says so itself
end
$$;
comment on function chunk_private.webhooks_waiting is 'How many of our webhooks pg_net has not sent yet.';

-- Sends webhooks for chunks that wait to be claimed, while fewer than 32 of ours wait in pg_net.
create or replace function chunk_private.dispatch_waiting(parent_sync_job_id uuid, overdue_only boolean)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  budget constant int := 32 - chunk_private.webhooks_waiting();
  went_well constant timestamptz := (
    select d.created_at from chunk_private.dispatches d
    where d.answered_at is not null and d.error is null
    order by d.created_at desc limit 1
  );
  page record;
  sent int := 0;
begin
  if budget <= 0 then
    return 0;
  end if;
  -- Each webhook that led to no claim doubles the wait for the next: 30 s, 1 min, 2 min … about an hour. One that is known
  -- to have failed is sent again sooner: at once, then after 5 s, 15 s, 35 s … 5 min, and as soon as another has gone well,
  -- for then what stood in the way is gone.
  for page in
    with overdue as (
      select s.job_id, s.chunk_index from chunk_private.slots s
      join chunk_private.lanes l on l.id = s.lane
      join public.sync_kinds k on k.kind = l.kind
      where not s.claimed and s.ready_at <= now() and k.handler is not null
        and (parent_sync_job_id is null or s.job_id = parent_sync_job_id)
        and (not overdue_only or s.dispatched_at is null
          or s.dispatched_at < now() - interval '28 seconds' * 2 ^ least(greatest(s.dispatch_count - 1, 0), 7)
          or s.dispatched_at < greatest(went_well, now() - interval '5 seconds' * (2 ^ least(s.dispatch_count - 1, 6) - 1))
            and exists (
              select from public.chunk_processing_queue q
              join chunk_private.dispatches d on d.created_at = s.dispatched_at and d.chunk_id = q.id
              where q.parent_sync_job_id = s.job_id and q.chunk_index = s.chunk_index and d.error is not null
            ))
      order by l.priority desc, s.ready_at, s.chunk_index
      limit budget
      for no key update of s skip locked
    ),
    marked as (
      update chunk_private.slots s
      set dispatched_at = now(), dispatch_count = s.dispatch_count + 1
      from overdue o
      where s.job_id = o.job_id and s.chunk_index = o.chunk_index
      returning s.job_id, s.chunk_index
    )
    select j as job, array_agg(m.chunk_index order by m.chunk_index) as chunk_indexes
    from marked m
    join public.sync_jobs j on j.id = m.job_id
    group by j.id
  loop
    sent := sent + chunk_private.dispatch(page.job, page.chunk_indexes);
  end loop;
  return sent;
end
$$;
comment on function chunk_private.dispatch_waiting is 'Sends webhooks for claimable chunks, or only for those whose last webhook has led to nothing; returns how many.';

create or replace function public.trigger_next_chunk_processing(parent_sync_job_id uuid default null)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  if parent_sync_job_id is not null and not exists (select from public.sync_jobs j where j.id = parent_sync_job_id) then
    raise exception using errcode = 'SC001', message = format('there is no sync job %s', parent_sync_job_id);
  end if;
  return chunk_private.dispatch_waiting(parent_sync_job_id, false);
end
$$;
comment on function public.trigger_next_chunk_processing is
  'Sends webhooks now for the chunks of a job, or of all, that wait to be claimed; returns how many were sent.';
