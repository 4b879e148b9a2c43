-- Heartbeats, checkpoints and giving back.

create or replace function chunk_private.check_leases(leases jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  if jsonb_typeof(leases) is distinct from 'array' then
    raise exception using errcode = 'SC003', detail = 'leases',
      message = 'leases must be a JSON array of objects with chunk_id and claim_token';
  end if;
  perform chunk_private.check_length('leases', leases, 1000);
  begin
    perform max(r.chunk_id), max(r.claim_token::text), max(r.items_processed)
    from jsonb_array_elements(leases) l (item)
    cross join lateral jsonb_to_record(l.item) r (chunk_id bigint, claim_token uuid, items_processed bigint);
  exception when data_exception then
    raise exception using errcode = 'SC003', detail = 'leases', message = 'leases must be objects with chunk_id and claim_token: ' || sqlerrm;
  end;
  perform chunk_private.check_items('items_processed', (l.item ->> 'items_processed')::bigint)
  from jsonb_array_elements(leases) l (item) where l.item ->> 'items_processed' is not null;
  perform chunk_private.check_object('checkpoint', l.item -> 'checkpoint', 8192)
  from jsonb_array_elements(leases) l (item) where l.item ->> 'checkpoint' is not null;
end
$$;
comment on function chunk_private.check_leases is 'SC003 or SC004 unless they are what extend_chunk_leases takes.';

create or replace function public.extend_chunk_leases(leases jsonb, lease_seconds int default null)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  answers jsonb;
  most record;
begin
  perform chunk_private.check_isolation('extend_chunk_leases');
  perform chunk_private.check_leases(leases);
  perform chunk_private.check_range('lease_seconds', lease_seconds, 1, 86400);
  perform chunk_private.enter_shared(g.job_id)
  from (
    select distinct q.parent_sync_job_id as job_id
    from jsonb_array_elements(leases) l (item)
    cross join lateral (
      select q.parent_sync_job_id from public.chunk_processing_queue q where q.id = (l.item ->> 'chunk_id')::bigint limit 1
    ) q
    order by 1
  ) g;
  select s.max_checkpoints as checkpoints into most from chunk_private.settings s;
  with wanted as (
    select l.place, r.chunk_id, r.claim_token, r.items_processed, nullif(r.checkpoint, 'null') as checkpoint
    from jsonb_array_elements(leases) with ordinality l (item, place)
    cross join lateral jsonb_to_record(l.item) r (chunk_id bigint, claim_token uuid, items_processed bigint, checkpoint jsonb)
  ),
  locked as (
    select q.id, q.status, q.claim_token, q.checkpoint, q.checkpoints, q.locked_until - q.updated_at as lease_length
    from public.chunk_processing_queue q
    where q.id = any (array(select w.chunk_id from wanted w)) and q.claim_token = any (array(select w.claim_token from wanted w))
    order by q.id
    for no key update
  ),
  extended as (
    update public.chunk_processing_queue q
    set locked_until = now() + coalesce(make_interval(secs => lease_seconds), l.lease_length),
        items_processed = coalesce(w.items_processed, q.items_processed),
        checkpoint = coalesce(w.checkpoint, q.checkpoint),
        checkpoint_items = case when w.checkpoint is null then q.checkpoint_items else coalesce(w.items_processed, q.items_processed) end,
        -- A new checkpoint is progress: the attempts count anew.
        attempts = case when p.progress then 1 else q.attempts end,
        given_back = case when p.progress then 0 else q.given_back end,
        throttled = case when not p.progress then q.throttled end,
        checkpoint_at = case when p.progress then now() else q.checkpoint_at end,
        checkpoints = coalesce(q.checkpoints, 0) + p.progress::int,
        updated_at = now()
    from locked l
    join wanted w on w.chunk_id = l.id and w.claim_token = l.claim_token
    cross join lateral (
      select w.checkpoint is not null and w.checkpoint is distinct from l.checkpoint and coalesce(l.checkpoints, 0) < most.checkpoints as progress
    ) p
    where q.id = l.id and l.status = 'processing' and q.id = any (array(select o.id from locked o))
    returning q.id, q.claim_token, q.locked_until
  )
  select coalesce(jsonb_agg(jsonb_build_object(
    'chunk_id', w.chunk_id,
    'ok', e.id is not null,
    'cancel_requested', coalesce(l.status = 'cancelled' and l.claim_token = w.claim_token, false),
    'locked_until', e.locked_until
  ) order by w.place), '[]') into answers
  from wanted w
  left join locked l on l.id = w.chunk_id
  left join extended e on e.id = w.chunk_id and e.claim_token = w.claim_token;
  return answers;
end
$$;
comment on function public.extend_chunk_leases is
  'The heartbeat of many claims (at most 1,000): an array of {chunk_id, claim_token, items_processed?, checkpoint?}. Each is answered with ok (the claim still holds), cancel_requested and locked_until. lease_seconds null keeps each claim''s own length. A checkpoint (an object of at most 8 KB) is stored when ok is true; a new one is progress, so that the attempts count anew.';

create or replace function public.extend_chunk_lease(
  chunk_id bigint, claim_token uuid, lease_seconds int default null, items_processed bigint default null,
  checkpoint jsonb default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
as $$
  select public.extend_chunk_leases(
    jsonb_build_array(jsonb_build_object('chunk_id', $1, 'claim_token', $2, 'items_processed', $4, 'checkpoint', $5)), $3
  ) -> 0;
$$;
comment on function public.extend_chunk_lease is
  'The heartbeat of one claim: ok (it still holds), cancel_requested (the job was cancelled) and locked_until. items_processed is shown in progress, and counted by the completion only. checkpoint: where a later attempt goes on.';

create or replace function public.release_chunk_job(
  chunk_id bigint, claim_token uuid, reason text default null, checkpoint jsonb default null, items_processed bigint default null
)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  chunk public.chunk_processing_queue;
  job public.sync_jobs;
  progress boolean;
  held bigint;
  explanation constant text := coalesce(reason, 'given back by its worker');
begin
  perform chunk_private.check_isolation('release_chunk_job');
  perform chunk_private.enter_shared(q.parent_sync_job_id) from public.chunk_processing_queue q where q.id = chunk_id;
  if not found then
    raise exception using errcode = 'SC001', message = format('there is no chunk %s', chunk_id);
  end if;
  if num_nonnulls(checkpoint, items_processed) > 0 then
    perform public.extend_chunk_lease(chunk_id, claim_token, null, items_processed, checkpoint);
  end if;
  select q.* into chunk from public.chunk_processing_queue q
  where q.id = chunk_id and q.claim_token = release_chunk_job.claim_token and q.completed_at is null
  for no key update;
  if not found then
    return chunk_private.answer_again_or_refuse(chunk_id, claim_token) || coalesce((
      select jsonb_build_object('outcome', 'released') from chunk_private.chunk_attempts a
      where a.chunk_id = release_chunk_job.chunk_id and a.claim_token = release_chunk_job.claim_token and a.outcome = 'released'
    ), '{}');
  end if;
  progress := coalesce(chunk.checkpoint_at >= chunk.started_at, false);
  if not progress and chunk.given_back >= (select s.max_given_back from chunk_private.settings s) then
    return public.complete_chunk_job_safe(chunk_id, claim_token, success => false, error => explanation || ' (too often: counted as an attempt)');
  end if;

  insert into chunk_private.chunk_attempts (job_id, chunk_id, attempt, outcome, error, worker_id, claim_token, claimed_at)
  values (chunk.parent_sync_job_id, chunk.id, chunk.attempts, 'released', explanation, chunk.worker_id, chunk.claim_token, chunk.started_at);
  update public.chunk_processing_queue q
  set status = 'pending', attempts = q.attempts - 1, given_back = q.given_back + (not progress)::int, claim_token = null,
      locked_until = null, items_processed = q.checkpoint_items, items_counted = q.checkpoint_items, updated_at = now()
  where q.id = chunk.id;
  select j.* into job from public.sync_jobs j where j.id = chunk.parent_sync_job_id;
  if chunk.checkpoint_items is distinct from chunk.items_counted then
    held := chunk_private.hold_counter(job.id, chunk.chunk_index % job.stripes);
    update chunk_private.job_counters c
    set items_processed = least(greatest(c.items_processed + coalesce(chunk.checkpoint_items, 0) - coalesce(chunk.items_counted, 0), 0), chunk_private.most_items()),
        changes = c.changes + 1
    where c.job_id = job.id and c.stripe = chunk.chunk_index % job.stripes and c.generation = held;
  end if;
  -- It keeps its slot, unless the job was paused meanwhile.
  delete from chunk_private.slots s where s.job_id = job.id and s.chunk_index = chunk.chunk_index;
  if job.status = 'paused' then
    insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index) values (job.id, now(), chunk.chunk_index);
  else
    perform chunk_private.hand_out(job, array[chunk.chunk_index], array[now()], null, now() + interval '25 seconds');
  end if;
  perform chunk_private.settle_limits(array[job.limit_key]);
  return jsonb_build_object('chunk_id', chunk_id, 'outcome', 'released', 'chunk_status', 'pending', 'job_status', job.status);
end
$$;
comment on function public.release_chunk_job is
  'Gives a claimed chunk back unfinished, for a worker that must stop, or that has used its time: the attempt is not counted, without limit when a new checkpoint was saved in it, else up to ten times.';
