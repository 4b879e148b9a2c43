-- Where chunks stand that have no slot: fresh ones in stripes, returned ones (retries, what a pause took back) by time.

create or replace function chunk_private.line_up(job public.sync_jobs, first_index bigint, past_last bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  with added as materialized (
    select s.stripe, (past_last - f.first + job.stripes - 1) / job.stripes as chunks
    from generate_series(0, job.stripes - 1) s (stripe)
    cross join lateral (select first_index + (s.stripe - first_index % job.stripes + job.stripes) % job.stripes as first) f
    where f.first < past_last
  ),
  counted as (
    update chunk_private.job_counters c
    set open_chunks = c.open_chunks + a.chunks, last_activity_at = now()
    from added a
    join chunk_private.newest_counters n on n.job_id = job.id and n.stripe = a.stripe
    where c.ctid = n.place
    returning c.stripe
  )
  insert into chunk_private.job_counters (job_id, stripe, owner_id, open_chunks)
  select job.id, a.stripe, job.owner_id, a.chunks from added a where a.stripe not in (select c.stripe from counted c);
  with prolonged as (
    update chunk_private.fresh_stripes f
    set end_index = past_last
    from chunk_private.newest_stripes n
    where n.job_id = job.id and f.ctid = n.place
    returning f.stripe
  )
  insert into chunk_private.fresh_stripes (job_id, stripe, next_index, end_index)
  select job.id, s.stripe, first_index + (s.stripe - first_index % job.stripes + job.stripes) % job.stripes, past_last
  from generate_series(0, job.stripes - 1) s (stripe)
  where first_index < past_last and s.stripe not in (select p.stripe from prolonged p);
end
$$;
comment on function chunk_private.line_up is
  'Counts new chunks of a job, from first_index on and below past_last, as open, and lines them up as fresh. The caller is alone in the job''s gate, or has just made the job.';

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

create or replace function chunk_private.take_lowest(job public.sync_jobs, how_many int)
returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  chunk_indexes bigint[];
begin
  with lowest as (
    select n.place, c.chunk_index from chunk_private.newest_stripes n
    cross join lateral generate_series(
      n.next_index, least(n.end_index - 1, n.next_index + job.stripes * (how_many - 1)::bigint), job.stripes
    ) c (chunk_index)
    where n.job_id = job.id
    order by c.chunk_index limit how_many
  ),
  moved as (
    update chunk_private.fresh_stripes f
    set next_index = l.last_index + job.stripes
    from (select w.place, max(w.chunk_index) as last_index from lowest w group by w.place) l
    where f.ctid = l.place
  )
  select array_agg(l.chunk_index) into chunk_indexes from lowest l;
  return coalesce(chunk_indexes, '{}');
end
$$;
comment on function chunk_private.take_lowest is 'Takes the up to how_many lowest fresh chunks of a job, and returns their indexes. The caller is alone in the job''s gate.';

create or replace function chunk_private.take_of_stripe(job public.sync_jobs, place tid, how_many int)
returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  held record;
  past_last bigint;
begin
  -- Of this job: since the caller looked, the row may have moved, and another's have taken its place.
  select f.ctid as place, f.next_index, f.end_index into held from chunk_private.fresh_stripes f
  where f.ctid = place and f.job_id = job.id and f.next_index < f.end_index for no key update skip locked;
  if not found then
    return array[]::bigint[];
  end if;
  past_last := least(held.next_index + how_many * job.stripes::bigint, held.end_index);
  update chunk_private.fresh_stripes f
  set next_index = held.next_index + (past_last - held.next_index + job.stripes - 1) / job.stripes * job.stripes
  where f.ctid = held.place;
  return array(select generate_series(held.next_index, past_last - 1, job.stripes));
end
$$;
comment on function chunk_private.take_of_stripe is 'Takes up to how_many fresh chunks of the stripe whose row is there, unless somebody holds it, and returns their indexes.';

-- For reports, of which many come at once: from one stripe, that nobody holds, so that they do not wait for each other; and
-- the chunks of one batch then share a counter when they are reported.
--
-- No slot may be lost, so when others hold all that have some, it waits for one; and only then, for a row that has just moved may be held by
-- ourselves. While it waits, the stripes that it holds are empty, and have been since before it looked for one that is not: so no two
-- wait for each other.
create or replace function chunk_private.take_fresh(job public.sync_jobs, how_many int)
returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  taken bigint[] := array[]::bigint[];
  places tid[];
  tried tid[];
  place tid;
begin
  loop
    places := array(
      select n.place from chunk_private.newest_stripes n
      where n.job_id = job.id and n.next_index < n.end_index
      order by n.next_index + (how_many - 1) * job.stripes >= n.end_index, n.next_index
    );
    exit when places = '{}';
    if places = tried then
      perform chunk_private.hold_stripe(job.id, (
        select f.stripe from chunk_private.fresh_stripes f where f.ctid = places[1] and f.job_id = job.id
      ));
    end if;
    tried := places;
    foreach place in array places loop
      taken := taken || chunk_private.take_of_stripe(job, place, how_many - cardinality(taken));
      exit when cardinality(taken) = how_many;
    end loop;
    exit when cardinality(taken) = how_many;
  end loop;
  return taken;
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
