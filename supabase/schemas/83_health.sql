-- Health: what an operator wants to know.

-- A schedule in cron.job says little: pg_cron may look at another database, or have died. So passes leave a mark of their own,
-- and one is expected within a minute of the last, of the schedule's making and of the server's start.
create or replace function chunk_private.watchdog_health()
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  passes constant jsonb := (
    select jsonb_build_object('last_pass_at', max(w.last_pass_at), 'seconds_without_pass',
      floor(extract(epoch from now() - greatest(max(w.last_pass_at), max(w.scheduled_at), pg_postmaster_start_time()))))
    from chunk_private.watchdog w
  );
  watchdog jsonb;
begin
  select jsonb_build_object('scheduled', true, 'schedule', j.schedule, 'active', j.active, 'last_run', (
    select jsonb_build_object('status', r.status, 'at', r.start_time, 'message', left(r.return_message, 200), 'running_seconds',
      case when r.status not in ('succeeded', 'failed') then floor(extract(epoch from now() - r.start_time)) end)
    from cron.job_run_details r where r.jobid = j.jobid order by r.runid desc limit 1
  )) into watchdog
  from cron.job j where j.jobname = 'supabase-chunks-watchdog' limit 1;
  return passes || coalesce(watchdog, '{"scheduled": false}');
exception when others then
  return passes || jsonb_build_object('scheduled', false, 'error', sqlerrm);
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

-- Enough for a caller who knows the right URL to see whether it is this one: a restored copy of a project wakes the original.
create or replace function chunk_private.webhook_target()
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  host text;
  target jsonb;
begin
  select substring(s.decrypted_secret from '^https?://([^/:]+|\[[^]]*\])'),
    jsonb_build_object('sha256', encode(sha256(convert_to(rtrim(lower(s.decrypted_secret), '/'), 'UTF8')), 'hex'), 'since', s.updated_at)
  into host, target
  from vault.decrypted_secrets s where s.name = 'project_url';
  return target || jsonb_build_object('place', case
    when host ~* '^(localhost|127\.[0-9.]+|\[::1\])$' then 'loopback'
    when host !~ '\.' or host ~* '\.(internal|local|localhost|lan)$' or host ~ '^(10\.|192\.168\.|172\.(1[6-9]|2[0-9]|3[01])\.)' then 'internal'
    else 'public'
  end);
exception when others then
  return null; -- vault_health() says why
end
$$;
comment on function chunk_private.webhook_target is
  'Where webhooks go, without saying it: the SHA-256 of the URL, since when, and whether that is this machine, an inner network or a public address.';

-- A failure is forgotten once it is of no use to know: its job has ended or its chunk was claimed, the configuration has
-- changed since, or a later webhook went well.
create or replace function chunk_private.webhook_failure()
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  forgotten_until constant timestamptz := greatest(
    (chunk_private.webhook_target() ->> 'since')::timestamptz,
    (select d.created_at from chunk_private.dispatches d where d.answered_at is not null and d.error is null order by d.created_at desc limit 1)
  );
begin
  return (
    select jsonb_build_object('job_id', d.job_id, 'chunk_id', d.chunk_id, 'sent_at', d.created_at, 'status_code', d.status_code, 'error', d.error)
    from chunk_private.dispatches d
    join public.sync_jobs j on j.id = d.job_id and j.status in ('pending', 'running')
    join public.chunk_processing_queue q on q.id = d.chunk_id
    join chunk_private.slots s on s.job_id = d.job_id and s.chunk_index = q.chunk_index and not s.claimed
    where d.error is not null and d.created_at > coalesce(forgotten_until, '-infinity')
      and (q.started_at is null or q.started_at < d.created_at)
    order by d.created_at desc limit 1
  );
end
$$;
comment on function chunk_private.webhook_failure is 'The newest webhook that failed and whose chunk waits for that reason still; null: none.';

-- Not of this call alone: the API reads in a transaction that may not write anyway.
create or replace function chunk_private.is_read_only()
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select pg_is_in_recovery() or current_setting('default_transaction_read_only')::boolean or exists (
    select from pg_db_role_setting s
    cross join unnest(s.setconfig) c (setting)
    where (s.setdatabase = 0 or s.setdatabase = (select d.oid from pg_database d where d.datname = current_database()))
      and (s.setrole = 0 or pg_get_userbyid(s.setrole) in ('postgres', 'authenticator', 'service_role'))
      and c.setting ~* '^default_transaction_read_only=(on|true|yes|1)$'
  );
$$;
comment on function chunk_private.is_read_only is 'Whether the database takes no writes, as Supabase sets it when the disk is full.';

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
    'read_only', chunk_private.is_read_only(),
    'healed', (
      select jsonb_build_object('times', count(*), 'last_at', max(h.healed_at),
        'last', (array_agg(format('job %s: %s', h.job_id, h.what) order by h.id desc))[1])
      from chunk_private.healings h),
    'fullest_user', (
      select jsonb_build_object('owner_id', f.owner_id, 'chunks', f.chunks, 'most', s.user_max_kept_chunks)
      from (
        select j.owner_id, sum(greatest(j.total_chunks, 1)) as chunks from public.sync_jobs j
        where j.owner_id is not null and j.created_at > now() - interval '30 days'
        group by j.owner_id order by 2 desc limit 1
      ) f, chunk_private.settings s),
    'webhooks_go_to', chunk_private.webhook_target(),
    'webhooks_waiting', u.webhooks,
    'oldest_webhook_seconds', floor(extract(epoch from now() - u.oldest_at)),
    'webhook_failure', chunk_private.webhook_failure(),
    'last_dispatches', coalesce((
      select jsonb_agg(jsonb_build_object('job_id', d.job_id, 'chunk_id', d.chunk_id, 'sent_at', d.created_at,
        'status_code', d.status_code, 'error', d.error) order by d.id desc)
      from (
        select x.id, x.job_id, x.chunk_id, x.created_at, x.status_code, x.error from chunk_private.dispatches x order by x.created_at desc, x.id desc limit 10
      ) d), '[]'),
    'active_jobs', (select count(*) from public.sync_jobs j where j.status in ('pending', 'running', 'paused')),
    'stalled_jobs', coalesce((
      select jsonb_agg(jsonb_build_object('id', s.parent_sync_job_id, 'kind', s.kind, 'reason', s.stalled_reason))
      from (
        select v.parent_sync_job_id, v.kind, v.stalled_reason from public.chunk_processing_status v
        where v.status in ('pending', 'running') and v.stalled limit 20
      ) s), '[]'),
    'blocked_limits', coalesce((
      select jsonb_agg(jsonb_build_object('key', b.key, 'until', b.blocked_until, 'reason', b.blocked_reason) order by b.blocked_until desc)
      from (
        select l.key, l.blocked_until, l.blocked_reason from public.sync_limits l
        where l.blocked_until > now() order by l.blocked_until desc limit 20
      ) b), '[]'),
    'chunks_waiting_for_limits', (select count(*) from chunk_private.slots s where s.limit_key is not null and not s.claimed and s.parked),
    'oldest_pending_seconds', (
      select floor(extract(epoch from now() - min(f.ready_at)))
      from chunk_private.lanes l
      cross join lateral (
        select s.ready_at from chunk_private.slots s
        where s.lane = l.id and not s.claimed and not s.parked and s.ready_at <= now()
        order by s.ready_at limit 1
      ) f),
    'dead_tuples', (select t.n_dead_tup from pg_stat_all_tables t
      where t.relid = 'public.chunk_processing_queue'::regclass),
    'oldest_xmin_age', (select max(age(a.backend_xmin)) from pg_stat_activity a where a.backend_xmin is not null),
    'oldest_transaction_seconds', (
      select floor(extract(epoch from max(clock_timestamp() - a.xact_start)))
      from pg_stat_activity a where a.pid <> pg_backend_pid() and a.xact_start is not null and a.backend_type = 'client backend')
  )
  from chunk_private.unsent_webhooks() u;
$$;
comment on function chunk_private.chunk_system_health is 'The body of chunk_system_health.';

create or replace function public.chunk_system_health()
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$ select chunk_private.chunk_system_health(); $$;
comment on function public.chunk_system_health is
  'What an operator wants to know: extensions, URL and key present, the watchdog, last webhooks and their outcome, stalled jobs, the oldest chunk waiting, dead rows, and the age of the oldest snapshot and transaction.';
