-- Healing: which jobs are looked at, and one whole job.

create or replace function chunk_private.heal_job(job_id uuid)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job public.sync_jobs;
  wrong text[] := array[]::text[];
  chunks bigint;
  open_chunks bigint;
begin
  select j.* into job from public.sync_jobs j where j.id = job_id;
  -- To look at every chunk of a large job takes seconds: only when there is nothing to hand out.
  if job.total_chunks > 100000 and chunk_private.fill_slots(job_id) > 0 then
    return null;
  end if;
  perform chunk_private.make_lane(job.kind, job.priority);
  wrong := wrong || chunk_private.heal_chunks(job) || chunk_private.heal_places(job) || chunk_private.heal_counters(job);
  select count(*), count(*) filter (where q.completed_at is null) into chunks, open_chunks
  from public.chunk_processing_queue q where q.parent_sync_job_id = job_id;
  if job.status in ('completed', 'failed') and open_chunks > 0 then
    update public.sync_jobs j set status = 'running', completed_at = null where j.id = job_id;
    wrong := wrong || format('%s open chunks of a job that had %s', open_chunks, job.status);
  end if;
  if chunks <> job.total_chunks and chunks = (select max(q.chunk_index) + 1 from public.chunk_processing_queue q where q.parent_sync_job_id = job_id) then
    update public.sync_jobs j set total_chunks = chunks where j.id = job_id;
    wrong := wrong || format('total_chunks was %s', job.total_chunks);
  end if;
  perform chunk_private.finish_if_done(job_id);
  perform chunk_private.fill_slots(job_id);
  if cardinality(wrong) = 0 then
    return null;
  end if;
  insert into chunk_private.healings (job_id, what) values (job_id, array_to_string(wrong, ', '));
  return array_to_string(wrong, ', ');
end
$$;
comment on function chunk_private.heal_job is
  'Puts right what is wrong with a job, whose gate the caller has alone. Returns what it was; null: nothing.';

-- Cheap when all is well: it reads the active jobs' counters and the slots in use, and no chunk that has none. What does not show
-- in them shows at the latest when the job has nothing left to hand out.
create or replace function chunk_private.doubtful_jobs()
returns setof uuid
language plpgsql -- which keeps its plan; as SQL it would be planned in each pass
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with held as materialized (
    select s.job_id, count(*) as slots, count(*) filter (where not s.claimed) as waiting, count(*) filter (where q.has_failed) as failed_before,
      bool_or(q.status is distinct from case when s.claimed then 'processing' else 'pending' end
        or s.claimed and (q.claim_token is null or q.attempts < 1 or q.locked_until > now() + chunk_private.longest_lease())
        or not s.claimed and s.ready_at > now() + chunk_private.longest_wait()
        or s.limit_key is distinct from j.limit_key or s.parked and (s.claimed or s.limit_key is null)
        or (l.kind, l.priority) is distinct from (j.kind, j.priority)) as contradict
    from chunk_private.slots s
    left join public.sync_jobs j on j.id = s.job_id
    left join chunk_private.lanes l on l.id = s.lane
    left join public.chunk_processing_queue q on q.parent_sync_job_id = s.job_id and q.chunk_index = s.chunk_index
    group by s.job_id
  ),
  counted as materialized (
    select c.job_id, sum(c.open_chunks) as open_chunks, sum(c.retrying_chunks) as retrying_chunks, max(c.last_activity_at) as last_activity_at,
      sum(c.open_chunks + c.completed_chunks + c.failed_chunks + c.cancelled_chunks) as total_chunks
    from public.sync_jobs a
    join chunk_private.newest_counters c on c.job_id = a.id
    where a.status in ('pending', 'running', 'paused')
    group by c.job_id
  )
  select j.id
  from public.sync_jobs j
  left join counted n on n.job_id = j.id
  left join held h on h.job_id = j.id
  cross join lateral (
    select coalesce(h.slots, 0) as slots, least(coalesce(n.open_chunks, 0), j.max_concurrency) as most,
      case when j.limit_key is not null then (chunk_private.limit_of(j.limit_key)).most end as shared
  ) w
  where j.status in ('pending', 'running', 'paused') and (
    coalesce(n.total_chunks, 0) <> j.total_chunks
    or h.contradict or h.failed_before > n.retrying_chunks
    or w.slots > w.most
    or case when j.status = 'paused' then h.waiting > 0 else w.slots < least(w.most, w.shared) end
    -- its end was missed
    or coalesce(n.open_chunks, 0) = 0 and j.sealed and coalesce(n.last_activity_at, j.created_at) < now() - interval '1 minute'
  )
  union
  select h.job_id
  from held h
  left join public.sync_jobs j on j.id = h.job_id
  where j.completed_at is not null
  union
  -- Ended since the last pass, and not all of it has
  select j.id
  from public.sync_jobs j
  where j.completed_at > (select greatest(w.last_pass_at - interval '30 seconds', now() - interval '1 hour') from chunk_private.watchdog w)
    and exists (select from public.chunk_processing_queue q where q.parent_sync_job_id = j.id and q.completed_at is null);
end
$$;
comment on function chunk_private.doubtful_jobs is 'The jobs whose slots, counters and chunks do not go together.';

-- Gates are only tried for, since the pass holds others.
create or replace function chunk_private.heal_jobs(troubled uuid[])
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  until constant timestamptz := clock_timestamp() + interval '5 seconds';
  job record;
  what text;
  healed int := 0;
begin
  for job in
    select t.id from unnest(troubled) t (id) union select d.id from chunk_private.doubtful_jobs() d (id) limit 1000
  loop
    exit when clock_timestamp() > until;
    begin
      if chunk_private.try_alone(job.id) then
        what := chunk_private.heal_job(job.id);
        if what is not null then
          healed := healed + 1;
          raise warning 'supabase-chunks: job % was put right: %', job.id, what;
        end if;
      end if;
    exception when others then
      raise warning 'supabase-chunks: job % could not be put right: %', job.id, sqlerrm;
    end;
  end loop;
  return healed;
end
$$;
comment on function chunk_private.heal_jobs is
  'Settles doubtful jobs, and those named: ends those that are done, fills free slots, and puts right what is wrong. Returns how many were.';
