-- Lanes: where a claim looks. The claim index is read lane by lane, each as one short range.

create or replace function chunk_private.make_lane(kind text, priority smallint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  insert into chunk_private.lanes (kind, priority)
  select kind, priority
  where not exists (select from chunk_private.lanes l where l.kind = kind and l.priority = priority)
  on conflict on constraint lanes_kind_priority_key do nothing;
end
$$;
comment on function chunk_private.make_lane is 'Makes the lane of a kind and a priority, unless there is one: an insert that finds it would use up a number.';

create or replace function chunk_private.make_lane_of_job()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform chunk_private.make_lane(new.kind, new.priority);
  return null;
end
$$;
comment on function chunk_private.make_lane_of_job is
  'Trigger of sync_jobs: a priority may be changed by hand, and the watchdog moves the slots.';

create or replace function chunk_private.refuse_change()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = 'SC005', message = format('the sync job %s: kind and stripes of a job cannot be changed', new.id),
    hint = 'Cancel it, and start another.';
end
$$;
comment on function chunk_private.refuse_change is 'Trigger of sync_jobs: SC005 for a change by hand of what its chunks and counters are laid out by.';

do $$
begin
  -- Asked first: making a trigger again would wait for all who write jobs.
  if not exists (select from pg_trigger t where t.tgname = 'sync_jobs_make_lane' and t.tgrelid = 'public.sync_jobs'::regclass) then
    create trigger sync_jobs_make_lane after update of priority on public.sync_jobs
      for each row when (new.priority <> old.priority) execute function chunk_private.make_lane_of_job();
  end if;
  if not exists (select from pg_trigger t where t.tgname = 'sync_jobs_refuse_change' and t.tgrelid = 'public.sync_jobs'::regclass) then
    create trigger sync_jobs_refuse_change before update of kind, stripes on public.sync_jobs
      for each row when ((new.kind, new.stripes) is distinct from (old.kind, old.stripes))
      execute function chunk_private.refuse_change();
  end if;
end
$$;

create or replace function chunk_private.kinds_asked_one_by_one()
returns int
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$ select 500; $$;
comment on function chunk_private.kinds_asked_one_by_one is
  'For so many kinds a claim asks each lane whether something waits there; for more it steps through the lanes in which something does.';

create or replace function chunk_private.due_lanes(kinds text[], from_lane bigint, how_many int)
returns bigint[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  -- Some hundred kinds: each of their lanes is asked, so that what waits for others costs nothing
  if cardinality(kinds) <= chunk_private.kinds_asked_one_by_one() then
    return array(
      select l.id
      from (select n.id from chunk_private.lanes n where n.kind = any (kinds) and n.id >= from_lane offset 0) l
      cross join lateral (
        select from chunk_private.slots s where s.lane = l.id and not s.claimed and not s.parked and s.ready_at <= now() order by s.ready_at limit 1
      ) w
      order by l.id limit how_many
    );
  end if;
  -- Else steps from one lane to the next that is in the claim index; what is beyond how_many is not read.
  return array(
    with recursive waiting (lane, ready_at) as (
      (select s.lane, s.ready_at from chunk_private.slots s where not s.claimed and not s.parked and s.lane >= from_lane order by s.lane, s.ready_at limit 1)
      union all
      select n.lane, n.ready_at from waiting w
      cross join lateral (
        select s.lane, s.ready_at from chunk_private.slots s where not s.claimed and not s.parked and s.lane > w.lane order by s.lane, s.ready_at limit 1
      ) n
    )
    select w.lane from waiting w
    where w.ready_at <= now() and exists (
      select from chunk_private.lanes l
      join public.sync_kinds k on k.kind = l.kind
      where l.id = w.lane and case when kinds is null then k.handler is not null else k.kind = any (kinds) end
    )
    limit how_many
  );
end
$$;
comment on function chunk_private.due_lanes is
  'The first lanes, from one on, in which chunks of these kinds may be claimed; with null of those that have a handler.';

-- A claim that tried each of thousands of lanes would take long, and so would one that listed all in which something waits.
-- So it takes four of these: all, if there are no more, else of the highest priority some from a random one on.
create or replace function chunk_private.lanes_to_search(inout kinds text[], job_id uuid, out lanes bigint[])
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  within constant bigint := 4294967296;
  first_lane bigint;
  further bigint[];
begin
  perform chunk_private.check_kinds(kinds);
  if job_id is not null then
    kinds := array(
      select k.kind from public.sync_jobs j
      join public.sync_kinds k on k.kind = j.kind
      where j.id = job_id and case when kinds is null then k.handler is not null else k.kind = any (kinds) end
    );
    return;
  elsif kinds is null then
    kinds := array(select k.kind from public.sync_kinds k where k.handler is not null limit chunk_private.kinds_asked_one_by_one() + 1);
    if cardinality(kinds) > chunk_private.kinds_asked_one_by_one() then
      kinds := null;
    end if;
  end if;
  if cardinality(kinds) < 65 then
    return;
  end if;
  lanes := chunk_private.due_lanes(kinds, 0, 5);
  if cardinality(lanes) = 5 then
    first_lane := lanes[1] - lanes[1] % within;
    first_lane := first_lane + floor(random() * (
      select l.id - first_lane from chunk_private.lanes l where l.id < first_lane + within order by l.id desc limit 1
    ))::bigint;
    further := chunk_private.due_lanes(kinds, first_lane, 4);
    if further[1] / within = first_lane / within then
      lanes := further;
    end if;
  end if;
  kinds := array(select l.kind from chunk_private.lanes l where l.id = any (lanes));
end
$$;
comment on function chunk_private.lanes_to_search is
  'Where a claim looks: in the lanes of the kinds named, or with null of those that have a handler, or of its job''s; where there are many kinds, in some lanes with chunks that may be claimed. SC002 when there is no such kind.';

-- While somebody's long query holds an old snapshot, dead index entries of finished chunks pile up before the first live
-- one. Each session therefore remembers, a lane, from which time on it last found chunks, and starts there; it
-- looks from the very beginning when it finds too few, and once a second, for chunks committed late; or, when such a look takes
-- long, less often, so that looking never takes more than a hundredth of the time. A twentieth of a second is near enough
-- for the floor, and spares most claims the write.
create view chunk_private.wanted_view
with (security_invoker = true)
as
select l.id, l.kind, l.priority, k.handler, k.lease_seconds,
  coalesce(case
    when now() < to_timestamp(split_part(r.remembered, ' ', 2)::float8) then to_timestamp(split_part(r.remembered, ' ', 1)::float8)
  end, '-infinity') as floor
from chunk_private.lanes l
join public.sync_kinds k on k.kind = l.kind
cross join lateral (select nullif(current_setting('chunk_private.floor_' || l.id, true), '') as remembered) r;

select chunk_private.replace_view('chunk_private.claim_lanes');
comment on view chunk_private.claim_lanes is 'Where a claim looks, with what it needs to know of the kind.';
comment on column chunk_private.claim_lanes.handler is 'The kind''s.';
comment on column chunk_private.claim_lanes.lease_seconds is 'The kind''s.';
comment on column chunk_private.claim_lanes.floor is 'The ready_at from which on this session last found chunks there; -infinity when it is time to look at all.';

create or replace function chunk_private.remember_floor(lane bigint, found_at timestamptz, looked_at_all boolean)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  setting constant text := 'chunk_private.floor_' || lane;
begin
  perform set_config(setting, (extract(epoch from found_at)::float8 - 0.001) || ' ' || case
    when looked_at_all then (
      extract(epoch from now())::float8 + least(60, greatest(1, 100 * extract(epoch from clock_timestamp() - statement_timestamp())::float8))
    )::text
    else split_part(current_setting(setting), ' ', 2)
  end, false);
end
$$;
comment on function chunk_private.remember_floor is 'Remembers for this session at which ready_at a claim has found chunks of a lane, and when to look at all of it again.';
