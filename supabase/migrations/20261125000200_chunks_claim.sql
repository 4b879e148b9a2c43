-- Claim: take released chunks, with a fencing token and a lease.
--
-- In the bodies of this project a bare name is always an argument or a variable, a column is always qualified
-- (`#variable_conflict use_variable`): the arguments are public names and equal to many columns.
--
-- Order of locks, for every function of this project, so that no two of them wait for each other in a circle:
--   1. gates by job id: pg_advisory_xact_lock[_shared](uuid_hash_extended(job, 0)). Shared: complete, extend, release, recovery.
--      Exclusive: cancel, pause, resume, retry, append, seal, settle, and a completion with next_chunks
--   2. chunks by id   3. counters by (job, shard)   4. jobs by id
--   5. takes with SKIP LOCKED, which never wait; nothing may wait after them. A claim consists of such takes only.

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

-- The state change of every claim. The rows are locked by the caller's take.
-- A job's first claim makes it running: with SKIP LOCKED, since a claim must not wait; whoever holds the row either does
-- the same or is a control operation that knows better, and the next claim finds what is left.
create or replace function chunk_private.mark_claimed(chunk_ids bigint[], worker_id text, lease_seconds int, claim_id uuid)
returns setof chunk_private.claimed_chunk
language sql
set search_path = ''
as $$
  with taken as (
    update public.chunk_processing_queue q
    set status = 'processing',
        released = true,
        attempts = q.attempts + 1,
        ready_at = least(q.ready_at, now()),
        claim_token = gen_random_uuid(),
        claim_id = $4,
        worker_id = $2,
        locked_until = now() + make_interval(secs => coalesce($3, k.lease_seconds)),
        started_at = now(),
        updated_at = now()
    from public.sync_kinds k
    where q.id = any($1) and k.kind = q.kind
    returning q.id, q.parent_sync_job_id, q.kind, k.handler, q.chunk_index, q.attempts, q.max_retries, q.payload, q.owner_id,
      q.claim_token, q.locked_until
  ),
  started as (
    update public.sync_jobs j
    set status = 'running', started_at = now()
    where j.id = any (array(
      select s.id from public.sync_jobs s
      where s.id in (select t.parent_sync_job_id from taken t) and s.status = 'pending'
      for no key update skip locked
    ))
  )
  select t.id, t.parent_sync_job_id, t.kind, t.handler, t.chunk_index, t.attempts, 1 + t.max_retries, t.payload, j.payload, t.owner_id,
    t.claim_token, t.locked_until
  from taken t
  join public.sync_jobs j on j.id = t.parent_sync_job_id
  order by array_position($1, t.id);
$$;
comment on function chunk_private.mark_claimed is 'Turns chunks that the caller has locked into claimed ones, in the order given.';

create or replace function chunk_private.claimed_by(claim_id uuid)
returns setof chunk_private.claimed_chunk
language sql
set search_path = ''
as $$
  select q.id, q.parent_sync_job_id, q.kind, k.handler, q.chunk_index, q.attempts, 1 + q.max_retries, q.payload, j.payload, q.owner_id,
    q.claim_token, q.locked_until
  from public.chunk_processing_queue q
  join public.sync_jobs j on j.id = q.parent_sync_job_id
  join public.sync_kinds k on k.kind = q.kind
  where q.claim_id = $1 and q.status = 'processing'
  order by q.ready_at, q.id;
$$;
comment on function chunk_private.claimed_by is 'What an earlier claim with this id took and still has.';

create or replace function chunk_private.lease_length(chunk public.chunk_processing_queue)
returns int
language sql
immutable
set search_path = ''
as $$ select greatest(1, extract(epoch from ($1).locked_until - ($1).updated_at))::int; $$;
comment on function chunk_private.lease_length is 'The lease in seconds that the chunk was last given, by its claim or a heartbeat.';

-- Takes up to how_many released chunks of a lane, the longest released first.
--
-- While somebody's long query holds an old snapshot, dead index entries of finished chunks pile up before the first live
-- one. Each session therefore remembers, a lane, from which release time on it last found chunks, and starts there; it
-- looks from the very beginning when it finds too few, and at times in between, for chunks committed late.
create or replace function chunk_private.take_from_lane(lane_id int, kind text, priority int, how_many int)
returns bigint[]
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  setting constant text := 'chunk_private.floor_' || lane_id;
  beginning constant timestamptz := '-infinity';
  lowest timestamptz := beginning;
  newest timestamptz;
  taken bigint[];
begin
  if random() > 0.02 then
    lowest := coalesce(to_timestamp(nullif(current_setting(setting, true), '')::float8), beginning);
  end if;
  loop
    select array_agg(t.id), max(t.ready_at) into taken, newest
    from (
      select q.id, q.ready_at from public.chunk_processing_queue q
      where q.kind = kind and q.priority = priority and q.status = 'pending' and q.released
        and q.ready_at >= lowest and q.ready_at <= now()
      order by q.ready_at, q.id
      limit how_many
      for no key update skip locked
    ) t;
    exit when lowest = beginning or cardinality(taken) = how_many;
    lowest := beginning;
  end loop;
  -- A twentieth of a second is near enough, and spares most claims the write.
  if newest not between lowest and lowest + interval '50 milliseconds' then
    perform set_config(setting, (extract(epoch from newest) - 0.001)::text, false);
  end if;
  return coalesce(taken, '{}');
end
$$;
comment on function chunk_private.take_from_lane is 'Locks up to how_many claimable chunks of one kind and priority, and returns their ids.';

create or replace function chunk_private.claim(
  worker_id text, how_many int, parent_sync_job_id uuid, kinds text[], lease_seconds int, claim_id uuid
)
returns setof chunk_private.claimed_chunk
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  lane record;
  taken bigint[] := '{}';
  unknown text;
begin
  if worker_id is null or length(worker_id) not between 1 and 200 then
    raise exception using errcode = 'SC003', detail = 'worker_id', message = 'worker_id must be a text of 1 to 200 characters';
  end if;
  perform chunk_private.check_range('lease_seconds', lease_seconds, 1, 86400) where lease_seconds is not null;
  if kinds is not null then
    select k.kind into unknown from unnest(kinds) k (kind)
    where not exists (select from public.sync_kinds s where s.kind = k.kind) limit 1;
    if found then
      raise exception using errcode = 'SC002', detail = 'kinds', message = format('no sync kind is named %L', unknown),
        hint = 'save_sync_kind() adds one.';
    end if;
  end if;

  if claim_id is not null then
    -- The lock makes a repeat wait for a first claim that is still under way.
    perform pg_advisory_xact_lock(uuid_hash_extended(claim_id, 1));
    return query select * from chunk_private.claimed_by(claim_id);
    if found then
      return;
    end if;
  end if;

  if parent_sync_job_id is not null then
    if not exists (select from public.sync_jobs j where j.id = parent_sync_job_id) then
      raise exception using errcode = 'SC001', message = format('there is no sync job %s', parent_sync_job_id);
    end if;
    taken := array(
      select q.id from public.chunk_processing_queue q
      where q.parent_sync_job_id = parent_sync_job_id and q.status = 'pending' and q.released and q.ready_at <= now()
        and exists (
          select from public.sync_kinds k
          where k.kind = q.kind and (k.kind = any (kinds) or kinds is null and k.handler is not null)
        )
      order by q.ready_at, q.id
      limit how_many
      for no key update of q skip locked
    );
  else
    -- Kinds of one priority in random order, so that none waits for ever behind a busy one.
    for lane in
      select l.id, l.kind, l.priority from chunk_private.lanes l
      join public.sync_kinds k on k.kind = l.kind
      where l.kind = any (kinds) or kinds is null and k.handler is not null
      order by l.priority desc, random()
    loop
      taken := taken || chunk_private.take_from_lane(lane.id, lane.kind, lane.priority, how_many - cardinality(taken));
      exit when cardinality(taken) = how_many;
    end loop;
  end if;

  if cardinality(taken) > 0 then
    return query select * from chunk_private.mark_claimed(taken, worker_id, lease_seconds, claim_id);
  end if;
end
$$;
comment on function chunk_private.claim is 'The body of both claims. kinds null: the kinds that have a handler.';

create or replace function public.claim_next_chunk_job_safe(
  worker_id text, parent_sync_job_id uuid default null, kinds text[] default null, lease_seconds int default null, claim_id uuid default null
)
returns setof chunk_private.claimed_chunk
language sql
set search_path = ''
as $$ select * from chunk_private.claim($1, 1, $2, $3, $4, $5); $$;
comment on function public.claim_next_chunk_job_safe is
  'Claims the next chunk: 0 or 1 rows. kinds null means the kinds that have a handler. lease_seconds null means the kind''s. A claim repeated with the same claim_id returns the chunk that it already has.';

create or replace function public.claim_chunk_jobs_safe(
  worker_id text, batch_size int, parent_sync_job_id uuid default null, kinds text[] default null, lease_seconds int default null,
  claim_id uuid default null
)
returns jsonb
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
begin
  perform chunk_private.check_range('batch_size', coalesce(batch_size, 0), 1, 100);
  return coalesce(
    (select jsonb_agg(to_jsonb(c)) from chunk_private.claim(worker_id, batch_size, parent_sync_job_id, kinds, lease_seconds, claim_id) c),
    '[]'
  );
end
$$;
comment on function public.claim_chunk_jobs_safe is
  'Claims up to batch_size (at most 100) chunks at once: a JSON array of what claim_next_chunk_job_safe returns.';
