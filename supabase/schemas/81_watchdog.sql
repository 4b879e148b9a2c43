-- The watchdog: one pass, its schedule, and the trimming of logs.

create or replace function public.cleanup_stuck_chunks(stuck_after interval default null)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  lost record;
begin
  perform chunk_private.check_isolation('cleanup_stuck_chunks');
  if stuck_after < interval '0' then
    raise exception using errcode = 'SC003', detail = 'stuck_after', message = format('stuck_after must not be negative, not %s', stuck_after);
  end if;
  begin
    perform chunk_private.collect_dispatch_outcomes();
  exception when others then
    raise warning 'supabase-chunks: the outcomes of webhooks could not be read: %', sqlerrm;
  end;
  lost := chunk_private.recover_lost(stuck_after);
  begin
    perform chunk_private.heal_jobs(lost.troubled);
  exception when others then
    raise warning 'supabase-chunks: jobs could not be looked through: %', sqlerrm;
  end;
  begin
    perform chunk_private.settle_waiting();
  exception when others then
    raise warning 'supabase-chunks: limits could not be settled: %', sqlerrm;
  end;
  begin
    perform chunk_private.dispatch_waiting(null, true);
  exception when others then
    raise warning 'supabase-chunks: webhooks could not be sent: %', sqlerrm;
  end;
  -- In no block: a database that is read-only (25006) shows as a pass that failed, not as one that found nothing to do.
  update chunk_private.watchdog w set last_pass_at = now(), server_began = pg_postmaster_start_time()
  where w.only_row = any (array(select o.only_row from chunk_private.watchdog o for no key update skip locked));
  return lost.recovered;
end
$$;
comment on function public.cleanup_stuck_chunks is
  'One pass of the watchdog: takes back chunks whose lease has run out (or, with stuck_after, those without claim or heartbeat for that long), ends jobs and fills slots where that was missed, heals what should not be, sends lost webhooks again. Returns how many chunks were taken back.';

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
  delete from chunk_private.limit_paces p where p.free_at < now() - interval '1 day';
  delete from public.sync_limits l
  where l.max_concurrency is null and l.rate is null and l.blocked_until < now() - interval '1 day' and chunk_private.try_limit(l.key);
  delete from chunk_private.healings h where h.healed_at < now() - interval '90 days';
  delete from chunk_private.dispatches d
  where d.ctid = any (array(select o.ctid from chunk_private.dispatches o where o.created_at < now() - interval '7 days' limit 10000));
  get diagnostics trimmed = row_count;
  begin
    -- By number: a run that a crash cut off has no end, and may have no beginning.
    delete from cron.job_run_details r
    where r.command ~ 'select (public\.cleanup_stuck_chunks|chunk_private\.trim_logs)\(\)$'
      and r.runid <= (select max(o.runid) from cron.job_run_details o where o.start_time < now() - interval '1 day');
  exception when others then
    null; -- not ours to delete, or pg_cron is absent
  end;
  return trimmed;
end
$$;
comment on function chunk_private.trim_logs is
  'Forgets dispatches after a week, the watchdog''s runs after a day, what was healed after ninety days, and keys that were only blocked a day after.';

create or replace function chunk_private.schedule_watchdog()
returns text
language plpgsql
security definer -- pg_cron runs a job as the role that scheduled it
set search_path = pg_catalog, pg_temp
as $$
declare
  watchdog constant text := 'supabase-chunks-watchdog';
  -- As the API begins its transactions, whatever the database's defaults are.
  beginning constant text := 'set transaction isolation level read committed, read write; ';
  pass constant text := beginning || 'select public.cleanup_stuck_chunks()';
begin
  if to_regprocedure('cron.schedule(text,text,text)') is null then
    return null;
  end if;
  if not exists (select from cron.job j where j.jobname = watchdog) then
    insert into chunk_private.watchdog as w (only_row, scheduled_at) values (true, now())
    on conflict on constraint watchdog_pkey do update set scheduled_at = now();
  end if;
  begin
    perform cron.schedule(watchdog, '30 seconds', pass);
  exception when others then
    -- pg_cron before 1.5 knows no seconds
    perform cron.schedule(watchdog, '* * * * *', pass);
  end;
  perform cron.schedule('supabase-chunks-trim', '17 * * * *', beginning || 'select chunk_private.trim_logs()');
  return (select j.schedule from cron.job j where j.jobname = watchdog limit 1);
end
$$;
comment on function chunk_private.schedule_watchdog is 'Schedules the watchdog where pg_cron is installed; again is harmless. Returns the schedule, or null.';
