-- Maintenance: the watchdog, its schedule, configuration, health and purge.

create or replace function chunk_private.version()
returns text
language sql
immutable
set search_path = ''
as $$ select '0.1.0'; $$;
comment on function chunk_private.version is 'The release of supabase-chunks whose migrations are installed.';

-- Webhooks' outcomes ----------------------------------------------------------------------------------------------------

create or replace function chunk_private.collect_dispatch_outcomes()
returns int
language plpgsql
security definer -- reads pg_net's answers, which service_role may not
set search_path = ''
as $$
declare
  collected int;
begin
  if to_regclass('net._http_response') is null
    or not exists (select from chunk_private.dispatches d where d.answered_at is null and d.request_id is not null) then
    return 0;
  end if;
  -- pg_net's tables are unlogged: after a crash they are empty and its ids begin again, hence the look at the times.
  update chunk_private.dispatches d
  set status_code = r.status_code,
      answered_at = r.created,
      error = case
        when r.timed_out then coalesce(r.error_msg, 'no answer in time')
        when r.error_msg is not null then r.error_msg
        when r.status_code >= 300 then left(format('HTTP %s: %s', r.status_code, r.content), 300)
      end
  from net._http_response r
  where r.id = d.request_id and r.created >= d.created_at and d.answered_at is null and d.request_id is not null;
  get diagnostics collected = row_count;
  update chunk_private.dispatches d
  set answered_at = now(), error = 'pg_net kept no answer'
  where d.answered_at is null and d.request_id is not null and d.created_at < now() - interval '5 minutes'
    and not exists (select from net.http_request_queue w where w.id = d.request_id);
  return collected;
end
$$;
comment on function chunk_private.collect_dispatch_outcomes is 'Copies the answers that pg_net has got to the dispatches; returns how many.';

create or replace function chunk_private.webhooks_waiting()
returns int
language plpgsql
stable
security definer -- reads pg_net's queue, which service_role may not
set search_path = ''
as $$
begin
  if to_regclass('net.http_request_queue') is null then
    return 0;
  end if;
  return (
    select count(*) from chunk_private.dispatches d
    join net.http_request_queue r on r.id = d.request_id
    where d.answered_at is null and d.request_id is not null
  );
exception when others then
  return 0; -- a pg_net that cannot be looked into; what cannot be sent says so itself
end
$$;
comment on function chunk_private.webhooks_waiting is 'How many of our webhooks pg_net has not sent yet.';

-- Sends webhooks for chunks that wait to be claimed, while fewer than 32 of ours wait in pg_net.
create or replace function chunk_private.dispatch_waiting(parent_sync_job_id uuid, overdue_only boolean)
returns int
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  budget constant int := 32 - chunk_private.webhooks_waiting();
  went_well constant timestamptz := (
    select d.created_at from chunk_private.dispatches d
    where d.answered_at is not null and d.error is null
    order by d.created_at desc limit 1
  );
  page record;
  sent int := 0;
begin
  if budget <= 0 then
    return 0;
  end if;
  -- Each webhook that led to no claim doubles the wait for the next: 30 s, 1 min, 2 min … about an hour. One that is known
  -- to have failed is sent again sooner: at once, then after 5 s, 15 s, 35 s … 5 min, and as soon as another has gone well,
  -- for then what stood in the way is gone.
  for page in
    with overdue as (
      select s.job_id, s.chunk_index from chunk_private.slots s
      join chunk_private.lanes l on l.id = s.lane
      join public.sync_kinds k on k.kind = l.kind
      where not s.claimed and s.ready_at <= now() and k.handler is not null
        and (parent_sync_job_id is null or s.job_id = parent_sync_job_id)
        and (not overdue_only or s.dispatched_at is null
          or s.dispatched_at < now() - interval '28 seconds' * 2 ^ least(greatest(s.dispatch_count - 1, 0), 7)
          or s.dispatched_at < greatest(went_well, now() - interval '5 seconds' * (2 ^ least(s.dispatch_count - 1, 6) - 1))
            and exists (
              select from public.chunk_processing_queue q
              join chunk_private.dispatches d on d.created_at = s.dispatched_at and d.chunk_id = q.id
              where q.parent_sync_job_id = s.job_id and q.chunk_index = s.chunk_index and d.error is not null
            ))
      order by l.priority desc, s.ready_at, s.chunk_index
      limit budget
      for no key update of s skip locked
    ),
    marked as (
      update chunk_private.slots s
      set dispatched_at = now(), dispatch_count = s.dispatch_count + 1
      from overdue o
      where s.job_id = o.job_id and s.chunk_index = o.chunk_index
      returning s.job_id, s.chunk_index
    )
    select j as job, array_agg(m.chunk_index order by m.chunk_index) as chunk_indexes
    from marked m
    join public.sync_jobs j on j.id = m.job_id
    group by j.id
  loop
    sent := sent + chunk_private.dispatch(page.job, page.chunk_indexes);
  end loop;
  return sent;
end
$$;
comment on function chunk_private.dispatch_waiting is 'Sends webhooks for claimable chunks, or only for those whose last webhook has led to nothing; returns how many.';

create or replace function public.trigger_next_chunk_processing(parent_sync_job_id uuid default null)
returns int
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
begin
  if parent_sync_job_id is not null and not exists (select from public.sync_jobs j where j.id = parent_sync_job_id) then
    raise exception using errcode = 'SC001', message = format('there is no sync job %s', parent_sync_job_id);
  end if;
  return chunk_private.dispatch_waiting(parent_sync_job_id, false);
end
$$;
comment on function public.trigger_next_chunk_processing is
  'Sends webhooks now for the chunks of a job, or of all, that wait to be claimed; returns how many were sent.';

-- The watchdog ----------------------------------------------------------------------------------------------------------

create or replace function chunk_private.recover_chunk(chunk_id bigint, stuck_after interval)
returns boolean
language plpgsql
set search_path = ''
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
set search_path = ''
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
    where pg_try_advisory_xact_lock_shared(uuid_hash_extended(g.job_id, 0))
  );
  for chunk in
    select q.id, q.parent_sync_job_id as job_id, q.chunk_index
    from unnest(gated) g (job_id)
    join public.sync_jobs j on j.id = g.job_id
    join chunk_private.slots s on s.job_id = g.job_id and s.claimed
    join public.chunk_processing_queue q on q.parent_sync_job_id = s.job_id and q.chunk_index = s.chunk_index
    where q.status = 'processing' and (q.locked_until < now() or q.updated_at <= now() - stuck_after)
    order by j.id, q.chunk_index % j.counter_shards, q.id
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
      perform chunk_private.pass_slots_on(job.row, job.freed, array[]::uuid[]);
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
      if pg_try_advisory_xact_lock(uuid_hash_extended(job.id, 0)) then
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
set search_path = ''
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
set search_path = ''
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

-- Configuration ---------------------------------------------------------------------------------------------------------

create or replace function public.save_sync_kind(
  kind text, handler text default null, max_concurrency int default 1, max_retries int default 3, lease_seconds int default 600,
  retry_delay_seconds int default 10, user_startable boolean default false
)
returns jsonb
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  saved public.sync_kinds;
begin
  if kind is null or kind !~ '^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$' then
    raise exception using errcode = 'SC003', detail = 'kind',
      message = 'kind must be 1 to 100 letters, digits or _ . : -, beginning with a letter or digit';
  end if;
  if handler !~ '^[A-Za-z0-9_-]{1,100}$' then
    raise exception using errcode = 'SC003', detail = 'handler',
      message = 'handler must be the name of an Edge Function (letters, digits, _ and -), or null for Python workers';
  end if;
  perform chunk_private.check_range('max_concurrency', coalesce(max_concurrency, 1), 1, 1000);
  perform chunk_private.check_range('max_retries', coalesce(max_retries, 3), 0, 100);
  perform chunk_private.check_range('lease_seconds', coalesce(lease_seconds, 600), 1, 86400);
  perform chunk_private.check_range('retry_delay_seconds', coalesce(retry_delay_seconds, 10), 0, 86400);
  insert into public.sync_kinds as k (kind, handler, max_concurrency, max_retries, lease_seconds, retry_delay_seconds, user_startable)
  values (kind, handler, coalesce(max_concurrency, 1), coalesce(max_retries, 3), coalesce(lease_seconds, 600),
    coalesce(retry_delay_seconds, 10), coalesce(user_startable, false))
  on conflict on constraint sync_kinds_pkey do update
  set handler = excluded.handler, max_concurrency = excluded.max_concurrency, max_retries = excluded.max_retries,
      lease_seconds = excluded.lease_seconds, retry_delay_seconds = excluded.retry_delay_seconds,
      user_startable = excluded.user_startable, updated_at = now()
  returning k.* into saved;
  return to_jsonb(saved);
end
$$;
comment on function public.save_sync_kind is
  'Adds or changes a kind of sync. Jobs that run already keep their max_concurrency and max_retries.';

create or replace function chunk_private.save_secret(name text, secret text, description text)
returns void
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  secret_id uuid;
begin
  select s.id into secret_id from vault.secrets s where s.name = name;
  if secret_id is null then
    perform vault.create_secret(secret, name, description);
  else
    perform vault.update_secret(secret_id, secret, name, description);
  end if;
end
$$;
comment on function chunk_private.save_secret is 'Writes a Vault entry by name. For use in definer functions: the Vault is the owner''s.';

create or replace function chunk_private.configure_chunk_processing(project_url text, processor_key text)
returns jsonb
language plpgsql
security definer -- writes the Vault
set search_path = ''
as $$
#variable_conflict use_variable
begin
  if project_url is null or project_url !~ '^https?://[^/?#[:space:]]+/?$' then
    raise exception using errcode = 'SC003', detail = 'project_url',
      message = 'project_url must be the base URL of the project as the database reaches it, such as https://abc.supabase.co';
  end if;
  if processor_key is null or length(processor_key) < 8 or processor_key ~ '[[:space:]]' or processor_key like 'sb\_publishable\_%' then
    raise exception using errcode = 'SC003', detail = 'processor_key',
      message = 'processor_key must be a secret key (sb_secret_…) or the legacy service_role key';
  end if;
  if to_regproc('vault.create_secret') is null then
    raise exception using errcode = 'SC006', message = 'the extension supabase_vault is not installed',
      hint = 'create extension supabase_vault cascade;';
  end if;
  perform chunk_private.save_secret('project_url', rtrim(project_url, '/'), 'supabase-chunks: where the Edge Functions are');
  perform chunk_private.save_secret('chunk_processor_key', processor_key, 'supabase-chunks: the key that webhooks carry');
  perform chunk_private.schedule_watchdog();
  -- What waited for this goes on now.
  perform chunk_private.dispatch_waiting(null, false);
  return public.chunk_system_health();
end
$$;
comment on function chunk_private.configure_chunk_processing is 'The body of configure_chunk_processing.';

create or replace function public.configure_chunk_processing(project_url text, processor_key text)
returns jsonb
language sql
set search_path = ''
as $$ select chunk_private.configure_chunk_processing($1, $2); $$;
comment on function public.configure_chunk_processing is
  'Writes into the Vault where webhooks go (the project''s URL as the database reaches it) and which key they carry; schedules the watchdog. Returns chunk_system_health(), never the key.';

-- Health ----------------------------------------------------------------------------------------------------------------

create or replace function chunk_private.watchdog_health()
returns jsonb
language plpgsql
stable
set search_path = ''
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
set search_path = ''
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
set search_path = ''
as $$
  select jsonb_build_object(
    'version', chunk_private.version(),
    'postgres', current_setting('server_version'),
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
set search_path = ''
as $$ select chunk_private.chunk_system_health(); $$;
comment on function public.chunk_system_health is
  'What an operator wants to know: extensions, URL and key present, the watchdog, last webhooks and their outcome, stalled jobs, the oldest chunk waiting, dead rows, and the age of the oldest snapshot and transaction.';

-- Purge -----------------------------------------------------------------------------------------------------------------

create or replace function public.purge_sync_jobs(older_than interval default '30 days', batch_size int default 10000)
returns jsonb
language plpgsql
set search_path = ''
set statement_timeout = '60s'
as $$
#variable_conflict use_variable
declare
  job record;
  budget int := batch_size;
  deleted int;
  jobs int := 0;
  chunks int := 0;
begin
  if older_than is null or older_than < interval '0' then
    raise exception using errcode = 'SC003', detail = 'older_than', message = 'older_than must be an interval that is not negative';
  end if;
  perform chunk_private.check_range('batch_size', coalesce(batch_size, 0), 1, 1000000);
  for job in
    select j.id from public.sync_jobs j
    where j.completed_at <= now() - older_than
    order by j.completed_at, j.id
  loop
    exit when budget <= 0;
    -- Somebody may be reopening it; then it is not purged now.
    continue when not pg_try_advisory_xact_lock(uuid_hash_extended(job.id, 0));
    continue when not exists (select from public.sync_jobs j where j.id = job.id and j.completed_at <= now() - older_than);
    delete from public.chunk_processing_queue q
    where q.id = any (array(
      select c.id from public.chunk_processing_queue c where c.parent_sync_job_id = job.id order by c.chunk_index limit budget
    ));
    get diagnostics deleted = row_count;
    chunks := chunks + deleted;
    budget := budget - deleted;
    if not exists (select from public.chunk_processing_queue q where q.parent_sync_job_id = job.id) then
      delete from public.sync_jobs j where j.id = job.id;
      jobs := jobs + 1;
      budget := budget - (deleted = 0)::int; -- an empty job is work too
    end if;
  end loop;
  return jsonb_build_object('jobs', jobs, 'chunks', chunks, 'more', exists (
    select from public.sync_jobs j where j.completed_at <= now() - older_than
  ));
end
$$;
comment on function public.purge_sync_jobs is
  'Deletes jobs that ended longer ago than older_than, with their chunks; about batch_size chunks a call. Returns {jobs, chunks, more}: call again while more is true.';
