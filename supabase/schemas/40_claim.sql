-- Claim: take a chunk that waits, with a fencing token and a lease.

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
      locked_until timestamptz,
      checkpoint jsonb,
      limit_key text
    );
  end if;
end
$$;
comment on type chunk_private.claimed_chunk is 'What a worker gets when it claims a chunk.';

create or replace function chunk_private.claimed_by(claim_id uuid)
returns chunk_private.claimed_chunk[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  return array(
    select row(q.id, q.parent_sync_job_id, q.kind, k.handler, q.chunk_index, q.attempts, 1 + q.max_retries, coalesce(q.payload, j.payload), j.payload,
      q.owner_id, q.claim_token, q.locked_until, q.checkpoint, j.limit_key)::chunk_private.claimed_chunk
    from chunk_private.slots s
    join public.chunk_processing_queue q on q.parent_sync_job_id = s.job_id and q.chunk_index = s.chunk_index
    join public.sync_jobs j on j.id = s.job_id
    join public.sync_kinds k on k.kind = j.kind
    where s.claim_id = claim_id and s.claimed
    order by s.ready_at, s.chunk_index
  );
end
$$;
comment on function chunk_private.claimed_by is 'What an earlier claim with this id took and still has.';

create or replace function chunk_private.begin_claim(worker_id text, parent_sync_job_id uuid, lease_seconds int, claim_id uuid)
returns chunk_private.claimed_chunk[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
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
  if claim_id is null then
    return array[]::chunk_private.claimed_chunk[];
  end if;
  perform chunk_private.lock_claim(claim_id);
  return chunk_private.claimed_by(claim_id);
end
$$;
comment on function chunk_private.begin_claim is 'Checks a claim''s arguments; returns what an earlier claim with the same id has.';

-- With SKIP LOCKED, since a claim must not wait; whoever holds the row either does the same or is a control operation that
-- knows better, and the next claim finds what is left.
create or replace function chunk_private.start_jobs(job_ids uuid[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  update public.sync_jobs j
  set status = 'running', started_at = now()
  where j.id = any (array(
    select s.id from public.sync_jobs s where s.id = any (job_ids) and s.status = 'pending' for no key update skip locked
  ));
end
$$;
comment on function chunk_private.start_jobs is 'Makes pending jobs running: a chunk of theirs is claimed.';

-- The slot is the caller's already, and nobody else writes a pending chunk without its slot.
create or replace function chunk_private.start_attempt(
  job_id uuid, chunk_index bigint, worker text, handler text, lease_seconds int, waits boolean
)
returns chunk_private.claimed_chunk
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  chunk record;
begin
  update public.chunk_processing_queue q
  set status = 'processing', attempts = least(q.attempts, q.max_retries) + 1, claim_token = gen_random_uuid(), worker_id = worker,
      locked_until = now() + make_interval(secs => lease_seconds), started_at = now(), updated_at = now()
  from public.sync_jobs j
  where j.id = job_id and q.parent_sync_job_id = job_id and q.chunk_index = chunk_index
    and (waits or q.started_at is null or chunk_private.hold_returned(job_id, chunk_index))
  returning q.id, q.kind, q.attempts, q.max_retries, q.payload, q.owner_id, q.claim_token, q.locked_until, q.checkpoint,
    j.payload as job_payload, j.status as job_status, j.limit_key into chunk;
  if not found then -- or, if it may wait, deleted by somebody: its slot stays claimed, and no other claim finds it
    if not waits then
      perform chunk_private.unclaim(array[job_id], array[chunk_index]);
    end if;
    return null;
  end if;
  if chunk.job_status = 'pending' then
    perform chunk_private.start_jobs(array[job_id]);
  end if;
  return row(chunk.id, job_id, chunk.kind, handler, chunk_index, chunk.attempts, 1 + chunk.max_retries, coalesce(chunk.payload, chunk.job_payload),
    chunk.job_payload,
    chunk.owner_id, chunk.claim_token, chunk.locked_until, chunk.checkpoint, chunk.limit_key);
end
$$;
comment on function chunk_private.start_attempt is 'Claims the chunk of a slot that the caller has claimed; null when it cannot be held and the caller may not wait.';

-- Generic plans: a plan made anew for each list of ids costs more than the claim. And no sequential scans: a plan made
-- while the tables were empty must not meet them full.
-- And no compiling: up to PostgreSQL 17 a scan that is forbidden counts as so dear that each new plan would be compiled.
--
-- A slot is taken by its ctid, since nobody moves a slot that is not claimed but the watchdog, which then sends another
-- webhook for it. Kinds of one priority come in random order, so that none waits for ever behind a busy one.
create or replace function public.claim_next_chunk_job_safe(
  worker_id text, parent_sync_job_id uuid default null, kinds text[] default null, lease_seconds int default null, claim_id uuid default null
)
returns setof chunk_private.claimed_chunk
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  earlier chunk_private.claimed_chunk[];
  lanes bigint[];
  lane record;
  floor timestamptz;
  slot record;
  claimed chunk_private.claimed_chunk;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    perform chunk_private.check_isolation('claim_next_chunk_job_safe');
  end if;
  if num_nonnulls(parent_sync_job_id, lease_seconds, claim_id) > 0 or (length(worker_id) between 1 and 200) is not true then
    earlier := chunk_private.begin_claim(worker_id, parent_sync_job_id, lease_seconds, claim_id);
    if cardinality(earlier) > 0 then
      return next earlier[1];
      return;
    end if;
  end if;
  if cardinality(kinds) is distinct from 1 then -- one is checked below, if nothing was found
    select s.kinds, s.lanes into kinds, lanes from chunk_private.lanes_to_search(kinds, parent_sync_job_id) s;
  end if;
  for lane in
    select l.id, l.handler, coalesce(lease_seconds, l.lease_seconds) as lease_seconds, l.floor
    from chunk_private.claim_lanes l
    where l.kind = any (kinds) and (lanes is null or l.id = any (lanes)) order by l.priority desc, random()
  loop
    floor := case when parent_sync_job_id is null then lane.floor else '-infinity' end;
    loop
      if parent_sync_job_id is null then
        update chunk_private.slots s
        set claimed = true, claim_id = claim_next_chunk_job_safe.claim_id
        where s.ctid = (
          select p.ctid from chunk_private.slots p
          where p.lane = lane.id and not p.claimed and not p.parked and p.ready_at >= floor and p.ready_at <= now()
          order by p.ready_at, p.chunk_index limit 1 for no key update skip locked
        )
        returning s.job_id, s.chunk_index, s.ready_at, s.limit_key into slot;
      else
        update chunk_private.slots s
        set claimed = true, claim_id = claim_next_chunk_job_safe.claim_id
        where s.ctid = (
          select p.ctid from chunk_private.slots p
          where p.job_id = parent_sync_job_id and p.chunk_index >= chunk_private.slots_from(parent_sync_job_id) and p.lane = lane.id
            and (p.claimed or p.parked) is false and p.ready_at <= now() -- so written, it is not read by the claim index
          order by p.ready_at, p.chunk_index limit 1 for no key update skip locked
        )
        returning s.job_id, s.chunk_index, s.ready_at, s.limit_key into slot;
      end if;
      if found then
        if slot.ready_at > floor + interval '50 milliseconds' and parent_sync_job_id is null then
          perform chunk_private.remember_floor(lane.id, slot.ready_at, floor = '-infinity');
        end if;
        if slot.limit_key is not null then -- who claims many asks whether there is room
          perform chunk_private.unclaim(array[slot.job_id], array[slot.chunk_index]);
          return query select c.* from unnest(chunk_private.claim_in_lanes(worker_id, 1, parent_sync_job_id, kinds, lanes, lease_seconds, claim_id)) c;
          return;
        end if;
        claimed := chunk_private.start_attempt(slot.job_id, slot.chunk_index, worker_id, lane.handler, lane.lease_seconds, true);
        if claimed.chunk_id is not null then
          return next claimed;
          return;
        end if;
      else
        exit when floor = '-infinity';
        floor := '-infinity';
      end if;
    end loop;
  end loop;
  perform chunk_private.check_kinds(kinds);
  return query select c.* from unnest(case when parent_sync_job_id is not null then
    chunk_private.claim_by_job(worker_id, 1, parent_sync_job_id, kinds, lease_seconds, claim_id) end) c;
end
$$;
comment on function public.claim_next_chunk_job_safe is
  'Claims the next chunk: 0 or 1 rows. kinds null means the kinds that have a handler. lease_seconds null means the kind''s. A claim repeated with the same claim_id returns the chunk that it already has.';
