-- How the newest versions of a job's stripes are found.
--
-- Every report writes a row of each. While somebody's long query holds an old snapshot, PostgreSQL prunes none of their outdated
-- versions, and whoever looks for such a row walks through all of them. So they carry a generation in their key, which rises
-- every some changes: from the newest on, a look ends when it has seen what there is.
--
-- Counters are read together, so their generation is one of the job: a counter that was written so often in the newest begins
-- the next, and the others join it when they are written. Who begins one brings along those that have stayed behind.

create view chunk_private.wanted_view
with (security_invoker = true)
as
select j.id as job_id, c.stripe, c.generation, c.open_chunks, c.completed_chunks, c.failed_chunks, c.cancelled_chunks, c.retrying_chunks,
  c.items_processed, c.last_activity_at, c.last_error, c.last_error_at, c.slots_from, c.fresh_from, c.changes, c.ctid as place
from public.sync_jobs j
cross join lateral (
  select o.ctid, o.* from chunk_private.job_counters o
  where o.job_id = j.id
  order by o.generation desc limit least(j.stripes, j.total_chunks)
) c;

select chunk_private.replace_view('chunk_private.newest_counters');
comment on view chunk_private.newest_counters is 'The counters of jobs, a row a stripe that has chunks, however many outdated versions there are.';
comment on column chunk_private.newest_counters.generation is 'As in job_counters.';
comment on column chunk_private.newest_counters.open_chunks is 'As in job_counters.';
comment on column chunk_private.newest_counters.retrying_chunks is 'As in job_counters.';
comment on column chunk_private.newest_counters.items_processed is 'As in job_counters.';
comment on column chunk_private.newest_counters.slots_from is 'As in job_counters.';
comment on column chunk_private.newest_counters.fresh_from is 'As in job_counters.';
comment on column chunk_private.newest_counters.changes is 'As in job_counters.';
comment on column chunk_private.newest_counters.place is 'Where the row is (ctid), to change just it.';

create view chunk_private.wanted_view
with (security_invoker = true)
as
select j.id as job_id, f.stripe, f.next_index, f.end_index, f.generation, f.ctid as place
from public.sync_jobs j
cross join lateral (
  select o.ctid, o.stripe, o.next_index, o.end_index, o.generation from chunk_private.fresh_stripes o
  where o.job_id = j.id
  order by o.generation desc limit j.stripes
) f;

select chunk_private.replace_view('chunk_private.newest_stripes');
comment on view chunk_private.newest_stripes is 'What is fresh of jobs, a row a stripe, however many outdated versions there are.';
comment on column chunk_private.newest_stripes.next_index is 'As in fresh_stripes.';
comment on column chunk_private.newest_stripes.end_index is 'As in fresh_stripes.';
comment on column chunk_private.newest_stripes.generation is 'As in fresh_stripes.';
comment on column chunk_private.newest_stripes.place is 'Where the row is (ctid), to lock just it.';

create or replace function chunk_private.changes_a_generation()
returns int
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$ select 32; $$;
comment on function chunk_private.changes_a_generation is 'How often a counter is written in one generation, before it begins the next.';

create or replace function chunk_private.slots_from(job_id uuid)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  return coalesce((select max(n.slots_from) from chunk_private.newest_counters n where n.job_id = job_id), 0);
end
$$;
comment on function chunk_private.slots_from is 'A chunk_index below which no slot of a job is: from there on its slots are read, past those that are outdated.';

create or replace function chunk_private.bring_along(job_id uuid, to_generation bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  update chunk_private.job_counters c
  set generation = to_generation, changes = 0
  where c.ctid = any (array(
    select l.ctid from chunk_private.job_counters l
    where l.ctid = any (array(
      select n.place from chunk_private.newest_counters n where n.job_id = job_id and n.generation < to_generation - 2
    ))
    for no key update skip locked
  ));
end
$$;
comment on function chunk_private.bring_along is 'Brings the counters of a job that have stayed behind into a generation that the caller has begun.';

-- A statement that waits for a row whose generation has risen meanwhile passes it over, though it then has its lock. So who
-- changes a counter holds it first.
create or replace function chunk_private.hold_counter(job_id uuid, stripe bigint)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  held record;
  joins bigint;
begin
  select c.generation, c.changes into held from chunk_private.job_counters c
  where c.job_id = job_id and c.stripe = stripe
  order by c.generation desc limit 1 for no key update;
  joins := (select c.generation from chunk_private.job_counters c where c.job_id = job_id order by c.generation desc limit 1);
  if held.generation = joins and held.changes + 1 >= chunk_private.changes_a_generation() then
    joins := joins + 1;
    perform chunk_private.bring_along(job_id, joins);
  end if;
  if held.generation < joins then
    update chunk_private.job_counters c
    set generation = joins, changes = 0
    where c.job_id = job_id and c.generation = held.generation and c.stripe = stripe;
  end if;
  return joins;
end
$$;
comment on function chunk_private.hold_counter is 'Locks the counter of a stripe, in the generation in which it is to be written next, and returns that.';

create or replace function chunk_private.hold_stripe(job_id uuid, stripe bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  perform 1 from chunk_private.fresh_stripes s
  where s.job_id = job_id and s.stripe = stripe
  order by s.generation desc limit 1 for no key update;
end
$$;
comment on function chunk_private.hold_stripe is 'Locks the row of a stripe''s fresh chunks.';

-- Whatever has a slot later is fresh now, or returned, or has one.
create or replace function chunk_private.lowest_place(job_id uuid)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  above constant bigint := chunk_private.slots_from(job_id);
begin
  return coalesce(least(
    (select s.chunk_index from chunk_private.slots s where s.job_id = job_id and s.chunk_index >= above order by s.chunk_index limit 1),
    (select min(r.chunk_index) from chunk_private.returned_chunks r where r.job_id = job_id),
    (select min(n.next_index) from chunk_private.newest_stripes n where n.job_id = job_id and n.next_index < n.end_index)
  ), above);
end
$$;
comment on function chunk_private.lowest_place is
  'The lowest chunk_index that a slot of a job has or will have, unless chunks are reopened. The caller is in the job''s gate.';

create or replace function chunk_private.lowest_generation(job_id uuid)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  return coalesce((select min(n.generation) from chunk_private.newest_stripes n where n.job_id = job_id), 0);
end
$$;
comment on function chunk_private.lowest_generation is 'The lowest generation of a job''s fresh_stripes: batches move one of them far ahead of the others.';
