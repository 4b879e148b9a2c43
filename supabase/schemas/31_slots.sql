-- Slots: handing them out, passing them on, filling free ones.

-- pg_net cannot send later. So the webhook of a retry that is due soon goes out at once, and the processor waits; else the
-- last retries of a job, when no report follows that could start them, would wait for the watchdog.
create or replace function chunk_private.hand_out(
  job public.sync_jobs, chunk_indexes bigint[], ready_ats timestamptz[], first_claim_id uuid, sent_until timestamptz,
  on_their_way bigint[] default '{}', freed bigint[] default '{}'
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  claims constant int := (first_claim_id is not null)::int;
  lane record;
  to_dispatch bigint[] := array[]::bigint[];
begin
  select l.id, k.handler into lane
  from chunk_private.lanes l
  join public.sync_kinds k on k.kind = l.kind
  where l.kind = job.kind and l.priority = job.priority;
  if lane.handler is not null then
    to_dispatch := array(
      select n.chunk_index from unnest(chunk_indexes, ready_ats) with ordinality n (chunk_index, ready_at, place)
      where n.ready_at <= sent_until and n.place > claims and (job.limit_key is null or n.ready_at > now())
    );
  end if;
  with slot as materialized (
    select n.chunk_index, n.ready_at, n.freed, n.place <= claims as claimed, job.limit_key is not null and n.ready_at <= now() as parked,
      case when n.place = 1 then first_claim_id end as claim_id, n.chunk_index = any (to_dispatch) as sends
    from unnest(chunk_indexes, ready_ats, freed) with ordinality n (chunk_index, ready_at, freed, place)
    where n.chunk_index is not null
  ),
  moved as (
    update chunk_private.slots s
    set chunk_index = n.chunk_index, lane = lane.id, ready_at = n.ready_at, claimed = n.claimed, parked = n.parked, limit_key = job.limit_key,
        claim_id = n.claim_id, dispatched_at = case when n.sends then now() end, dispatch_count = n.sends::int
    from slot n
    where s.job_id = job.id and s.chunk_index = n.freed and s.chunk_index = any (freed) -- so written, no others are read
    returning n.chunk_index
  )
  insert into chunk_private.slots (job_id, chunk_index, lane, ready_at, claimed, parked, limit_key, claim_id, dispatched_at, dispatch_count)
  select job.id, n.chunk_index, lane.id, n.ready_at, n.claimed, n.parked, job.limit_key, n.claim_id, case when n.sends then now() end, n.sends::int
  from slot n where n.chunk_index not in (select m.chunk_index from moved m);
  if on_their_way <> '{}' then
    to_dispatch := array(select d.chunk_index from unnest(to_dispatch) d (chunk_index) where d.chunk_index <> all (on_their_way));
  end if;
  if cardinality(to_dispatch) > 0 then
    perform chunk_private.dispatch(job, to_dispatch);
  end if;
end
$$;
comment on function chunk_private.hand_out is
  'Hands out slots: each chunk gets one and, if it may be claimed by sent_until, a webhook, unless one is on its way. With first_claim_id the first one is claimed at once. Those of a job with a limit_key are parked, and their webhook waits for settle_limit(). The slots of freed chunks become theirs.';

-- What a report does with the slots it has freed, under a shared gate: each goes to at most one chunk, so the cap holds
-- without counting.
create or replace function chunk_private.pass_slots_on(job public.sync_jobs, freed bigint[], next_claim_id uuid)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  next record;
  free int;
  later record;
  to_claim bigint;
begin
  if job.status not in ('pending', 'running') then
    delete from chunk_private.slots s where s.job_id = job.id and s.chunk_index = any (freed);
    return null;
  end if;
  if job.limit_key is not null then
    next_claim_id := null; -- it may be another job's turn: settle_report() decides
  end if;
  next := chunk_private.take_claimable(job, cardinality(freed), false);
  free := cardinality(freed) - cardinality(next.chunk_indexes);
  to_claim := case when next_claim_id is not null then next.chunk_indexes[1] end;
  if free > 0 then
    if next_claim_id is not null and to_claim is null then -- claim a chunk that has a slot already
      update chunk_private.slots s
      set claimed = true, claim_id = next_claim_id
      where s.ctid = (
        select w.ctid from chunk_private.slots w
        where w.job_id = job.id and not w.claimed and w.ready_at <= now()
        order by w.ready_at, w.chunk_index limit 1 for no key update skip locked
      )
      returning s.chunk_index into to_claim;
      next_claim_id := null;
    end if;
    -- The free slots wait with retries that are not due.
    later := chunk_private.take_returned(job.id, 'infinity', free);
    next.chunk_indexes := next.chunk_indexes || later.chunk_indexes;
    next.ready_ats := next.ready_ats || later.ready_ats;
  end if;
  if next.chunk_indexes && freed then -- a retry that is due at once: its slot cannot move to itself
    delete from chunk_private.slots s where s.job_id = job.id and s.chunk_index = any (freed);
    freed := '{}';
  end if;
  if cardinality(next.chunk_indexes) > 0 then
    perform chunk_private.hand_out(job, next.chunk_indexes, next.ready_ats, next_claim_id, now() + interval '25 seconds', freed => freed);
  end if;
  delete from chunk_private.slots s
  where s.job_id = job.id and s.chunk_index = any (freed[cardinality(next.chunk_indexes) + 1 :]);
  return to_claim;
end
$$;
comment on function chunk_private.pass_slots_on is
  'Gives the slots of ended chunks to the job''s next ones, if it still runs. With next_claim_id it returns the index of one whose slot it has claimed: the caller starts its attempt.';

-- A handler that is down fails whatever it is given: the slot stays with the chunk that has failed, or lets the next one wait as
-- long, so that the outage costs the chunks in the slots and no others.
create or replace function chunk_private.rest_slot(job public.sync_jobs, freed bigint, attempts int)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  rested_at timestamptz;
  next record;
begin
  delete from chunk_private.slots s where s.job_id = job.id and s.chunk_index = freed;
  if job.status not in ('pending', 'running') then
    return;
  end if;
  delete from chunk_private.returned_chunks r where r.job_id = job.id and r.chunk_index = freed returning r.ready_at into rested_at;
  if found then
    perform chunk_private.hand_out(job, array[freed], array[rested_at], null, now() + interval '25 seconds');
    return;
  end if;
  rested_at := now() + (select chunk_private.backoff(k.retry_delay_seconds, attempts) from public.sync_kinds k where k.kind = job.kind);
  next := chunk_private.take_claimable(job, 1, false);
  if cardinality(next.chunk_indexes) = 0 then
    next := chunk_private.take_returned(job.id, 'infinity', 1);
  end if;
  if cardinality(next.chunk_indexes) > 0 then
    perform chunk_private.hand_out(job, next.chunk_indexes, array[greatest(rested_at, next.ready_ats[1])], null, now());
  end if;
end
$$;
comment on function chunk_private.rest_slot is
  'Lets the slot of a chunk that has failed rest: until that chunk''s retry, or for as long as one would wait.';

-- Or pausing and resuming a job again and again would send as many webhooks.
create or replace function chunk_private.webhooks_on_their_way(job_id uuid)
returns bigint[]
language plpgsql
stable
security definer -- reads pg_net's queue, which service_role may not
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  if not exists (select from chunk_private.dispatches d where d.job_id = job_id) or to_regclass('net.http_request_queue') is null then
    return array[]::bigint[];
  end if;
  return array(
    select q.chunk_index from net.http_request_queue r
    join chunk_private.dispatches d on d.request_id = r.id
    join public.chunk_processing_queue q on q.id = d.chunk_id
    where d.job_id = job_id and d.answered_at is null
  );
exception when others then
  return array[]::bigint[]; -- a pg_net that cannot be looked into
end
$$;
comment on function chunk_private.webhooks_on_their_way is 'Of which chunks of a job pg_net has a webhook that it has not sent yet.';

-- Only alone in the job's gate: of two beside each other each would count the same free slot.
create or replace function chunk_private.fill_slots(job_id uuid)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job public.sync_jobs;
  shared record;
  slots_from bigint;
  free int;
  next record;
  later record;
begin
  select j.* into job from public.sync_jobs j where j.id = job_id and j.status in ('pending', 'running');
  if not found then
    return 0;
  end if;
  shared := chunk_private.limit_of(job.limit_key);
  slots_from := chunk_private.slots_from(job_id);
  -- A chunk in backoff that kept its slot for want of others gives it to those that have come since.
  with later as materialized (
    select w.chunk_index from chunk_private.slots w
    where w.job_id = job_id and w.chunk_index >= slots_from and not w.claimed and w.ready_at > now()
      and (w.limit_key is null or w.ready_at <> shared.opens_at) -- which waits for the end of a block
    for update skip locked
  ),
  given_up as (
    delete from chunk_private.slots s using later l
    where s.job_id = job_id and s.chunk_index = l.chunk_index
    returning s.ready_at, s.chunk_index
  )
  insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
  select job_id, g.ready_at, g.chunk_index from given_up g;
  free := greatest(0, least(job.max_concurrency, shared.most) - (
    select count(*)::int from chunk_private.slots s where s.job_id = job_id and s.chunk_index >= slots_from
  ));
  next := chunk_private.take_claimable(job, free, true);
  later := chunk_private.take_returned(job_id, 'infinity', free - cardinality(next.chunk_indexes));
  next.chunk_indexes := next.chunk_indexes || later.chunk_indexes;
  -- What is not due yet was waited for since it failed, or is the watchdog's: no webhook.
  perform chunk_private.hand_out(job, next.chunk_indexes, next.ready_ats || later.ready_ats, null, now(),
    chunk_private.webhooks_on_their_way(job_id));
  return cardinality(next.chunk_indexes);
end
$$;
comment on function chunk_private.fill_slots is
  'Gives the free slots of a pending or running job to its next chunks, to no more than may be processing of its limit key; returns how many.';

create or replace function chunk_private.forget_slots()
returns trigger
language plpgsql
security definer -- whoever may delete a job need not have rights on what is inside
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from chunk_private.slots s using deleted_jobs d where s.job_id = d.id;
  return null;
end
$$;
comment on function chunk_private.forget_slots is 'Deletes the slots of deleted jobs.';
do $$
begin
  -- Asked first: making a trigger again would wait for all who write jobs.
  if not exists (select from pg_trigger t where t.tgname = 'sync_jobs_forget_slots' and t.tgrelid = 'public.sync_jobs'::regclass) then
    create trigger sync_jobs_forget_slots after delete on public.sync_jobs
      referencing old table as deleted_jobs for each statement execute function chunk_private.forget_slots();
  end if;
end
$$;
