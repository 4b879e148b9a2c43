-- Release: which chunk may be claimed next. Dispatch: the webhook that says so.

-- Vault and pg_net may be used by the owner of the migrations only, hence a definer. A webhook must never break the write
-- that asks for it: every failure ends in the table of dispatches, and the chunk stays claimable.
create or replace function chunk_private.dispatch(job_id uuid, owner_id uuid, chunk_indexes bigint[])
returns int
language plpgsql
security definer -- reads the Vault and calls pg_net, which service_role may not
set search_path = ''
as $$
#variable_conflict use_variable
declare
  chunk_ids constant bigint[] := array(
    select q.id from public.chunk_processing_queue q
    where q.parent_sync_job_id = job_id and q.chunk_index = any (chunk_indexes) order by q.chunk_index
  );
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

-- Picks the chunks that slots go to: returned ones that are due, else those never released, lowest first, else (unless
-- they must be claimable now) the returned ones that are due soonest, which then keep the slot. Of a stripe that others
-- hold it takes from the next; when others hold all that are left it waits for one, so that no slot is lost.
create or replace function chunk_private.take_next(
  job_id uuid, stripes int, how_many int, claimable boolean, out chunk_indexes bigint[], out ready_ats timestamptz[]
)
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  returned record;
  fresh bigint[];
begin
  -- Picked in a query of its own: in the delete's `using` it could be run again for each row, and take too many.
  with picked as materialized (
    select w.ready_at, w.chunk_index from chunk_private.returned_chunks w
    where w.job_id = job_id and w.ready_at <= now()
    order by w.ready_at, w.chunk_index limit how_many for update skip locked
  ),
  due as (
    delete from chunk_private.returned_chunks r
    using picked t
    where r.job_id = job_id and r.ready_at = t.ready_at and r.chunk_index = t.chunk_index
    returning r.chunk_index, r.ready_at
  )
  select coalesce(array_agg(d.chunk_index), '{}'), coalesce(array_agg(d.ready_at), '{}') into chunk_indexes, ready_ats from due d;

  while cardinality(chunk_indexes) < how_many loop
    if how_many = 1 then
      update chunk_private.fresh_stripes f
      set next_index = f.next_index + stripes
      where f.job_id = job_id and f.stripe = (
        select s.stripe from chunk_private.fresh_stripes s
        where s.job_id = job_id and s.next_index < s.end_index
        order by s.next_index limit 1 for no key update skip locked
      )
      returning array[f.next_index - stripes] into fresh;
    else
      with held as (
        select s.stripe, s.next_index, s.end_index from chunk_private.fresh_stripes s
        where s.job_id = job_id and s.next_index < s.end_index
        order by s.stripe for no key update skip locked
      ),
      lowest as (
        select o.stripe, c.chunk_index from held o
        cross join lateral generate_series(
          o.next_index, least(o.end_index - 1, o.next_index + stripes * (how_many - 1)::bigint), stripes
        ) c (chunk_index)
        order by c.chunk_index limit how_many - cardinality(chunk_indexes)
      ),
      moved as (
        update chunk_private.fresh_stripes f
        set next_index = l.last_index + stripes
        from (select w.stripe, max(w.chunk_index) as last_index from lowest w group by w.stripe) l
        where f.job_id = job_id and f.stripe = l.stripe
      )
      select array_agg(l.chunk_index) into fresh from lowest l;
    end if;
    if fresh is null then
      perform 1 from chunk_private.fresh_stripes s
      where s.job_id = job_id and s.next_index < s.end_index
      order by s.next_index limit 1 for no key update;
      exit when not found;
    else
      chunk_indexes := chunk_indexes || fresh;
      ready_ats := ready_ats || array_fill(now(), array[cardinality(fresh)]);
      fresh := null;
    end if;
  end loop;

  if cardinality(chunk_indexes) < how_many and not claimable then
    with picked as materialized (
      select w.ready_at, w.chunk_index from chunk_private.returned_chunks w
      where w.job_id = job_id
      order by w.ready_at, w.chunk_index limit how_many - cardinality(chunk_indexes) for update skip locked
    ),
    soonest as (
      delete from chunk_private.returned_chunks r
      using picked t
      where r.job_id = job_id and r.ready_at = t.ready_at and r.chunk_index = t.chunk_index
      returning r.chunk_index, r.ready_at
    )
    select array_agg(d.chunk_index) as chunk_indexes, array_agg(d.ready_at) as ready_ats into returned from soonest d;
    chunk_indexes := chunk_indexes || returned.chunk_indexes;
    ready_ats := ready_ats || returned.ready_ats;
  end if;
end
$$;
comment on function chunk_private.take_next is 'Takes the chunks of a job that free slots go to: their places, and from when on each may be claimed.';

-- What a report does with the slots it has freed, under a shared gate: each passes to at most one chunk, so the cap holds
-- without counting.
create or replace function chunk_private.pass_slots_on(
  job_id uuid, stripes int, has_handler boolean, freed bigint[], wanted int, out to_claim bigint[], out to_dispatch bigint[]
)
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  next record;
  later record;
begin
  next := chunk_private.take_next(job_id, stripes, cardinality(freed), wanted > 0);
  to_claim := next.chunk_indexes[1:wanted];
  if wanted > cardinality(to_claim) then
    -- Chunks that have slots already, for want of others; then the freed slots may go to retries that are not due yet.
    to_claim := to_claim || array(
      select s.chunk_index from chunk_private.slots s
      where s.job_id = job_id and not s.claimed and s.ready_at <= now()
      order by s.ready_at, s.chunk_index limit wanted - cardinality(to_claim) for no key update skip locked
    );
  end if;
  if wanted > 0 and cardinality(next.chunk_indexes) < cardinality(freed) then
    later := chunk_private.take_next(job_id, stripes, cardinality(freed) - cardinality(next.chunk_indexes), false);
    next.chunk_indexes := next.chunk_indexes || later.chunk_indexes;
    next.ready_ats := next.ready_ats || later.ready_ats;
  end if;
  to_dispatch := '{}';
  if has_handler then
    to_dispatch := array(
      select n.chunk_index from unnest(next.chunk_indexes, next.ready_ats) n (chunk_index, ready_at)
      where n.ready_at <= now() and n.chunk_index <> all (to_claim)
    );
  end if;
  if cardinality(freed) > 1 and cardinality(next.chunk_indexes) > 0 then
    -- A chunk that comes back at once keeps its slot: on its way the update must not meet the key of another one.
    select array_agg(n.chunk_index order by n.chunk_index = any (freed) desc, n.place),
      array_agg(n.ready_at order by n.chunk_index = any (freed) desc, n.place)
    into next.chunk_indexes, next.ready_ats
    from unnest(next.chunk_indexes, next.ready_ats) with ordinality n (chunk_index, ready_at, place);
    freed := array(
      select f.chunk_index from unnest(freed) f (chunk_index) order by array_position(next.chunk_indexes, f.chunk_index) nulls last
    );
  end if;
  update chunk_private.slots s
  set chunk_index = n.chunk_index, ready_at = n.ready_at, claimed = false, claim_id = null,
      dispatched_at = case when n.chunk_index = any (to_dispatch) then now() end,
      dispatch_count = (n.chunk_index = any (to_dispatch))::int
  from unnest(freed, next.chunk_indexes, next.ready_ats) n (freed, chunk_index, ready_at)
  where s.job_id = job_id and s.chunk_index = n.freed and n.chunk_index is not null;
  if cardinality(next.chunk_indexes) < cardinality(freed) then
    delete from chunk_private.slots s
    where s.job_id = job_id and s.chunk_index = any (freed[cardinality(next.chunk_indexes) + 1:]);
  end if;
end
$$;
comment on function chunk_private.pass_slots_on is
  'Passes the slots of finished chunks to the job''s next ones. Up to wanted chunks are left for the caller to claim; to_dispatch want a webhook.';

-- Only under the job's exclusive gate: with shared ones two transactions would each count the same free slot.
create or replace function chunk_private.fill_slots(job_id uuid)
returns bigint[]
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  job record;
  next record;
  to_dispatch bigint[];
begin
  select j.kind, j.priority, j.max_concurrency, j.counter_shards, k.handler is not null as has_handler into job
  from public.sync_jobs j join public.sync_kinds k on k.kind = j.kind
  where j.id = job_id and j.status in ('pending', 'running');
  if not found then
    return '{}';
  end if;
  -- A chunk in backoff that kept its slot for want of others gives it to those that have come since.
  with later as (
    delete from chunk_private.slots s
    using (
      select w.chunk_index from chunk_private.slots w
      where w.job_id = job_id and not w.claimed and w.ready_at > now()
      for update skip locked
    ) t
    where s.job_id = job_id and s.chunk_index = t.chunk_index
    returning s.ready_at, s.chunk_index
  )
  insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
  select job_id, l.ready_at, l.chunk_index from later l;
  next := chunk_private.take_next(
    job_id, job.counter_shards,
    greatest(0, job.max_concurrency - (select count(*)::int from chunk_private.slots s where s.job_id = job_id)),
    false
  );
  to_dispatch := array(
    select n.chunk_index from unnest(next.chunk_indexes, next.ready_ats) n (chunk_index, ready_at)
    where job.has_handler and n.ready_at <= now()
  );
  insert into chunk_private.slots (job_id, chunk_index, kind, priority, ready_at, dispatched_at, dispatch_count)
  select job_id, n.chunk_index, job.kind, job.priority, n.ready_at,
    case when n.chunk_index = any (to_dispatch) then now() end, (n.chunk_index = any (to_dispatch))::int
  from unnest(next.chunk_indexes, next.ready_ats) n (chunk_index, ready_at);
  return to_dispatch;
end
$$;
comment on function chunk_private.fill_slots is
  'Gives the free slots of a pending or running job to its next chunks; returns those that want a webhook now.';
