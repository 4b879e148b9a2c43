-- Health: what an operator wants to know.

create or replace function chunk_private.watchdog_health()
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  watchdog jsonb := '{"scheduled": false}'::jsonb;
begin
  select jsonb_build_object('scheduled', true, 'schedule', j.schedule, 'active', j.active, 'last_run', (
    select jsonb_build_object('status', r.status, 'at', r.start_time, 'message', left(r.return_message, 200))
    from cron.job_run_details r where r.jobid = j.jobid order by r.runid desc limit 1
  )) into watchdog
  from cron.job j where j.jobname = 'supabase-chunks-watchdog' limit 1;
  return coalesce(watchdog, '{"scheduled": false}');
exception when others then
  return jsonb_build_object('scheduled', false, 'error', sqlerrm);
end
$$;
comment on function chunk_private.watchdog_health is 'Whether and how the watchdog is scheduled, and how it last ran.';

create or replace function chunk_private.vault_health()
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select jsonb_build_object('project_url', coalesce(bool_or(s.name = 'project_url'), false),
      'processor_key', coalesce(bool_or(s.name = 'chunk_processor_key'), false))
    from vault.secrets s where s.name in ('project_url', 'chunk_processor_key')
  );
exception when others then
  return jsonb_build_object('project_url', false, 'processor_key', false, 'error', sqlerrm);
end
$$;
comment on function chunk_private.vault_health is 'Whether the Vault has the URL and the key; never their values.';

create or replace function chunk_private.chunk_system_health()
returns jsonb
language sql
stable
security definer -- reads the Vault, pg_cron and the statistics
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'version', chunk_private.version(),
    'postgres', current_setting('server_version'),
    'server_address', host(inet_server_addr()), -- as its API reaches it; null: by a socket, on the same machine
    'extensions', jsonb_build_object(
      'pg_net', coalesce((select e.extversion from pg_extension e where e.extname = 'pg_net'),
        case when to_regproc('net.http_post') is not null then 'built in' end),
      'pg_cron', coalesce((select e.extversion from pg_extension e where e.extname = 'pg_cron'),
        case when to_regproc('cron.unschedule') is not null or to_regprocedure('cron.schedule(text,text,text)') is not null then 'built in' end),
      'supabase_vault', coalesce((select e.extversion from pg_extension e where e.extname = 'supabase_vault'),
        case when to_regproc('vault.create_secret') is not null then 'built in' end)
    ),
    'configured', chunk_private.vault_health(),
    'watchdog', chunk_private.watchdog_health(),
    'webhooks_waiting', chunk_private.webhooks_waiting(),
    'last_dispatches', coalesce((
      select jsonb_agg(jsonb_build_object('job_id', d.job_id, 'chunk_id', d.chunk_id, 'sent_at', d.created_at,
        'status_code', d.status_code, 'error', d.error) order by d.id desc)
      from (select * from chunk_private.dispatches x order by x.id desc limit 10) d), '[]'),
    'active_jobs', (select count(*) from public.sync_jobs j where j.status in ('pending', 'running', 'paused')),
    'stalled_jobs', coalesce((
      select jsonb_agg(jsonb_build_object('id', s.parent_sync_job_id, 'kind', s.kind, 'reason', s.stalled_reason))
      from (select * from public.chunk_processing_status v where v.status in ('pending', 'running') and v.stalled limit 20) s), '[]'),
    'oldest_pending_seconds', (
      select floor(extract(epoch from now() - min(f.ready_at)))
      from chunk_private.lanes l
      cross join lateral (
        select s.ready_at from chunk_private.slots s
        where s.lane = l.id and not s.claimed and s.ready_at <= now()
        order by s.ready_at limit 1
      ) f),
    'dead_tuples', (select t.n_dead_tup from pg_stat_all_tables t
      where t.relid = 'public.chunk_processing_queue'::regclass),
    'oldest_xmin_age', (select max(age(a.backend_xmin)) from pg_stat_activity a where a.backend_xmin is not null),
    'oldest_transaction_seconds', (
      select floor(extract(epoch from max(clock_timestamp() - a.xact_start)))
      from pg_stat_activity a where a.pid <> pg_backend_pid() and a.xact_start is not null and a.backend_type = 'client backend')
  );
$$;
comment on function chunk_private.chunk_system_health is 'The body of chunk_system_health.';

create or replace function public.chunk_system_health()
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$ select chunk_private.chunk_system_health(); $$;
comment on function public.chunk_system_health is
  'What an operator wants to know: extensions, URL and key present, the watchdog, last webhooks and their outcome, stalled jobs, the oldest chunk waiting, dead rows, and the age of the oldest snapshot and transaction.';
