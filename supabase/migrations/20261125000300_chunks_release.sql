-- Release: which chunk may be claimed next. Dispatch: the webhook that says so.

-- Vault and pg_net may be used by the owner of the migrations only, hence a definer. A webhook must never break the write
-- that asks for it: every failure ends in the table of dispatches, and the chunk stays claimable.
create or replace function chunk_private.dispatch(job public.sync_jobs, chunk_indexes bigint[])
returns int
language plpgsql
security definer -- reads the Vault and calls pg_net, which service_role may not
set search_path = ''
as $$
#variable_conflict use_variable
declare
  chunk_ids constant bigint[] := array(
    select q.id from public.chunk_processing_queue q
    where q.parent_sync_job_id = job.id and q.chunk_index = any (chunk_indexes) order by q.chunk_index
  );
  base_url text;
  processor_key text;
  chunk_id bigint;
  problem text;
  wait_seconds int;
  request_ids bigint[] := array[]::bigint[];
  problems text[] := array[]::text[];
  request_id bigint;
begin
  begin
    select max(s.decrypted_secret) filter (where s.name = 'project_url'),
      max(s.decrypted_secret) filter (where s.name = 'chunk_processor_key')
    into base_url, processor_key
    from vault.decrypted_secrets s where s.name in ('project_url', 'chunk_processor_key');
    if base_url is null or processor_key is null then
      problem := 'not configured: call configure_chunk_processing() with the project''s URL and a secret key';
    end if;
  exception when others then
    problem := 'the Vault cannot be read: ' || sqlerrm;
  end;
  foreach chunk_id in array chunk_ids loop
    request_id := null;
    if problem is null then
      wait_seconds := (
        select ceil(extract(epoch from q.ready_at - now()))::int
        from public.chunk_processing_queue q where q.id = chunk_id and q.ready_at > now()
      );
      begin
        request_id := net.http_post(
          url => base_url || '/functions/v1/background-sync-processor',
          body => jsonb_strip_nulls(
            jsonb_build_object('parent_sync_job_id', job.id, 'chunk_id', chunk_id, 'wait_seconds', wait_seconds)
          ),
          headers => jsonb_build_object('Content-Type', 'application/json', 'apikey', processor_key),
          timeout_milliseconds => 10000
        );
      exception
        when undefined_function or invalid_schema_name then
          problem := 'the extension pg_net is not installed';
        when others then
          problem := 'pg_net refused the request: ' || sqlerrm;
      end;
    end if;
    request_ids := request_ids || request_id;
    problems := problems || problem;
  end loop;
  insert into chunk_private.dispatches (job_id, owner_id, chunk_id, request_id, error)
  select job.id, job.owner_id, d.chunk_id, d.request_id, d.problem
  from unnest(chunk_ids, request_ids, problems) d (chunk_id, request_id, problem);
  return cardinality(array_remove(request_ids, null));
end
$$;
comment on function chunk_private.dispatch is
  'Asks pg_net for one webhook a chunk, sent after commit; returns how many it took. URL and key come from the Vault at each call. wait_seconds in it: the chunk''s retry is due then.';

-- What a free slot goes to, in this order: a returned chunk that is due, one that was never released, else the returned one
-- that is due soonest, which then keeps the slot.

create or replace function chunk_private.take_returned(
  job_id uuid, due_until timestamptz, how_many int, out chunk_indexes bigint[], out ready_ats timestamptz[]
)
language plpgsql
set search_path = ''
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
  'Takes up to how_many returned chunks of a job that are due by then, the longest due first: their places, and from when on each may be claimed.';

-- Locks the stripes in order: two that each held some of them would wait for each other's once their own are empty.
create or replace function chunk_private.take_lowest(job public.sync_jobs, how_many int)
returns bigint[]
language plpgsql
set search_path = ''
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
      o.next_index, least(o.end_index - 1, o.next_index + job.counter_shards * (how_many - 1)::bigint), job.counter_shards
    ) c (chunk_index)
    order by c.chunk_index limit how_many
  ),
  moved as (
    update chunk_private.fresh_stripes f
    set next_index = l.last_index + job.counter_shards
    from (select w.stripe, max(w.chunk_index) as last_index from lowest w group by w.stripe) l
    where f.job_id = job.id and f.stripe = l.stripe
  )
  select array_agg(l.chunk_index) into chunk_indexes from lowest l;
  return coalesce(chunk_indexes, '{}');
end
$$;
comment on function chunk_private.take_lowest is 'Takes the up to how_many lowest chunks of a job that were never released, and returns their places.';

-- For reports, of which many come at once: from one stripe, that nobody holds, so that they do not wait for each other; and
-- the chunks of one batch then share a counter when they are reported.
create or replace function chunk_private.take_fresh(job public.sync_jobs, how_many int)
returns bigint[]
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  span constant bigint := job.counter_shards * how_many::bigint;
  first_index bigint;
begin
  loop
    update chunk_private.fresh_stripes f
    set next_index = f.next_index + span
    where f.job_id = job.id and f.stripe = (
      select s.stripe from chunk_private.fresh_stripes s
      where s.job_id = job.id and s.next_index + span < s.end_index + job.counter_shards
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
  return array(select generate_series(first_index, first_index + span - 1, job.counter_shards));
end
$$;
comment on function chunk_private.take_fresh is 'Takes up to how_many chunks of a job that were never released, and returns their places.';

create or replace function chunk_private.take_claimable(
  job public.sync_jobs, how_many int, lowest boolean, out chunk_indexes bigint[], out ready_ats timestamptz[]
)
language plpgsql
set search_path = ''
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
  'Takes up to how_many chunks of a job that may be claimed now, of those never released the lowest or any: their places, and since when.';

-- pg_net cannot send later. So the webhook of a retry that is due soon goes out at once, and the processor waits; else the
-- last retries of a job, when no report follows that could start them, would wait for the watchdog.
create or replace function chunk_private.give_slots(
  job public.sync_jobs, chunk_indexes bigint[], ready_ats timestamptz[], claim_ids uuid[], sent_until timestamptz
)
returns void
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  claims constant int := cardinality(claim_ids);
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
      where n.ready_at <= sent_until and n.place > claims
    );
  end if;
  insert into chunk_private.slots (job_id, chunk_index, lane, ready_at, claimed, claim_id, dispatched_at, dispatch_count)
  select job.id, n.chunk_index, lane.id, n.ready_at, n.place <= claims, claim_ids[n.place],
    case when n.chunk_index = any (to_dispatch) then now() end, (n.chunk_index = any (to_dispatch))::int
  from unnest(chunk_indexes, ready_ats) with ordinality n (chunk_index, ready_at, place);
  if cardinality(to_dispatch) > 0 then
    perform chunk_private.dispatch(job, to_dispatch);
  end if;
end
$$;
comment on function chunk_private.give_slots is
  'Releases chunks: each gets a slot and, if it may be claimed by sent_until, a webhook. The first ones are claimed at once, with the claim ids given.';

-- What a report does with the slots it has freed, under a shared gate: each goes to at most one chunk, so the cap holds
-- without counting.
create or replace function chunk_private.pass_slots_on(job public.sync_jobs, freed bigint[], claim_ids uuid[])
returns bigint[]
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  next record;
  free int;
  later record;
  to_claim bigint[];
  waiting bigint[];
begin
  delete from chunk_private.slots s where s.job_id = job.id and s.chunk_index = any (freed);
  if job.status not in ('pending', 'running') then
    return array[]::bigint[];
  end if;
  next := chunk_private.take_claimable(job, cardinality(freed), false);
  free := cardinality(freed) - cardinality(next.chunk_indexes);
  to_claim := next.chunk_indexes[1:cardinality(claim_ids)];
  if free > 0 then
    -- Nothing else is claimable: claim chunks that have slots already. The free slots wait with retries that are not due.
    waiting := array(
      select s.chunk_index from chunk_private.slots s
      where s.job_id = job.id and not s.claimed and s.ready_at <= now()
      order by s.ready_at, s.chunk_index limit cardinality(claim_ids) - cardinality(to_claim) for no key update skip locked
    );
    update chunk_private.slots s
    set claimed = true, claim_id = w.claim_id
    from unnest(waiting, claim_ids[cardinality(to_claim) + 1:]) w (chunk_index, claim_id)
    where s.job_id = job.id and s.chunk_index = w.chunk_index;
    claim_ids := claim_ids[1:cardinality(to_claim)];
    to_claim := to_claim || waiting;
    later := chunk_private.take_returned(job.id, 'infinity', free);
    next.chunk_indexes := next.chunk_indexes || later.chunk_indexes;
    next.ready_ats := next.ready_ats || later.ready_ats;
  end if;
  if cardinality(next.chunk_indexes) > 0 then
    perform chunk_private.give_slots(job, next.chunk_indexes, next.ready_ats, claim_ids, now() + interval '25 seconds');
  end if;
  return to_claim;
end
$$;
comment on function chunk_private.pass_slots_on is
  'Gives the slots of finished chunks to the job''s next ones, if it still runs. Returns up to as many chunks as there are claim ids, their slots claimed: the caller starts their attempts.';

-- Only under the job's exclusive gate: with shared ones two transactions would each count the same free slot.
create or replace function chunk_private.fill_slots(job_id uuid)
returns int
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  job public.sync_jobs;
  free int;
  next record;
  later record;
begin
  select j.* into job from public.sync_jobs j where j.id = job_id and j.status in ('pending', 'running');
  if not found then
    return 0;
  end if;
  -- A chunk in backoff that kept its slot for want of others gives it to those that have come since.
  with later as materialized (
    select w.chunk_index from chunk_private.slots w
    where w.job_id = job_id and not w.claimed and w.ready_at > now()
    for update skip locked
  ),
  given_up as (
    delete from chunk_private.slots s using later l
    where s.job_id = job_id and s.chunk_index = l.chunk_index
    returning s.ready_at, s.chunk_index
  )
  insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
  select job_id, g.ready_at, g.chunk_index from given_up g;
  free := greatest(0, job.max_concurrency - (select count(*)::int from chunk_private.slots s where s.job_id = job_id));
  next := chunk_private.take_claimable(job, free, true);
  later := chunk_private.take_returned(job_id, 'infinity', free - cardinality(next.chunk_indexes));
  next.chunk_indexes := next.chunk_indexes || later.chunk_indexes;
  -- What is not due yet was waited for since it failed, or is the watchdog's: no webhook.
  perform chunk_private.give_slots(job, next.chunk_indexes, next.ready_ats || later.ready_ats, '{}', now());
  return cardinality(next.chunk_indexes);
end
$$;
comment on function chunk_private.fill_slots is
  'Gives the free slots of a pending or running job to its next chunks; returns how many.';
