-- Claim: take released chunks, with a fencing token and a lease.
--
-- In the bodies of this project a bare name is always an argument or a variable, a column is always qualified
-- (`#variable_conflict use_variable`): the arguments are public names and equal to many columns.
--
-- Order of locks, for every function of this project, so that no two of them wait for each other in a circle:
--   1. gates by job id: pg_advisory_xact_lock[_shared](uuid_hash_extended(job, 0)). Shared: complete, extend, give back,
--      recovery. Exclusive: cancel, pause, resume, retry, append, seal, settle, and a completion with next_chunks
--   2. slots of claimable chunks   3. chunks by id   4. counters by (job, shard)   5. jobs by id
--   6. what a freed slot goes to: returned chunks and stripes; nothing waits after them
-- A claim enters no gate: it takes slots with SKIP LOCKED and then writes chunks that only it can hold.

do $$
begin
  if to_regtype('chunk_private.claimed_chunk') is null then
    create type chunk_private.claimed_chunk as (
      chunk_id bigint,
      parent_sync_job_id uuid,
      kind text,
      handler text,
      chunk_index bigint,
      attempt int,
      max_attempts int,
      payload jsonb,
      job_payload jsonb,
      owner_id uuid,
      claim_token uuid,
      locked_until timestamptz
    );
  end if;
end
$$;
comment on type chunk_private.claimed_chunk is 'What a worker gets when it claims a chunk.';

create or replace function chunk_private.check_range(argument text, value bigint, lowest bigint, highest bigint)
returns void
language plpgsql
immutable
set search_path = ''
as $$
begin
  if value not between lowest and highest then
    raise exception using errcode = 'SC003', detail = argument,
      message = format('%s must be between %s and %s, not %s', argument, lowest, highest, value);
  end if;
end
$$;
comment on function chunk_private.check_range is 'Raises SC003, naming the argument, when the value lies outside; null passes.';

-- The state change of every claim. The slots are locked by the caller's take, and nobody else writes a pending chunk
-- without its slot. A job's first claim makes it running: with SKIP LOCKED, since a claim must not wait; whoever holds the
-- row either does the same or is a control operation that knows better, and the next claim finds what is left.
create or replace function chunk_private.mark_claimed(
  job_ids uuid[], chunk_indexes bigint[], worker_id text, lease_seconds int, claim_id uuid
)
returns chunk_private.claimed_chunk[]
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  claimed chunk_private.claimed_chunk[];
  starting uuid[];
begin
  with slot as (
    update chunk_private.slots s
    set claimed = true, claim_id = claim_id
    from unnest(job_ids, chunk_indexes) with ordinality t (job_id, chunk_index, place)
    where s.job_id = t.job_id and s.chunk_index = t.chunk_index
    returning s.job_id, s.chunk_index, t.place
  ),
  chunk as (
    update public.chunk_processing_queue q
    set status = 'processing',
        attempts = q.attempts + 1,
        claim_token = gen_random_uuid(),
        worker_id = worker_id,
        locked_until = now() + make_interval(secs => coalesce(lease_seconds, k.lease_seconds)),
        started_at = now(),
        updated_at = now()
    from slot t
    join public.sync_jobs j on j.id = t.job_id
    join public.sync_kinds k on k.kind = j.kind
    where q.parent_sync_job_id = t.job_id and q.chunk_index = t.chunk_index
    returning q.id, q.parent_sync_job_id, q.kind, k.handler, q.chunk_index, q.attempts, q.max_retries, q.payload, j.payload as job_payload,
      q.owner_id, q.claim_token, q.locked_until, j.status as job_status, t.place
  )
  select
    array_agg(row(c.id, c.parent_sync_job_id, c.kind, c.handler, c.chunk_index, c.attempts, 1 + c.max_retries, c.payload, c.job_payload,
      c.owner_id, c.claim_token, c.locked_until)::chunk_private.claimed_chunk order by c.place),
    array_agg(c.parent_sync_job_id) filter (where c.job_status = 'pending')
  into claimed, starting
  from chunk c;
  if starting is not null then
    update public.sync_jobs j
    set status = 'running', started_at = now()
    where j.id = any (array(
      select s.id from public.sync_jobs s where s.id = any (starting) and s.status = 'pending' for no key update skip locked
    ));
  end if;
  return coalesce(claimed, '{}');
end
$$;
comment on function chunk_private.mark_claimed is 'Claims the chunks of slots that the caller has locked, in the order given.';

create or replace function chunk_private.claimed_by(claim_id uuid)
returns chunk_private.claimed_chunk[]
language plpgsql
stable
set search_path = ''
as $$
#variable_conflict use_variable
begin
  return array(
    select row(q.id, q.parent_sync_job_id, q.kind, k.handler, q.chunk_index, q.attempts, 1 + q.max_retries, q.payload, j.payload,
      q.owner_id, q.claim_token, q.locked_until)::chunk_private.claimed_chunk
    from chunk_private.slots s
    join public.chunk_processing_queue q on q.parent_sync_job_id = s.job_id and q.chunk_index = s.chunk_index
    join public.sync_jobs j on j.id = s.job_id
    join public.sync_kinds k on k.kind = s.kind
    where s.claim_id = claim_id and s.claimed
    order by s.ready_at, s.chunk_index
  );
end
$$;
comment on function chunk_private.claimed_by is 'What an earlier claim with this id took and still has.';

-- Takes up to how_many released chunks of a lane, the longest released first.
--
-- While somebody's long query holds an old snapshot, dead index entries of finished chunks pile up before the first live
-- one. Each session therefore remembers, a lane, from which release time on it last found chunks, and starts there; it
-- looks from the very beginning when it finds too few, and at times in between, for chunks committed late.
create or replace function chunk_private.take_from_lane(
  lane_id int, kind text, priority smallint, how_many int, out job_ids uuid[], out chunk_indexes bigint[]
)
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  setting constant text := 'chunk_private.floor_' || lane_id;
  beginning constant timestamptz := '-infinity'::timestamptz;
  lowest timestamptz := beginning;
  newest timestamptz;
begin
  if random() > 0.02 then
    lowest := coalesce(to_timestamp(nullif(current_setting(setting, true), '')::float8), beginning);
  end if;
  loop
    select array_agg(t.job_id), array_agg(t.chunk_index), max(t.ready_at) into job_ids, chunk_indexes, newest
    from (
      select s.job_id, s.chunk_index, s.ready_at from chunk_private.slots s
      where s.kind = kind and s.priority = priority and not s.claimed and s.ready_at >= lowest and s.ready_at <= now()
      order by s.ready_at, s.chunk_index
      limit how_many
      for no key update skip locked
    ) t;
    exit when lowest = beginning or cardinality(job_ids) = how_many;
    lowest := beginning;
  end loop;
  -- A twentieth of a second is near enough, and spares most claims the write.
  if newest not between lowest and lowest + interval '50 milliseconds' then
    perform set_config(setting, (extract(epoch from newest) - 0.001)::text, false);
  end if;
end
$$;
comment on function chunk_private.take_from_lane is 'Locks up to how_many claimable slots of one kind and priority, and returns their places, or nulls.';

create or replace function chunk_private.claim(
  worker_id text, how_many int, parent_sync_job_id uuid, kinds text[], lease_seconds int, claim_id uuid
)
returns chunk_private.claimed_chunk[]
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  lane record;
  taken record;
  earlier chunk_private.claimed_chunk[];
  job_ids uuid[] := array[]::uuid[];
  chunk_indexes bigint[] := array[]::bigint[];
begin
  if worker_id is null or length(worker_id) not between 1 and 200 then
    raise exception using errcode = 'SC003', detail = 'worker_id', message = 'worker_id must be a text of 1 to 200 characters';
  end if;
  if lease_seconds not between 1 and 86400 then
    perform chunk_private.check_range('lease_seconds', lease_seconds, 1, 86400);
  end if;
  -- Nested: a condition with a query in it runs as a query, also for the claims that name no job.
  if parent_sync_job_id is not null then
    if not exists (select from public.sync_jobs j where j.id = parent_sync_job_id) then
      raise exception using errcode = 'SC001', message = format('there is no sync job %s', parent_sync_job_id);
    end if;
  end if;
  if claim_id is not null then
    -- The lock makes a repeat wait for a first claim that is still under way.
    perform pg_advisory_xact_lock(uuid_hash_extended(claim_id, 1));
    earlier := chunk_private.claimed_by(claim_id);
    if cardinality(earlier) > 0 then
      return earlier;
    end if;
  end if;

  -- Kinds of one priority in random order, so that none waits for ever behind a busy one.
  for lane in
    select w.kind, k.kind as known, l.id, l.kind as used, l.priority
    from unnest(coalesce(kinds, array(select h.kind from public.sync_kinds h where h.handler is not null))) w (kind)
    left join public.sync_kinds k on k.kind = w.kind
    left join chunk_private.lanes l on l.kind = k.kind
    order by l.priority desc nulls first, random()
  loop
    if lane.known is null then
      raise exception using errcode = 'SC002', detail = 'kinds', message = format('no sync kind is named %L', lane.kind),
        hint = 'save_sync_kind() adds one.';
    end if;
    continue when lane.used is null;
    if parent_sync_job_id is null then
      taken := chunk_private.take_from_lane(lane.id, lane.kind, lane.priority, how_many - cardinality(job_ids));
      job_ids := job_ids || taken.job_ids;
      chunk_indexes := chunk_indexes || taken.chunk_indexes;
    else
      chunk_indexes := chunk_indexes || array(
        select s.chunk_index from chunk_private.slots s
        where s.job_id = parent_sync_job_id and s.kind = lane.kind and s.priority = lane.priority and not s.claimed and s.ready_at <= now()
        order by s.ready_at, s.chunk_index
        limit how_many - cardinality(chunk_indexes)
        for no key update skip locked
      );
      job_ids := array_fill(parent_sync_job_id, array[cardinality(chunk_indexes)]);
    end if;
    exit when cardinality(job_ids) = how_many;
  end loop;

  if cardinality(job_ids) = 0 then
    return array[]::chunk_private.claimed_chunk[];
  end if;
  return chunk_private.mark_claimed(job_ids, chunk_indexes, worker_id, lease_seconds, claim_id);
end
$$;
comment on function chunk_private.claim is 'The body of both claims. kinds null: the kinds that have a handler.';

-- Generic plans: a plan made anew for each list of ids costs more than the claim. And no sequential scans: a plan made
-- while the tables were empty must not meet them full.
-- And no compiling: up to PostgreSQL 17 a scan that is forbidden counts as so dear that each new plan would be compiled.
create or replace function public.claim_next_chunk_job_safe(
  worker_id text, parent_sync_job_id uuid default null, kinds text[] default null, lease_seconds int default null, claim_id uuid default null
)
returns setof chunk_private.claimed_chunk
language plpgsql
set search_path = ''
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
begin
  return query select c.* from unnest(chunk_private.claim(worker_id, 1, parent_sync_job_id, kinds, lease_seconds, claim_id)) c;
end
$$;
comment on function public.claim_next_chunk_job_safe is
  'Claims the next chunk: 0 or 1 rows. kinds null means the kinds that have a handler. lease_seconds null means the kind''s. A claim repeated with the same claim_id returns the chunk that it already has.';

create or replace function public.claim_chunk_jobs_safe(
  worker_id text, batch_size int, parent_sync_job_id uuid default null, kinds text[] default null, lease_seconds int default null,
  claim_id uuid default null
)
returns jsonb
language plpgsql
set search_path = ''
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
begin
  perform chunk_private.check_range('batch_size', coalesce(batch_size, 0), 1, 100);
  return to_jsonb(chunk_private.claim(worker_id, batch_size, parent_sync_job_id, kinds, lease_seconds, claim_id));
end
$$;
comment on function public.claim_chunk_jobs_safe is
  'Claims up to batch_size (at most 100) chunks at once: a JSON array of what claim_next_chunk_job_safe returns.';
