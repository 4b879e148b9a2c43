-- The watchdog, and its schedule.

create or replace function chunk_private.recover_chunk(chunk_id bigint, stuck_after interval)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  chunk public.chunk_processing_queue;
begin
  -- Locked by somebody else: a heartbeat or a report, so its worker lives.
  select q.* into chunk from public.chunk_processing_queue q where q.id = chunk_id for no key update skip locked;
  if chunk.status = 'processing' and (chunk.locked_until < now() or chunk.updated_at <= now() - stuck_after) then
    perform chunk_private.end_attempt(chunk, 'lost',
      format('worker lost: %s gave no sign of life since %s', chunk.worker_id, to_char(chunk.updated_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')),
      true, 0);
    return true;
  end if;
  return false;
end
$$;
comment on function chunk_private.recover_chunk is 'Takes one chunk back from a worker that is gone; says whether it did.';

create or replace function public.cleanup_stuck_chunks(stuck_after interval default null)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  gated uuid[];
  chunk record;
  job record;
  freed_of uuid[] := array[]::uuid[];
  freed bigint[] := array[]::bigint[];
begin
  if stuck_after < interval '0' then
    raise exception using errcode = 'SC003', detail = 'stuck_after', message = format('stuck_after must not be negative, not %s', stuck_after);
  end if;
  begin
    perform chunk_private.collect_dispatch_outcomes();
  exception when others then
    raise warning 'supabase-chunks: the outcomes of webhooks could not be read: %', sqlerrm;
  end;

  -- 1. Chunks whose lease has run out. All gates first; a job that is being steered is left to the next pass, so that a
  --    transaction left open there holds up nobody else. Then chunk by chunk in the order of their counters, each in its
  --    own block, so that one bad row stops nothing but itself.
  gated := array(
    select g.job_id
    from (
      select distinct s.job_id
      from chunk_private.slots s
      join public.chunk_processing_queue q on q.parent_sync_job_id = s.job_id and q.chunk_index = s.chunk_index
      where s.claimed and q.status = 'processing' and (q.locked_until < now() or q.updated_at <= now() - stuck_after)
      limit 1000
    ) g
    where chunk_private.try_shared(g.job_id)
  );
  for chunk in
    select q.id, q.parent_sync_job_id as job_id, q.chunk_index
    from unnest(gated) g (job_id)
    join public.sync_jobs j on j.id = g.job_id
    join chunk_private.slots s on s.job_id = g.job_id and s.claimed
    join public.chunk_processing_queue q on q.parent_sync_job_id = s.job_id and q.chunk_index = s.chunk_index
    where q.status = 'processing' and (q.locked_until < now() or q.updated_at <= now() - stuck_after)
    order by j.id, q.chunk_index % j.stripes, q.id
    limit 1000
  loop
    begin
      if chunk_private.recover_chunk(chunk.id, stuck_after) then
        freed_of := freed_of || chunk.job_id;
        freed := freed || chunk.chunk_index;
      end if;
    exception when others then
      raise warning 'supabase-chunks: chunk % could not be recovered: %', chunk.id, sqlerrm;
    end;
  end loop;
  for job in select distinct f.id from unnest(freed_of) f (id) order by f.id loop
    begin
      if exists (select from chunk_private.job_counters c where c.job_id = job.id and c.open_chunks = 0) then
        perform chunk_private.finish_if_done(job.id);
      end if;
    exception when others then
      raise warning 'supabase-chunks: job % could not be finished: %', job.id, sqlerrm;
    end;
  end loop;
  for job in
    select j as row, array_agg(f.chunk_index) as freed
    from unnest(freed_of, freed) f (id, chunk_index)
    join public.sync_jobs j on j.id = f.id
    group by j.id
    order by j.id
  loop
    begin
      perform chunk_private.pass_slots_on(job.row, job.freed, null);
    exception when others then
      raise warning 'supabase-chunks: the slots of job % could not be passed on: %', (job.row).id, sqlerrm;
    end;
  end loop;

  -- 2. Jobs that nobody has moved for a minute: a finish that was missed, or slots left free. Their exclusive gates are
  --    only tried for, since this transaction holds others.
  for job in
    select j.id
    from public.sync_jobs j
    cross join lateral (
      select sum(c.open_chunks) as open, max(c.last_activity_at) as last_activity_at
      from chunk_private.job_counters c where c.job_id = j.id
    ) n
    where j.status in ('pending', 'running', 'paused') and n.last_activity_at < now() - interval '1 minute'
      and (n.open = 0 and j.sealed or j.status <> 'paused' and n.open > (select count(*) from chunk_private.slots s where s.job_id = j.id))
    order by n.last_activity_at
    limit 1000
  loop
    begin
      if chunk_private.try_alone(job.id) then
        perform chunk_private.finish_if_done(job.id);
        perform chunk_private.fill_slots(job.id);
      end if;
    exception when others then
      raise warning 'supabase-chunks: job % could not be settled: %', job.id, sqlerrm;
    end;
  end loop;

  -- 3. Webhooks that have led to nothing, and retries that have become due.
  begin
    perform chunk_private.dispatch_waiting(null, true);
  exception when others then
    raise warning 'supabase-chunks: webhooks could not be sent: %', sqlerrm;
  end;
  return cardinality(freed);
end
$$;
comment on function public.cleanup_stuck_chunks is
  'One pass of the watchdog: takes back chunks whose lease has run out (or, with stuck_after, those without claim or heartbeat for that long), settles jobs, sends lost webhooks again. Returns how many chunks were taken back.';

create or replace function chunk_private.trim_logs()
returns int
language plpgsql
security definer -- trims pg_cron's own log too
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  trimmed int;
begin
  delete from chunk_private.dispatches d
  where d.id = any (array(select o.id from chunk_private.dispatches o where o.created_at < now() - interval '7 days' limit 10000));
  get diagnostics trimmed = row_count;
  begin
    delete from cron.job_run_details r using cron.job j
    where r.jobid = j.jobid and j.jobname like 'supabase-chunks-%' and r.end_time < now() - interval '1 day';
  exception when others then
    null; -- not ours to delete, or pg_cron is absent
  end;
  return trimmed;
end
$$;
comment on function chunk_private.trim_logs is 'Forgets dispatches after a week, and the watchdog''s runs after a day.';

create or replace function chunk_private.schedule_watchdog()
returns text
language plpgsql
security definer -- pg_cron runs a job as the role that scheduled it
set search_path = pg_catalog, pg_temp
as $$
declare
  watchdog constant text := 'supabase-chunks-watchdog';
begin
  if to_regprocedure('cron.schedule(text,text,text)') is null then
    return null;
  end if;
  begin
    perform cron.schedule(watchdog, '30 seconds', 'select public.cleanup_stuck_chunks()');
  exception when others then
    -- pg_cron before 1.5 knows no seconds
    perform cron.schedule(watchdog, '* * * * *', 'select public.cleanup_stuck_chunks()');
  end;
  perform cron.schedule('supabase-chunks-trim', '17 * * * *', 'select chunk_private.trim_logs()');
  return (select j.schedule from cron.job j where j.jobname = watchdog limit 1);
end
$$;
comment on function chunk_private.schedule_watchdog is 'Schedules the watchdog where pg_cron is installed; again is harmless. Returns the schedule, or null.';
