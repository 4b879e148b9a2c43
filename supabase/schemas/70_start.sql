-- Starting jobs. Users may call what is here and in the next two files for their own jobs, and write no table themselves:
-- hence each is a definer function in chunk_private, which checks who calls, behind an invoker wrapper in public.

create or replace function chunk_private.count_first_chunks(chunks jsonb, total_items bigint, chunk_size int, most_bytes int)
returns bigint
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  total bigint;
begin
  perform chunk_private.check_items('total_items', total_items);
  perform chunk_private.check_range('chunk_size', chunk_size, 1, 2147483647);
  if chunks is not null then
    if chunk_size is not null then
      raise exception using errcode = 'SC003', detail = 'chunk_size', message = 'chunk_size goes with total_items, not with chunks';
    end if;
    perform chunk_private.check_chunks('chunks', chunks, most_bytes);
    return jsonb_array_length(chunks);
  elsif total_items is null and chunk_size is null then
    return 1;
  elsif total_items is null or chunk_size is null then
    raise exception using errcode = 'SC003', detail = case when chunk_size is null then 'chunk_size' else 'total_items' end,
      message = 'total_items and chunk_size go together, unless chunks are given';
  end if;
  total := (total_items + chunk_size - 1) / chunk_size;
  if total > 100000 then
    raise exception using errcode = 'SC004', detail = 'chunk_size',
      message = format('%s items with a chunk_size of %s are %s chunks; one call may make 100000', total_items, chunk_size, total);
  end if;
  return total;
end
$$;
comment on function chunk_private.count_first_chunks is
  'How many chunks a start makes, of chunks given or total_items in pieces of chunk_size; raises SC003 or SC004, naming the argument.';

create or replace function chunk_private.check_user_start(job public.sync_jobs, rules public.sync_kinds)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  limits constant chunk_private.settings := (select s from chunk_private.settings s);
begin
  if job.total_chunks > limits.user_max_chunks then
    raise exception using errcode = 'SC004', detail = 'chunks',
      message = format('a user''s job may have %s chunks, not %s', limits.user_max_chunks, job.total_chunks);
  elsif job.max_concurrency > rules.max_concurrency then
    raise exception using errcode = 'SC004', detail = 'max_concurrency', message = format(
      'a user''s job of kind %s may have max_concurrency %s, not %s', job.kind, rules.max_concurrency, job.max_concurrency
    );
  elsif job.max_retries > rules.max_retries then
    raise exception using errcode = 'SC004', detail = 'max_retries',
      message = format('a user''s job of kind %s may have max_retries %s, not %s', job.kind, rules.max_retries, job.max_retries);
  elsif job.priority > 0 then
    raise exception using errcode = 'SC004', detail = 'priority', message = 'a user''s job may not have a priority above 0';
  end if;
end
$$;
comment on function chunk_private.check_user_start is 'Raises SC004, naming the argument, for a job that a user may not start.';

create or replace function chunk_private.find_started(job public.sync_jobs)
returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  found_id uuid;
begin
  select j.id into found_id from public.sync_jobs j
  where j.owner_id is not distinct from job.owner_id and j.id = any (array(
    select m.id from public.sync_jobs m where m.request_id = job.request_id
    union all
    select r.job_id from chunk_private.answered_requests r where r.request_id = job.request_id and r.call = 'start'
  ));
  if found_id is null then
    select j.id into found_id from public.sync_jobs j
    where j.kind = job.kind and j.job_key = job.job_key and j.owner_id is not distinct from job.owner_id
      and j.status in ('pending', 'running', 'paused');
    if found and job.request_id is not null then
      perform chunk_private.remember_request(found_id, job.request_id, 'start');
    end if;
  end if;
  return found_id;
end
$$;
comment on function chunk_private.find_started is
  'The job that the same request has started or was given, else the active one with the same key, or null.';

create or replace function chunk_private.make_first_chunks(job public.sync_jobs, chunks jsonb, chunk_size int)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  insert into public.chunk_processing_queue (parent_sync_job_id, kind, owner_id, chunk_index, max_retries, payload, items_total)
  select job.id, job.kind, job.owner_id, c.place - 1, job.max_retries, c.payload, c.items
  from (
    select l.place, l.payload, null::bigint as items
    from jsonb_array_elements(chunks) with ordinality l (payload, place) where chunks is not null
    union all
    select s.place, jsonb_build_object('offset', s.first, 'limit', s.items), s.items
    from (
      select g.place, (g.place - 1) * chunk_size as first, least(chunk_size, job.items_total - (g.place - 1) * chunk_size) as items
      from generate_series(1, job.total_chunks) g (place)
    ) s where chunks is null and chunk_size is not null
    union all
    select 1, null, null where chunks is null and chunk_size is null -- it reads the job's, which is stored once
  ) c;
  perform chunk_private.line_up(job, 0, job.total_chunks);
  perform chunk_private.make_lane(job.kind, job.priority);
  perform chunk_private.fill_slots(job.id);
end
$$;
comment on function chunk_private.make_first_chunks is 'Makes the chunks of a new job, and hands out its first slots.';

create or replace function chunk_private.start_sync_job(
  kind text, chunks jsonb, total_items bigint, chunk_size int, payload jsonb, job_key text, request_id uuid, priority int,
  max_concurrency int, max_retries int, owner_id uuid, sealed boolean, limit_key text
)
returns jsonb
language plpgsql
security definer -- users may start jobs and write no table
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  by_service constant boolean := chunk_private.is_service();
  limits constant chunk_private.settings := (select s from chunk_private.settings s);
  rules public.sync_kinds;
  job public.sync_jobs;
  found_id uuid;
begin
  perform chunk_private.check_isolation('start_sync_job');
  -- Arguments
  select k.* into rules from public.sync_kinds k where k.kind = start_sync_job.kind and (by_service or k.user_startable);
  if not found then
    raise exception using errcode = 'SC002', detail = 'kind',
      message = format('no sync kind is named %L%s', kind, case when by_service then '' else ' that users may start' end),
      hint = 'save_sync_kind() adds one, or lets users start it.';
  elsif jsonb_typeof(payload) is distinct from 'object' then
    raise exception using errcode = 'SC003', detail = 'payload', message = 'payload must be a JSON object';
  elsif length(job_key) not between 1 and 500 then
    raise exception using errcode = 'SC003', detail = 'job_key', message = 'job_key must be a text of 1 to 500 characters, or null';
  end if;
  perform chunk_private.check_object('payload', payload, case when by_service then limits.max_payload_bytes else limits.user_max_payload_bytes end);
  perform chunk_private.check_range('priority', priority, -3, 3);
  perform chunk_private.check_range('max_concurrency', max_concurrency, 1, 1000);
  perform chunk_private.check_range('max_retries', max_retries, 0, 100);
  job.total_chunks := chunk_private.count_first_chunks(
    chunks, total_items, chunk_size, case when by_service then limits.max_payload_bytes else limits.user_max_chunk_bytes end
  );
  job.kind := kind;
  job.owner_id := chunk_private.owner_meant(owner_id);
  job.payload := payload;
  job.job_key := job_key;
  job.request_id := request_id;
  job.priority := coalesce(priority, 0);
  job.max_concurrency := coalesce(max_concurrency, rules.max_concurrency);
  job.max_retries := coalesce(max_retries, rules.max_retries);
  job.sealed := coalesce(sealed, true);
  job.stripes := least(16, job.max_concurrency);
  job.limit_key := chunk_private.limit_key_meant(limit_key, job, rules.limit_by);
  job.items_total := total_items;
  job.job_no := case when job_key is not null then chunk_private.next_job_no() end;
  if not by_service then
    perform chunk_private.check_user_start(job, rules);
    perform chunk_private.lock_user(job.owner_id);
  end if;

  -- The job, or the one that the same request or the same key has made before. `on conflict do nothing` waits for a
  -- concurrent start of the same key; what it met may have ended before we look, hence the loop.
  for round in 1..20 loop
    found_id := chunk_private.find_started(job);
    if found_id is not null then
      return public.get_sync_job_progress_safe(found_id) || '{"created": false}';
    end if;
    if not by_service then
      perform chunk_private.check_active_jobs(job.owner_id);
      perform chunk_private.check_kept_chunks(job.owner_id, greatest(job.total_chunks, 1));
      perform chunk_private.check_webhooks(job.owner_id);
    end if;
    insert into public.sync_jobs (kind, owner_id, status, payload, job_key, request_id, priority, max_concurrency, max_retries, sealed,
      total_chunks, items_total, job_no, limit_key, stripes, completed_at)
    select job.kind, job.owner_id, case when e.empty then 'completed' else 'pending' end, job.payload, job.job_key, job.request_id,
      job.priority, job.max_concurrency, job.max_retries, job.sealed, job.total_chunks, job.items_total, job.job_no,
      job.limit_key, job.stripes, case when e.empty then now() end
    from (select job.total_chunks = 0 and job.sealed as empty) e
    on conflict do nothing
    returning sync_jobs.id into found_id;
    if found then
      job := (select j from public.sync_jobs j where j.id = found_id);
      perform chunk_private.make_first_chunks(job, chunks, chunk_size);
      perform chunk_private.settle_limits(array[job.limit_key]);
      return public.get_sync_job_progress_safe(job.id) || '{"created": true}';
    end if;
  end loop;
  raise exception using errcode = 'SC005', message = format('jobs with the key %L start and end faster than this call can see', job_key);
end
$$;
comment on function chunk_private.start_sync_job is 'The body of start_sync_job.';

create or replace function public.start_sync_job(
  kind text, chunks jsonb default null, total_items bigint default null, chunk_size int default null, payload jsonb default '{}',
  job_key text default null, request_id uuid default null, priority int default 0, max_concurrency int default null,
  max_retries int default null, owner_id uuid default null, sealed boolean default true, limit_key text default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set statement_timeout = '60s'
set enable_seqscan = off
set jit = off
as $$ select chunk_private.start_sync_job($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13); $$;
comment on function public.start_sync_job is
  'Starts a sync: its chunks given as a JSON array of objects, or as total_items in pieces of chunk_size (payloads {offset, limit}), or by neither as one chunk with the job''s payload. Returns the job''s progress and whether it was created: with a job_key that is active, or a request_id seen before, the earlier job is returned. limit_key (of the service only): what it shares limits by with other jobs, instead of what its kind says.';
