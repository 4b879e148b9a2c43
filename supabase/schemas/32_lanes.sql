-- Lanes: where a claim looks. The claim index is read lane by lane, each as one short range.

create or replace function chunk_private.kinds_to_search(kinds text[], job_id uuid)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  perform chunk_private.check_kinds(kinds);
  if job_id is not null then
    return array(
      select k.kind from public.sync_jobs j
      join public.sync_kinds k on k.kind = j.kind
      where j.id = job_id and case when kinds is null then k.handler is not null else k.kind = any (kinds) end
    );
  end if;
  if (select count(*) from (select from chunk_private.lanes limit 65) l) < 65 then
    return array(
      select k.kind from public.sync_kinds k
      where case when kinds is null then k.handler is not null else k.kind = any (kinds) end
    );
  end if;
  -- More would cost more to try one by one than to ask the claim index for the next lane in which something waits.
  return array(
    with recursive waiting (lane) as (
      (select s.lane from chunk_private.slots s where not s.claimed order by s.lane limit 1)
      union all
      select (select s.lane from chunk_private.slots s where not s.claimed and s.lane > w.lane order by s.lane limit 1)
      from waiting w where w.lane is not null
    )
    select distinct k.kind from waiting w
    join chunk_private.lanes l on l.id = w.lane
    join public.sync_kinds k on k.kind = l.kind
    where case when kinds is null then k.handler is not null else k.kind = any (kinds) end
  );
end
$$;
comment on function chunk_private.kinds_to_search is
  'The kinds in whose lanes a claim looks: of those named, or with null of those that have a handler, the one of its job; where there are many lanes, those with chunks that wait. SC002 when there is no such kind.';

-- While somebody's long query holds an old snapshot, dead index entries of finished chunks pile up before the first live
-- one. Each session therefore remembers, a lane, from which time on it last found chunks, and starts there; it
-- looks from the very beginning when it finds too few, and at times in between, for chunks committed late. A twentieth of a
-- second is near enough, and spares most claims the write.
create or replace view chunk_private.claim_lanes
with (security_invoker = true)
as
select l.id, l.kind, l.priority, k.handler, k.lease_seconds,
  coalesce(to_timestamp(nullif(current_setting('chunk_private.floor_' || l.id, true), '')::float8), '-infinity') as floor
from chunk_private.lanes l
join public.sync_kinds k on k.kind = l.kind;
comment on view chunk_private.claim_lanes is 'Where a claim looks, with what it needs to know of the kind.';
comment on column chunk_private.claim_lanes.handler is 'The kind''s.';
comment on column chunk_private.claim_lanes.lease_seconds is 'The kind''s.';
comment on column chunk_private.claim_lanes.floor is 'The ready_at from which on this session last found chunks there.';

create or replace function chunk_private.remember_floor(lane bigint, found_at timestamptz)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config('chunk_private.floor_' || lane, (extract(epoch from found_at) - 0.001)::text, false);
end
$$;
comment on function chunk_private.remember_floor is 'Remembers for this session at which ready_at a claim has found chunks of a lane.';
