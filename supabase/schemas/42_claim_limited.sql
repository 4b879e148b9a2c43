-- Claiming chunks that share limits: what a claim does with the keys of the slots that it has taken.
--
-- A claim tries for each key. What it does not get it puts aside, so that it goes on to other chunks; and when there are none it
-- waits for one key, having no other. Under the lock it counts: what there is no room for is parked.

create or replace function chunk_private.keep_within_limits(
  inout job_ids uuid[], inout chunk_indexes bigint[], inout held text[], out aside_jobs uuid[], out aside_indexes bigint[], out parked boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
as $$
#variable_conflict use_variable
declare
  taken record;
  rules record;
  room int;
  kept_jobs uuid[] := array[]::uuid[];
  kept_indexes bigint[] := array[]::bigint[];
begin
  aside_jobs := array[]::uuid[];
  aside_indexes := array[]::bigint[];
  parked := false;
  for taken in
    select s.limit_key, array_agg(s.job_id order by t.place) as jobs, array_agg(s.chunk_index order by t.place) as indexes, count(*)::int as slots
    from unnest(job_ids, chunk_indexes) with ordinality t (job_id, chunk_index, place)
    join chunk_private.slots s on s.job_id = t.job_id and s.chunk_index = t.chunk_index
    group by s.limit_key
    order by s.limit_key
  loop
    if taken.limit_key is null then
      room := taken.slots;
    elsif taken.limit_key = any (held) or chunk_private.try_limit(taken.limit_key) then
      held := array_remove(held, taken.limit_key) || taken.limit_key;
      rules := chunk_private.limit_of(taken.limit_key);
      room := case
        when rules.opens_at > now() then 0
        when rules.most is null then taken.slots
        -- Those taken are claimed already.
        else greatest(0, least(taken.slots, rules.most - chunk_private.limit_used(taken.limit_key) + taken.slots))
      end;
      if room < taken.slots then
        update chunk_private.slots s
        set claimed = false, claim_id = null, parked = true
        from unnest(taken.jobs[room + 1:], taken.indexes[room + 1:]) t (job_id, chunk_index)
        where s.job_id = t.job_id and s.chunk_index = t.chunk_index;
        parked := true;
      end if;
    else
      room := 0;
      aside_jobs := aside_jobs || taken.jobs;
      aside_indexes := aside_indexes || taken.indexes;
    end if;
    kept_jobs := kept_jobs || taken.jobs[:room];
    kept_indexes := kept_indexes || taken.indexes[:room];
  end loop;
  job_ids := kept_jobs;
  chunk_indexes := kept_indexes;
end
$$;
comment on function chunk_private.keep_within_limits is
  'Of slots that a claim has taken, keeps those that their limit keys have room for, and parks the others; those whose key somebody has are put aside. held: the keys that the claim has.';

create or replace function chunk_private.wait_for_room(
  inout job_ids uuid[], inout chunk_indexes bigint[], inout held text[], how_many int, out parked boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  first record;
  kept record;
begin
  -- Those of the first one's key and lane; the others are given back.
  select s.limit_key, s.lane into first from chunk_private.slots s where s.job_id = job_ids[1] and s.chunk_index = chunk_indexes[1];
  perform chunk_private.unclaim(array_agg(s.job_id), array_agg(s.chunk_index))
  from unnest(job_ids, chunk_indexes) with ordinality t (job_id, chunk_index, place)
  join chunk_private.slots s on s.job_id = t.job_id and s.chunk_index = t.chunk_index
  where (s.limit_key, s.lane) <> (first.limit_key, first.lane) or t.place > how_many;
  select array_agg(s.job_id order by t.place), array_agg(s.chunk_index order by t.place) into job_ids, chunk_indexes
  from unnest(job_ids, chunk_indexes) with ordinality t (job_id, chunk_index, place)
  join chunk_private.slots s on s.job_id = t.job_id and s.chunk_index = t.chunk_index
  where s.claimed;
  parked := false;
  if not chunk_private.wait_a_moment_for_limit(first.limit_key) then
    perform chunk_private.unclaim(job_ids, chunk_indexes);
    job_ids := array[]::uuid[];
    chunk_indexes := array[]::bigint[];
    return;
  end if;
  held := array[first.limit_key];
  kept := chunk_private.keep_within_limits(job_ids, chunk_indexes, held);
  parked := kept.parked;
  job_ids := kept.job_ids;
  chunk_indexes := kept.chunk_indexes;
end
$$;
comment on function chunk_private.wait_for_room is
  'Of slots that a claim has put aside, waits a moment for the key of the first, and keeps those that it has room for; the others are given back. The claim has no key.';

create or replace function chunk_private.claim_in_lanes(
  worker text, how_many int, job_id uuid, kinds text[], lanes bigint[], wanted_lease int, with_claim_id uuid
)
returns chunk_private.claimed_chunk[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  claimed chunk_private.claimed_chunk[] := array[]::chunk_private.claimed_chunk[];
  lane record;
  taken record;
  kept record;
  got int;
  held text[] := array[]::text[];
  aside_jobs uuid[] := array[]::uuid[];
  aside_indexes bigint[] := array[]::bigint[];
  aside_lane record;
  parked boolean := false;
begin
  for lane in
    select l.id, l.handler, coalesce(wanted_lease, l.lease_seconds) as lease_seconds, l.floor
    from chunk_private.claim_lanes l
    where l.kind = any (kinds) and (lanes is null or l.id = any (lanes))
    order by l.priority desc, random()
  loop
    loop
      taken := chunk_private.take_slots(lane.id, lane.floor, how_many - cardinality(claimed), job_id, with_claim_id);
      exit when taken.job_ids is null;
      if taken.limited then
        kept := chunk_private.keep_within_limits(taken.job_ids, taken.chunk_indexes, held);
        held := kept.held;
        parked := parked or kept.parked;
        if aside_jobs = '{}' and kept.aside_jobs <> '{}' then
          aside_lane := lane;
        end if;
        aside_jobs := aside_jobs || kept.aside_jobs;
        aside_indexes := aside_indexes || kept.aside_indexes;
        taken.job_ids := kept.job_ids;
        taken.chunk_indexes := kept.chunk_indexes;
      end if;
      got := cardinality(claimed);
      claimed := claimed || chunk_private.start_attempts(taken.job_ids, taken.chunk_indexes, worker, lane.handler, lane.lease_seconds);
      -- More of this lane when limits have left room in the batch; not when an outdated report holds a chunk: it would be found again.
      exit when not taken.limited or cardinality(claimed) = how_many or cardinality(claimed) < got + cardinality(taken.job_ids)
        or cardinality(aside_jobs) >= 100;
    end loop;
    exit when cardinality(claimed) = how_many or cardinality(aside_jobs) >= 100;
  end loop;

  -- What was put aside: without anything else, it is waited for.
  if aside_jobs <> '{}' then
    if claimed = '{}' and held = '{}' then
      kept := chunk_private.wait_for_room(aside_jobs, aside_indexes, held, how_many);
      held := kept.held;
      parked := parked or kept.parked;
      if cardinality(kept.job_ids) > 0 then
        claimed := chunk_private.start_attempts(kept.job_ids, kept.chunk_indexes, worker, aside_lane.handler, aside_lane.lease_seconds);
      end if;
    else
      perform chunk_private.unclaim(aside_jobs, aside_indexes);
    end if;
  end if;
  if parked then
    perform chunk_private.settle_limit(h.key) from unnest(held) h (key);
  end if;
  return claimed;
end
$$;
comment on function chunk_private.claim_in_lanes is
  'Claims up to how_many chunks of these kinds, or of one job, the lanes of the highest priority first.';
