-- Being throttled is no failure: the chunk goes back without an attempt, and its limit key is blocked for as long.

create or replace function chunk_private.throttle_attempt(chunk public.chunk_processing_queue, reason text, seconds int)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  delay constant interval := make_interval(secs => seconds);
  stripe bigint;
  held bigint;
begin
  if coalesce(chunk.throttled, 0) >= (select s.max_throttled from chunk_private.settings s) then
    return chunk_private.end_attempt(chunk, 'error', reason || ' (throttled too often: counted as an attempt)', true, seconds);
  end if;
  insert into chunk_private.chunk_attempts (job_id, chunk_id, attempt, outcome, error, worker_id, claim_token, claimed_at)
  values (chunk.parent_sync_job_id, chunk.id, chunk.attempts, 'throttled', reason, chunk.worker_id, chunk.claim_token, chunk.started_at);
  update public.chunk_processing_queue q
  set status = 'pending', attempts = q.attempts - 1, throttled = coalesce(q.throttled, 0) + 1, ready_at = now() + delay,
      claim_token = null, locked_until = null, items_processed = q.checkpoint_items, items_counted = q.checkpoint_items, updated_at = now()
  where q.id = chunk.id;
  insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
  values (chunk.parent_sync_job_id, now() + delay, chunk.chunk_index);
  stripe := chunk.chunk_index % (select j.stripes from public.sync_jobs j where j.id = chunk.parent_sync_job_id);
  held := chunk_private.hold_counter(chunk.parent_sync_job_id, stripe);
  update chunk_private.job_counters c
  set items_processed = least(greatest(c.items_processed + coalesce(chunk.checkpoint_items, 0) - coalesce(chunk.items_counted, 0), 0), chunk_private.most_items()),
      last_activity_at = now(), changes = c.changes + 1
  where c.job_id = chunk.parent_sync_job_id and c.stripe = stripe and c.generation = held;
  return 'throttled';
end
$$;
comment on function chunk_private.throttle_attempt is
  'Gives a locked, processing chunk back for so many seconds, without an attempt: throttled. After settings.max_throttled times without progress it counts: what end_attempt returns.';

-- What is awake is parked again: settle_limit wakes as many as there is room for, from the new time on.
create or replace function chunk_private.block_limit(limit_key text, until timestamptz, reason text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  before constant timestamptz := (select l.blocked_until from public.sync_limits l where l.key = limit_key);
begin
  if until is null then
    update public.sync_limits l set blocked_until = null, blocked_reason = null, updated_at = now() where l.key = limit_key;
  else
    insert into public.sync_limits (key, blocked_until, blocked_reason) values (limit_key, until, reason)
    on conflict on constraint sync_limits_pkey do update
    set blocked_until = excluded.blocked_until, blocked_reason = excluded.blocked_reason, updated_at = now();
  end if;
  with awake as materialized (
    select s.job_id, s.chunk_index from chunk_private.slots s
    where s.limit_key = limit_key and s.claimed < true and not s.parked -- so written, it is not read by the claim index
      and (s.ready_at <= now() or s.ready_at = before)
    for update skip locked
  )
  update chunk_private.slots s
  set parked = true, ready_at = least(s.ready_at, now())
  from awake a
  where s.job_id = a.job_id and s.chunk_index = a.chunk_index;
end
$$;
comment on function chunk_private.block_limit is
  'Blocks a limit key until then, or with null no longer. The caller has its lock, and settles it next.';

create or replace function chunk_private.settle_report(
  job_id uuid, limit_key text, throttled_seconds int, reason text, next_claim_id uuid, worker text, handler text, lease_seconds int
)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  until constant timestamptz := now() + make_interval(secs => least(throttled_seconds, 3600));
  to_claim bigint;
  following jsonb;
begin
  if not chunk_private.wait_for_limit(limit_key) then
    return null;
  end if;
  if throttled_seconds > 0 and until > (chunk_private.limit_of(limit_key)).opens_at then
    perform chunk_private.block_limit(limit_key, until, reason);
  end if;
  if next_claim_id is not null then
    to_claim := chunk_private.claim_in_turn(limit_key, job_id, next_claim_id);
    if to_claim is not null then
      following := to_jsonb(chunk_private.start_attempt(job_id, to_claim, worker, handler, lease_seconds, false));
    end if;
  end if;
  perform chunk_private.settle_limit(limit_key);
  return following;
end
$$;
comment on function chunk_private.settle_report is
  'What a report does last whose job has a limit key: blocks the key when the chunk was throttled, claims the job''s next chunk if it is its turn, and settles. Returns that chunk.';

create or replace function chunk_private.settle_reports(
  job_ids uuid[], accepted chunk_private.accepted_report[], reports chunk_private.report[], outcomes text[]
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  shared record;
begin
  for shared in
    select j.limit_key, (array_agg(j.id))[1] as job_id, max(t.seconds) as seconds, (array_agg(t.error order by t.seconds desc nulls last))[1] as reason
    from public.sync_jobs j
    left join lateral (
      select r.throttled_seconds as seconds, r.error
      from unnest(accepted) a
      join unnest(reports) r on r.place = a.place
      where a.job_id = j.id and outcomes[a.place] = 'throttled'
      order by r.throttled_seconds desc limit 1
    ) t on true
    where j.id = any (job_ids)
    group by j.limit_key
    order by j.limit_key
  loop
    perform chunk_private.settle_report(shared.job_id, shared.limit_key, shared.seconds, shared.reason, null, null, null, null);
  end loop;
end
$$;
comment on function chunk_private.settle_reports is 'What settle_report does, for the jobs of a bulk report that have limit keys.';
