-- Dispatch: the webhooks that ask the processor to claim, and what became of them.

-- Vault and pg_net may be used by the owner of the migrations only, hence a definer. A webhook must never break the write
-- that asks for it: every failure ends in the table of dispatches, and the chunk stays claimable.
create or replace function chunk_private.dispatch(job public.sync_jobs, chunk_indexes bigint[], more boolean default false)
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
        select ceil(extract(epoch from w.ready_at - now()))::int
        from (
          select greatest(q.ready_at, case when job.limit_key is not null then
            (select l.blocked_until from public.sync_limits l where l.key = job.limit_key) end) as ready_at
          from public.chunk_processing_queue q where q.id = chunk_id
        ) w where w.ready_at > now()
      );
      begin
        request_id := net.http_post(
          url => base_url || '/functions/v1/background-sync-processor',
          body => jsonb_strip_nulls(jsonb_build_object(
            'parent_sync_job_id', job.id, 'chunk_id', chunk_id, 'wait_seconds', wait_seconds, 'more', case when more then true end
          )),
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
  insert into chunk_private.dispatches (job_id, owner_id, chunk_id, request_id, error, by_user)
  select job.id, job.owner_id, d.chunk_id, d.request_id, d.problem,
    not chunk_private.is_service() and coalesce(job.owner_id = auth.uid(), false) -- a limit key wakes others' chunks too
  from unnest(chunk_ids, request_ids, problems) d (chunk_id, request_id, problem);
  return cardinality(array_remove(request_ids, null));
end
$$;
comment on function chunk_private.dispatch is
  'Asks pg_net for one webhook a chunk, sent after commit; returns how many it took. URL and key come from the Vault at each call. wait_seconds in it: the chunk''s retry is due then. more: further webhooks are held back until this one has arrived.';

-- pg_net keeps its answers for six hours, and its index is by time: only those are read that can be to an open question.
-- Its tables are unlogged: after a crash they are empty and its ids begin again. So the first pass on a server that has
-- started anew lets nothing that was asked before take an answer from after the start, and of two questions with one id only
-- the later can be answered.
create or replace function chunk_private.collect_dispatch_outcomes()
returns int
language plpgsql
security definer -- reads pg_net's answers, which service_role may not
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  server_began constant timestamptz := pg_postmaster_start_time();
  restarted constant boolean := exists (select from chunk_private.watchdog w where w.server_began is distinct from server_began);
  open_since constant timestamptz := (
    select min(d.created_at) from chunk_private.dispatches d where d.answered_at is null and d.request_id is not null
  );
  collected int;
begin
  if open_since is null or to_regclass('net._http_response') is null then
    return 0;
  end if;
  update chunk_private.dispatches d
  set answered_at = now(), error = 'pg_net kept no answer'
  where d.answered_at is null and d.request_id is not null and exists (
    select from chunk_private.dispatches n where n.request_id = d.request_id and n.answered_at is null and n.id > d.id
  );
  update chunk_private.dispatches d
  set status_code = r.status_code,
      answered_at = r.created,
      error = case
        when r.timed_out then coalesce(r.error_msg, 'no answer in time')
        when r.error_msg is not null then r.error_msg
        when r.status_code >= 300 then left(format('HTTP %s: %s', r.status_code, r.content), 300)
      end
  from net._http_response r
  where r.created >= open_since and r.id = d.request_id and d.answered_at is null and d.request_id is not null
    and r.created >= d.created_at and not (restarted and d.created_at < server_began and r.created >= server_began);
  get diagnostics collected = row_count;
  update chunk_private.dispatches d
  set answered_at = now(), error = 'pg_net kept no answer'
  where d.answered_at is null and d.request_id is not null
    and d.created_at < greatest(now() - interval '5 minutes', case when restarted then server_began end)
    and not exists (select from net.http_request_queue w where w.id = d.request_id);
  return collected;
end
$$;
comment on function chunk_private.collect_dispatch_outcomes is 'Copies the answers that pg_net has got to the dispatches; returns how many.';

create or replace function chunk_private.unsent_webhooks(out webhooks int, out oldest_at timestamptz)
language plpgsql
stable
security definer -- reads pg_net's queue, which service_role may not
set search_path = pg_catalog, pg_temp
as $$
begin
  if to_regclass('net.http_request_queue') is null then
    webhooks := 0;
    return;
  end if;
  select count(*), min(d.created_at) into webhooks, oldest_at
  from chunk_private.dispatches d
  join net.http_request_queue r on r.id = d.request_id
  where d.answered_at is null and d.request_id is not null;
exception when others then
  webhooks := 0; -- a pg_net that cannot be looked into; what cannot be sent says so itself
end
$$;
comment on function chunk_private.unsent_webhooks is 'How many of our webhooks pg_net has not sent yet, and since when the oldest waits.';
