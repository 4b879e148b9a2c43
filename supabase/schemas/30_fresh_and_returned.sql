-- Where chunks stand that have no slot: fresh ones in stripes, returned ones (retries, what a pause took back) by time.

create or replace function chunk_private.line_up(job public.sync_jobs, first_index bigint, past_last bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  insert into chunk_private.job_counters as n (job_id, stripe, owner_id, open_chunks)
  select job.id, s.stripe, job.owner_id, (past_last - f.first + job.stripes - 1) / job.stripes
  from generate_series(0, job.stripes - 1) s (stripe)
  cross join lateral (select first_index + (s.stripe - first_index % job.stripes + job.stripes) % job.stripes as first) f
  where f.first < past_last
  order by s.stripe
  on conflict on constraint job_counters_pkey
  do update set open_chunks = n.open_chunks + excluded.open_chunks, last_activity_at = now();
  insert into chunk_private.fresh_stripes as n (job_id, stripe, next_index, end_index)
  select job.id, s.stripe, first_index + (s.stripe - first_index % job.stripes + job.stripes) % job.stripes, past_last
  from generate_series(0, job.stripes - 1) s (stripe)
  where first_index < past_last
  order by s.stripe
  on conflict on constraint fresh_stripes_pkey do update set end_index = excluded.end_index;
end
$$;
comment on function chunk_private.line_up is 'Counts new chunks of a job, from first_index on and below past_last, as open, and lines them up as fresh.';

-- What a free slot goes to, in this order: a returned chunk that is due, a fresh one, else the returned one that is due
-- soonest, which then keeps the slot.

create or replace function chunk_private.take_returned(
  job_id uuid, due_until timestamptz, how_many int, out chunk_indexes bigint[], out ready_ats timestamptz[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  -- Picked in a query of its own: in the delete's `using` it could be run again for each row, and take too many.
  with picked as materialized (
    select w.ready_at, w.chunk_index from chunk_private.returned_chunks w
    where w.job_id = job_id and w.ready_at <= due_until
    order by w.ready_at, w.chunk_index limit how_many for update skip locked
  ),
  taken as (
    delete from chunk_private.returned_chunks r
    using picked t
    where r.job_id = job_id and r.ready_at = t.ready_at and r.chunk_index = t.chunk_index
    returning r.chunk_index, r.ready_at
  )
  select coalesce(array_agg(t.chunk_index), '{}'), coalesce(array_agg(t.ready_at), '{}') into chunk_indexes, ready_ats from taken t;
end
$$;
comment on function chunk_private.take_returned is
  'Takes up to how_many returned chunks of a job that are due by then, the longest due first: their indexes, and from when on each may be claimed.';

-- Locks the stripes in order: two that each held some of them would wait for each other's once their own are empty.
create or replace function chunk_private.take_lowest(job public.sync_jobs, how_many int)
returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  chunk_indexes bigint[];
begin
  with held as (
    select s.stripe, s.next_index, s.end_index from chunk_private.fresh_stripes s
    where s.job_id = job.id and s.next_index < s.end_index
    order by s.stripe for no key update
  ),
  lowest as (
    select o.stripe, c.chunk_index from held o
    cross join lateral generate_series(
      o.next_index, least(o.end_index - 1, o.next_index + job.stripes * (how_many - 1)::bigint), job.stripes
    ) c (chunk_index)
    order by c.chunk_index limit how_many
  ),
  moved as (
    update chunk_private.fresh_stripes f
    set next_index = l.last_index + job.stripes
    from (select w.stripe, max(w.chunk_index) as last_index from lowest w group by w.stripe) l
    where f.job_id = job.id and f.stripe = l.stripe
  )
  select array_agg(l.chunk_index) into chunk_indexes from lowest l;
  return coalesce(chunk_indexes, '{}');
end
$$;
comment on function chunk_private.take_lowest is 'Takes the up to how_many lowest fresh chunks of a job, and returns their indexes.';

-- For reports, of which many come at once: from one stripe, that nobody holds, so that they do not wait for each other; and
-- the chunks of one batch then share a counter when they are reported.
create or replace function chunk_private.take_fresh(job public.sync_jobs, how_many int)
returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  span constant bigint := job.stripes * how_many::bigint;
  first_index bigint;
begin
  loop
    update chunk_private.fresh_stripes f
    set next_index = f.next_index + span
    where f.job_id = job.id and f.stripe = (
      select s.stripe from chunk_private.fresh_stripes s
      where s.job_id = job.id and s.next_index + span < s.end_index + job.stripes
      order by s.next_index limit 1 for no key update skip locked
    )
    returning f.next_index - span into first_index;
    exit when found;
    -- Others hold those that have enough, or none has. No slot may be lost, so this waits, and always in order of stripes:
    -- one that turns out to be empty stays locked.
    if how_many > 1 then
      return chunk_private.take_lowest(job, how_many);
    end if;
    perform 1 from chunk_private.fresh_stripes s
    where s.job_id = job.id and s.next_index < s.end_index
    order by s.stripe limit 1 for no key update;
    if not found then
      return array[]::bigint[];
    end if;
  end loop;
  return array(select generate_series(first_index, first_index + span - 1, job.stripes));
end
$$;
comment on function chunk_private.take_fresh is 'Takes up to how_many fresh chunks of a job, and returns their indexes.';

create or replace function chunk_private.take_claimable(
  job public.sync_jobs, how_many int, lowest boolean, out chunk_indexes bigint[], out ready_ats timestamptz[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  due constant record := chunk_private.take_returned(job.id, now(), how_many);
  fresh bigint[];
begin
  chunk_indexes := due.chunk_indexes;
  ready_ats := due.ready_ats;
  how_many := how_many - cardinality(chunk_indexes);
  if how_many > 0 then
    fresh := case when lowest then chunk_private.take_lowest(job, how_many) else chunk_private.take_fresh(job, how_many) end;
    chunk_indexes := chunk_indexes || fresh;
    ready_ats := ready_ats || array_fill(now(), array[cardinality(fresh)]);
  end if;
end
$$;
comment on function chunk_private.take_claimable is
  'Takes up to how_many chunks of a job that may be claimed now, of the fresh ones the lowest or any: their indexes, and since when.';
