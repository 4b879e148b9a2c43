-- Release: which chunk may be claimed next. Dispatch: the webhook that says so.

-- Vault and pg_net may be used by the owner of the migrations only, hence a definer. A webhook must never break the write
-- that asks for it: every failure ends in the table of dispatches, and the chunk stays claimable.
create or replace function chunk_private.dispatch(job_id uuid, owner_id uuid, chunk_ids bigint[])
returns int
language plpgsql
security definer -- reads the Vault and calls pg_net, which service_role may not
set search_path = ''
as $$
#variable_conflict use_variable
declare
  base_url text;
  processor_key text;
  chunk_id bigint;
  problem text;
  request_ids bigint[] := '{}';
  problems text[] := '{}';
  request_id bigint;
begin
  begin
    select max(s.decrypted_secret) filter (where s.name = 'project_url'),
      max(s.decrypted_secret) filter (where s.name = 'chunk_processor_key')
    into base_url, processor_key
    from vault.decrypted_secrets s where s.name in ('project_url', 'chunk_processor_key');
    if base_url is null or processor_key is null then
      problem := 'not configured: call configure_chunk_processing() with the project''s URL and a secret key';
    elsif to_regproc('net.http_post') is null then
      problem := 'the extension pg_net is not installed';
    end if;
  exception when others then
    problem := 'the Vault cannot be read: ' || sqlerrm;
  end;
  foreach chunk_id in array chunk_ids loop
    request_id := null;
    if problem is null then
      begin
        request_id := net.http_post(
          url => base_url || '/functions/v1/background-sync-processor',
          body => jsonb_build_object('parent_sync_job_id', job_id, 'chunk_id', chunk_id),
          headers => jsonb_build_object('Content-Type', 'application/json', 'apikey', processor_key),
          timeout_milliseconds => 10000
        );
      exception when others then
        problem := 'pg_net refused the request: ' || sqlerrm;
      end;
    end if;
    request_ids := request_ids || request_id;
    problems := problems || problem;
  end loop;
  insert into chunk_private.dispatches (job_id, owner_id, chunk_id, request_id, error)
  select job_id, owner_id, d.chunk_id, d.request_id, d.problem
  from unnest(chunk_ids, request_ids, problems) d (chunk_id, request_id, problem);
  return cardinality(array_remove(request_ids, null));
end
$$;
comment on function chunk_private.dispatch is
  'Asks pg_net for one webhook a chunk, sent after commit; returns how many it took. URL and key come from the Vault at each call.';

-- Picks what freed slots go to: retries that are due, else chunks never released, else (unless they must be claimable now)
-- the retries that are due soonest, which then keep the slot. Never released chunks are released in order of id: those
-- before after_id, the chunk that gave the slot, are nearly always gone, so the first look starts there and skips their
-- dead index entries; the second finds what it missed.
create or replace function chunk_private.take_waiting(job_id uuid, after_id bigint, how_many int, claimable boolean)
returns bigint[]
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  taken bigint[];
begin
  taken := array(
    select q.id from public.chunk_processing_queue q
    where q.parent_sync_job_id = job_id and q.status = 'pending' and not q.released and q.ready_at <= now()
    order by q.ready_at, q.id limit how_many for no key update skip locked
  );
  if cardinality(taken) < how_many then
    taken := taken || array(
      select q.id from public.chunk_processing_queue q
      where q.parent_sync_job_id = job_id and q.status = 'pending' and not q.released and q.ready_at = 'infinity' and q.id > after_id
      order by q.id limit how_many - cardinality(taken) for no key update skip locked
    );
  end if;
  if cardinality(taken) < how_many and after_id > 0 then
    taken := taken || array(
      select q.id from public.chunk_processing_queue q
      where q.parent_sync_job_id = job_id and q.status = 'pending' and not q.released and q.ready_at = 'infinity' and q.id <= after_id
      order by q.id limit how_many - cardinality(taken) for no key update skip locked
    );
  end if;
  if cardinality(taken) < how_many and not claimable then
    taken := taken || array(
      select q.id from public.chunk_processing_queue q
      where q.parent_sync_job_id = job_id and q.status = 'pending' and not q.released and q.ready_at > now() and q.ready_at < 'infinity'
      order by q.ready_at, q.id limit how_many - cardinality(taken) for no key update skip locked
    );
  end if;
  return taken;
end
$$;
comment on function chunk_private.take_waiting is 'Locks the unreleased chunks of a job that freed slots go to, and returns their ids.';

create or replace function chunk_private.release(chunk_ids bigint[])
returns bigint[]
language sql
set search_path = ''
as $$
  with waiting as (
    select q.id, case when q.ready_at = 'infinity' then now() else q.ready_at end as ready_at, k.handler is not null as has_handler
    from public.chunk_processing_queue q
    join public.sync_kinds k on k.kind = q.kind
    where q.id = any ($1)
  ),
  released as (
    update public.chunk_processing_queue q
    set released = true,
        ready_at = w.ready_at,
        dispatched_at = case when w.has_handler and w.ready_at <= now() then now() end,
        dispatch_count = (w.has_handler and w.ready_at <= now())::int
    from waiting w
    where q.id = w.id
    returning q.id, q.dispatched_at
  )
  select coalesce(array_agg(r.id order by r.id) filter (where r.dispatched_at is not null), '{}') from released r;
$$;
comment on function chunk_private.release is
  'Gives slots to pending chunks that the caller has locked; returns the ids of those that want a webhook now.';

-- Only under the job's exclusive gate: with shared ones two transactions would each count the same free slot.
create or replace function chunk_private.fill_slots(job_id uuid)
returns bigint[]
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  free int;
begin
  -- A chunk in backoff that kept its slot for want of others gives it to those that have come since.
  update public.chunk_processing_queue q
  set released = false
  where q.id = any (array(
    select w.id from public.chunk_processing_queue w
    where w.parent_sync_job_id = job_id and w.status = 'pending' and w.released and w.ready_at > now()
    for no key update skip locked
  ));
  select j.max_concurrency
    - (select count(*) from public.chunk_processing_queue q where q.parent_sync_job_id = job_id and q.status = 'pending' and q.released)
    - (select count(*) from public.chunk_processing_queue q where q.parent_sync_job_id = job_id and q.status = 'processing')
  into free
  from public.sync_jobs j where j.id = job_id and j.status in ('pending', 'running');
  if free > 0 then
    return chunk_private.release(chunk_private.take_waiting(job_id, 0, free, false));
  end if;
  return '{}';
end
$$;
comment on function chunk_private.fill_slots is
  'Releases chunks of a pending or running job until max_concurrency are released or processing; returns the ids of those that want a webhook now.';

-- What a report does with the slots it has freed, under a shared gate: each freed slot goes to at most one chunk, so the
-- cap holds without counting. next_ids are locked for the caller to claim; to_dispatch want a webhook.
create or replace function chunk_private.pass_slots_on(
  job_id uuid, after_id bigint, freed int, wanted int, out next_ids bigint[], out to_dispatch bigint[]
)
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  unused int := freed;
begin
  next_ids := '{}';
  to_dispatch := '{}';
  if wanted > 0 then
    next_ids := chunk_private.take_waiting(job_id, after_id, least(freed, wanted), true);
    unused := freed - cardinality(next_ids);
    if cardinality(next_ids) < wanted then
      next_ids := next_ids || array(
        select q.id from public.chunk_processing_queue q
        where q.parent_sync_job_id = job_id and q.status = 'pending' and q.released and q.ready_at <= now()
        order by q.ready_at, q.id limit wanted - cardinality(next_ids) for no key update skip locked
      );
    end if;
  end if;
  if unused > 0 then
    to_dispatch := chunk_private.release(chunk_private.take_waiting(job_id, after_id, unused, false));
  end if;
end
$$;
comment on function chunk_private.pass_slots_on is
  'Gives freed slots of an active job to its next chunks; up to wanted of them are left for the caller to claim.';
