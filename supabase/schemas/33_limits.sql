-- Limits: how many chunks of all jobs with one limit_key may be processing, and whose turn it is.
--
-- A slot of such a job is born parked, where no claim sees it. settle_limit wakes slots, the longest parked first, and is the last
-- act of whatever makes, frees or deletes slots. What it brings about is a level: in each lane at least as many slots are awake
-- and due as there is room for. So whatever a claim looks for, it finds a slot while there is room; and the claim counts again,
-- under the key's lock, and parks what there is no room for. Room is counted from the claimed slots: there is no counter to drift.

create or replace function chunk_private.limit_of(limit_key text, out most int, out opens_at timestamptz)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  select l.max_concurrency, case when l.blocked_until > now() then least(l.blocked_until, now() + interval '7 days') end into most, opens_at
  from public.sync_limits l where l.key = limit_key;
  opens_at := coalesce(opens_at, now());
  if most is null then
    most := (select min(k.limit_each) from public.sync_kinds k where k.limit_each is not null and starts_with(limit_key, k.kind || ':'));
  end if;
end
$$;
comment on function chunk_private.limit_of is
  'How many chunks of a limit key may be processing at once (null: any number), and from when on they may be claimed.';

create or replace function chunk_private.limit_key_of(job public.sync_jobs, limit_by text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when limit_by = 'owner_id' then (job).kind || ':' || coalesce((job).owner_id::text, '')
    when limit_by is not null then (job).kind || ':' || coalesce((job).owner_id::text, '') || ':' || case
      when length(v.value) > 200 then left(v.value, 100) || ':' || md5(v.value) else coalesce(v.value, '') end
  end
  from (select (job).payload ->> limit_by as value) v;
$$;
comment on function chunk_private.limit_key_of is 'The key that a kind''s limit_by gives to a job: kind:owner:value, or kind:owner. No user can make one of another owner.';

create or replace function chunk_private.limit_key_meant(limit_key text, job public.sync_jobs, limit_by text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if limit_key is not null and not chunk_private.is_service() then
    raise exception using errcode = 'SC003', detail = 'limit_key',
      message = 'limit_key is for the service: a user''s job has the one that its kind''s limit_by makes';
  elsif length(limit_key) not between 1 and 500 then
    raise exception using errcode = 'SC003', detail = 'limit_key', message = 'limit_key must be a text of 1 to 500 characters, or null';
  end if;
  return coalesce(limit_key, chunk_private.limit_key_of(job, limit_by));
end
$$;
comment on function chunk_private.limit_key_meant is 'The limit key of a new job: the one given, which only the service may, else its kind''s.';

-- Steps from lane to lane through the index: of a thousand parked slots it reads one a lane.
create or replace function chunk_private.limit_lanes(limit_key text, parked boolean)
returns setof bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  lane bigint := (select min(s.lane) from chunk_private.slots s where s.limit_key = limit_key and not s.claimed and s.parked = parked);
begin
  while lane is not null loop
    return next lane;
    lane := (
      select min(s.lane) from chunk_private.slots s
      where s.limit_key = limit_key and not s.claimed and s.parked = parked and s.lane > lane
    );
  end loop;
end
$$;
comment on function chunk_private.limit_lanes is 'The lanes in which slots of a limit key wait, parked or awake.';

create or replace function chunk_private.limit_used(limit_key text)
returns int
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  return (select count(*)::int from chunk_private.slots s where s.limit_key = limit_key and s.claimed);
end
$$;
comment on function chunk_private.limit_used is 'How many chunks of a limit key are processing.';

create or replace function chunk_private.slots_to_wake(limit_key text)
returns table (lane bigint, how_many int, wakes_at timestamptz)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  rules constant record := chunk_private.limit_of(limit_key);
  room constant int := rules.most - chunk_private.limit_used(limit_key); -- null: without end
begin
  if room <= 0 then
    return;
  end if;
  wakes_at := rules.opens_at;
  for lane in select l.lane from chunk_private.limit_lanes(limit_key, true) l (lane) loop
    how_many := room - (
      select count(*) from (
        select from chunk_private.slots s
        where s.limit_key = limit_key and s.claimed < true and not s.parked -- so written, it is not read by the claim index
          and s.lane = lane and s.ready_at <= rules.opens_at
        limit room
      ) a
    );
    if how_many > 0 or room is null then
      return next;
    end if;
  end loop;
end
$$;
comment on function chunk_private.slots_to_wake is
  'In which lanes fewer slots of a limit key are awake than there is room for: how many are missing (null: all), and from when on they may be claimed.';

-- A job that somebody deletes just now is left alone: a webhook for it would wait for that.
create or replace function chunk_private.wake_slots(limit_key text, lane bigint, how_many int, wakes_at timestamptz)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
as $$
#variable_conflict use_variable
declare
  job_ids uuid[];
  chunk_indexes bigint[];
  calls uuid[] := array[]::uuid[];
begin
  select array_agg(p.job_id), array_agg(p.chunk_index) into job_ids, chunk_indexes
  from (
    select s.job_id, s.chunk_index from chunk_private.slots s
    where s.limit_key = limit_key and not s.claimed and s.parked and s.lane = lane
    order by s.ready_at, s.chunk_index limit how_many for update skip locked
  ) p;
  if job_ids is null then
    return;
  end if;
  if wakes_at <= now() + interval '25 seconds' and exists (
    select from chunk_private.lanes l join public.sync_kinds k on k.kind = l.kind where l.id = lane and k.handler is not null
  ) then
    calls := array(select j.id from public.sync_jobs j where j.id = any (job_ids) for key share skip locked);
  end if;
  update chunk_private.slots s
  set parked = false, ready_at = wakes_at, dispatched_at = case when s.job_id = any (calls) then now() end,
      dispatch_count = (s.job_id = any (calls))::int
  from unnest(job_ids, chunk_indexes) w (job_id, chunk_index)
  where s.job_id = w.job_id and s.chunk_index = w.chunk_index;
  perform chunk_private.dispatch(j, w.chunk_indexes)
  from (
    select u.job_id, array_agg(u.chunk_index) as chunk_indexes
    from unnest(job_ids, chunk_indexes) u (job_id, chunk_index)
    where u.job_id = any (calls)
    group by u.job_id
  ) w
  join public.sync_jobs j on j.id = w.job_id;
end
$$;
comment on function chunk_private.wake_slots is
  'Wakes the longest parked slots of a limit key in a lane, with a webhook each if they may be claimed now or soon.';

create or replace function chunk_private.settle_limit(limit_key text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
  perform chunk_private.wake_slots(limit_key, w.lane, w.how_many, w.wakes_at) from chunk_private.slots_to_wake(limit_key) w;
end
$$;
comment on function chunk_private.settle_limit is
  'Leaves, in each lane, at least as many slots of a limit key awake as there is room for. The caller has the key''s lock.';

create or replace function chunk_private.settle_limits(limit_keys text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  limit_key text;
begin
  for limit_key in select distinct k.key from unnest(limit_keys) k (key) where k.key is not null order by k.key loop
    if chunk_private.wait_for_limit(limit_key) then
      perform chunk_private.settle_limit(limit_key);
    end if;
  end loop;
end
$$;
comment on function chunk_private.settle_limits is
  'settle_limit for several keys, nulls left out: the last act of what makes, frees or deletes slots. A key that somebody holds for long is left to the watchdog.';

-- Who makes room goes on with its own job only when no other has waited longer, or there is room for that one too.
create or replace function chunk_private.claim_in_turn(limit_key text, job_id uuid, next_claim_id uuid)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  rules constant record := chunk_private.limit_of(limit_key);
  room constant int := rules.most - chunk_private.limit_used(limit_key);
  within constant bigint := 4294967296; -- a lane's id follows its priority
  own record;
begin
  if rules.opens_at > now() or room <= 0 then
    return null;
  end if;
  select s.ctid as place, s.lane, s.parked, s.ready_at, s.chunk_index into own from chunk_private.slots s
  where s.job_id = job_id and not s.claimed and s.ready_at <= now()
  order by s.parked, s.ready_at, s.chunk_index limit 1 for no key update skip locked;
  if not found or room <= (
    select count(*) from (
      select from chunk_private.slots s
      where s.limit_key = limit_key and not s.claimed and s.ready_at <= now()
        and (s.lane / within, s.parked, s.ready_at, s.chunk_index, s.job_id) < (own.lane / within, own.parked, own.ready_at, own.chunk_index, job_id)
      limit room
    ) earlier
  ) then
    return null;
  end if;
  update chunk_private.slots s set claimed = true, parked = false, claim_id = next_claim_id where s.ctid = own.place;
  return own.chunk_index;
end
$$;
comment on function chunk_private.claim_in_turn is
  'Claims the slot of a job that has waited longest, if it is its turn among those of the limit key, and returns its index. The caller has the key''s lock.';
