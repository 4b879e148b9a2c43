-- Claiming many chunks at once: the same as a claim, set by set.

-- Reports and heartbeats that had to wait for a chunk, and then find their claim outdated, have locked it all the same until
-- they end, and may meanwhile wait for other chunks. So a claim that has locks which they could wait for (of other chunks, of
-- counters) waits for no chunk.
create or replace function chunk_private.hold_returned(job_id uuid, chunk_index bigint)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  perform 1 from public.chunk_processing_queue q
  where q.parent_sync_job_id = job_id and q.chunk_index = chunk_index for no key update skip locked;
  return found;
end
$$;
comment on function chunk_private.hold_returned is
  'Locks a chunk that was claimed before, unless somebody with an outdated claim holds it just now; says whether it did.';

create or replace function chunk_private.unclaim(job_ids uuid[], chunk_indexes bigint[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
as $$
#variable_conflict use_variable
begin
  update chunk_private.slots s
  set claimed = false, claim_id = null
  from unnest(job_ids, chunk_indexes) t (job_id, chunk_index)
  where s.job_id = t.job_id and s.chunk_index = t.chunk_index;
end
$$;
comment on function chunk_private.unclaim is 'Gives back the slots of chunks that could not be held.';

create or replace function chunk_private.take_slots(
  lane bigint, floor timestamptz, how_many int, parent_sync_job_id uuid, with_claim_id uuid, out job_ids uuid[], out chunk_indexes bigint[],
  out limited boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  taken record;
begin
  floor := case when parent_sync_job_id is null then floor else '-infinity' end;
  limited := false;
  loop
    with slot as (
      update chunk_private.slots s
      set claimed = true, claim_id = with_claim_id
      where s.ctid = any (case when parent_sync_job_id is null then array(
          select p.ctid from chunk_private.slots p
          where p.lane = lane and not p.claimed and not p.parked and p.ready_at >= floor and p.ready_at <= now()
          order by p.ready_at, p.chunk_index limit how_many for no key update skip locked
        ) else array(
          select p.ctid from chunk_private.slots p
          where p.job_id = parent_sync_job_id and p.chunk_index >= chunk_private.slots_from(parent_sync_job_id) and p.lane = lane
            and (p.claimed or p.parked) is false and p.ready_at <= now() -- so written, it is not read by the claim index
          order by p.ready_at, p.chunk_index limit how_many for no key update skip locked
        ) end)
      returning s.job_id, s.chunk_index, s.ready_at, s.limit_key
    )
    select array_agg(t.job_id order by t.ready_at, t.chunk_index) as job_ids,
      array_agg(t.chunk_index order by t.ready_at, t.chunk_index) as chunk_indexes, count(*)::int as slots, max(t.ready_at) as newest,
      count(t.limit_key) > 0 as limited
    into taken from slot t;
    job_ids := job_ids || taken.job_ids;
    chunk_indexes := chunk_indexes || taken.chunk_indexes;
    limited := limited or taken.limited;
    how_many := how_many - taken.slots;
    if taken.newest > floor + interval '50 milliseconds' and parent_sync_job_id is null then
      perform chunk_private.remember_floor(lane, taken.newest, floor = '-infinity');
    end if;
    exit when how_many = 0 or floor = '-infinity';
    floor := '-infinity';
  end loop;
end
$$;
comment on function chunk_private.take_slots is 'Claims the slots of up to how_many claimable chunks of a lane, those that wait longest first, and returns whose they are, or nulls; limited: whether one has a limit key.';

create or replace function chunk_private.start_attempts(
  job_ids uuid[], chunk_indexes bigint[], worker text, handler text, lease_seconds int
)
returns chunk_private.claimed_chunk[]
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
as $$
#variable_conflict use_variable
declare
  claimed chunk_private.claimed_chunk[];
  starting uuid[];
begin
  with chunk as (
    update public.chunk_processing_queue q
    set status = 'processing', attempts = least(q.attempts, q.max_retries) + 1, claim_token = gen_random_uuid(), worker_id = worker,
        locked_until = now() + make_interval(secs => lease_seconds), started_at = now(), updated_at = now()
    from unnest(job_ids, chunk_indexes) with ordinality t (job_id, chunk_index, place)
    cross join lateral (select j.payload, j.limit_key, j.status from public.sync_jobs j where j.id = t.job_id limit 1) j
    where q.parent_sync_job_id = t.job_id and q.chunk_index = t.chunk_index
      and (q.started_at is null or chunk_private.hold_returned(t.job_id, t.chunk_index)) -- of t: after the join, not for all chunks
    returning q.id, q.parent_sync_job_id, q.kind, q.chunk_index, q.attempts, q.max_retries, q.payload, j.payload as job_payload,
      q.owner_id, q.claim_token, q.locked_until, q.checkpoint, j.limit_key, j.status as job_status, t.place
  )
  select
    coalesce(array_agg(row(c.id, c.parent_sync_job_id, c.kind, handler, c.chunk_index, c.attempts, 1 + c.max_retries, coalesce(c.payload, c.job_payload),
      c.job_payload, c.owner_id, c.claim_token, c.locked_until, c.checkpoint, c.limit_key)::chunk_private.claimed_chunk order by c.place), '{}'),
    array_agg(c.parent_sync_job_id) filter (where c.job_status = 'pending')
  into claimed, starting
  from chunk c;
  if starting is not null then
    perform chunk_private.start_jobs(starting);
  end if;
  if cardinality(claimed) < cardinality(job_ids) then
    perform chunk_private.unclaim(array_agg(t.job_id), array_agg(t.chunk_index))
    from unnest(job_ids, chunk_indexes) t (job_id, chunk_index)
    where (t.job_id, t.chunk_index) not in (select c.parent_sync_job_id, c.chunk_index from unnest(claimed) c);
  end if;
  return claimed;
end
$$;
comment on function chunk_private.start_attempts is 'What start_attempt does, for many chunks: in the order given, without those that cannot be held.';

create or replace function public.claim_chunk_jobs_safe(
  worker_id text, batch_size int, parent_sync_job_id uuid default null, kinds text[] default null, lease_seconds int default null,
  claim_id uuid default null
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
  earlier constant chunk_private.claimed_chunk[] := chunk_private.begin_claim(worker_id, parent_sync_job_id, lease_seconds, claim_id);
  asked_kinds constant text[] := kinds;
  lanes bigint[];
  claimed chunk_private.claimed_chunk[];
begin
  perform chunk_private.check_isolation('claim_chunk_jobs_safe');
  perform chunk_private.check_range('batch_size', coalesce(batch_size, 0), 1, 100);
  if cardinality(earlier) > 0 then
    return to_jsonb(earlier);
  end if;
  if cardinality(kinds) is distinct from 1 then -- one is checked below, if nothing was found
    select s.kinds, s.lanes into kinds, lanes from chunk_private.lanes_to_search(kinds, parent_sync_job_id) s;
  end if;
  claimed := chunk_private.claim_in_lanes(worker_id, batch_size, parent_sync_job_id, kinds, lanes, lease_seconds, claim_id);
  if claimed = '{}' and parent_sync_job_id is not null then
    claimed := chunk_private.claim_by_job(worker_id, batch_size, parent_sync_job_id, kinds, lease_seconds, claim_id);
  end if;
  if claimed = '{}' then
    perform chunk_private.check_kinds(kinds);
    perform chunk_private.say_when_to_ask_again(asked_kinds, parent_sync_job_id);
  end if;
  return to_jsonb(claimed);
end
$$;
comment on function public.claim_chunk_jobs_safe is
  'Claims up to batch_size (at most 100) chunks at once: a JSON array of what claim_next_chunk_job_safe returns. When there are none, but some wait for a place of their limit key, the API''s header Chunks-Ask-Again-Ms says when to ask again.';
