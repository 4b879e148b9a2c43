-- Starting jobs. Users may call what is here and in the next two files for their own jobs, and write no table themselves:
-- hence each is a definer function in chunk_private, which checks who calls, behind an invoker wrapper in public.

create or replace function chunk_private.start_sync_job(
  kind text, chunks jsonb, total_items bigint, chunk_size int, payload jsonb, job_key text, request_id uuid, priority int,
  max_concurrency int, max_retries int, owner_id uuid, sealed boolean
)
returns jsonb
language plpgsql
security definer -- users may start jobs and write no table
set search_path = ''
as $$
#variable_conflict use_variable
declare
  by_service constant boolean := chunk_private.is_service();
  rules public.sync_kinds;
  limits chunk_private.settings;
  job public.sync_jobs;
  total bigint;
  found_id uuid;
begin
  -- Arguments
  select k.* into rules from public.sync_kinds k where k.kind = kind and (by_service or k.user_startable);
  if not found then
    raise exception using errcode = 'SC002', detail = 'kind',
      message = format('no sync kind is named %L%s', kind, case when by_service then '' else ' that users may start' end),
      hint = 'save_sync_kind() adds one, or lets users start it.';
  end if;
  if jsonb_typeof(payload) is distinct from 'object' then
    raise exception using errcode = 'SC003', detail = 'payload', message = 'payload must be a JSON object';
  end if;
  if length(job_key) not between 1 and 500 then
    raise exception using errcode = 'SC003', detail = 'job_key', message = 'job_key must be a text of 1 to 500 characters, or null';
  end if;
  perform chunk_private.check_range('priority', coalesce(priority, 0), -3, 3);
  perform chunk_private.check_range('max_concurrency', max_concurrency, 1, 1000) where max_concurrency is not null;
  perform chunk_private.check_range('max_retries', max_retries, 0, 100) where max_retries is not null;
  perform chunk_private.check_range('total_items', total_items, 0, 9007199254740991) where total_items is not null;
  perform chunk_private.check_range('chunk_size', chunk_size, 1, 2147483647) where chunk_size is not null;
  if chunks is not null then
    if chunk_size is not null then
      raise exception using errcode = 'SC003', detail = 'chunk_size', message = 'chunk_size goes with total_items, not with chunks';
    end if;
    perform chunk_private.check_chunks('chunks', chunks);
    total := jsonb_array_length(chunks);
  elsif total_items is not null or chunk_size is not null then
    if total_items is null or chunk_size is null then
      raise exception using errcode = 'SC003', detail = case when chunk_size is null then 'chunk_size' else 'total_items' end,
        message = 'total_items and chunk_size go together, unless chunks are given';
    end if;
    total := (total_items + chunk_size - 1) / chunk_size;
    if total > 100000 then
      raise exception using errcode = 'SC004', detail = 'chunk_size',
        message = format('%s items with a chunk_size of %s are %s chunks; one call may make 100000', total_items, chunk_size, total);
    end if;
  else
    total := 1;
  end if;

  -- A user's limits
  if not by_service then
    if owner_id <> chunk_private.signed_in_user() then
      raise exception using errcode = 'SC003', detail = 'owner_id', message = 'owner_id must be null or your own user id';
    end if;
    owner_id := chunk_private.signed_in_user();
    select s.* into limits from chunk_private.settings s;
    if total > limits.user_max_chunks then
      raise exception using errcode = 'SC004', detail = 'chunks',
        message = format('a user''s job may have %s chunks, not %s', limits.user_max_chunks, total);
    end if;
    if max_concurrency > rules.max_concurrency then
      raise exception using errcode = 'SC004', detail = 'max_concurrency',
        message = format('a user''s job of kind %s may have max_concurrency %s, not %s', kind, rules.max_concurrency, max_concurrency);
    end if;
    if max_retries > rules.max_retries then
      raise exception using errcode = 'SC004', detail = 'max_retries',
        message = format('a user''s job of kind %s may have max_retries %s, not %s', kind, rules.max_retries, max_retries);
    end if;
    if priority > 0 then
      raise exception using errcode = 'SC004', detail = 'priority', message = 'a user''s job may not have a priority above 0';
    end if;
    perform chunk_private.lock_user(owner_id);
  end if;

  insert into chunk_private.lanes (kind, priority)
  select kind, coalesce(priority, 0)
  where not exists (select from chunk_private.lanes l where l.kind = kind and l.priority = coalesce(priority, 0))
  on conflict on constraint lanes_kind_priority_key do nothing;

  -- The job, or the one that the same request or the same key has made before. `on conflict do nothing` waits for a
  -- concurrent start of the same key; what it met may have ended before we look, hence the loop.
  for round in 1..20 loop
    select j.id into found_id from public.sync_jobs j
    where j.owner_id is not distinct from owner_id and j.id = any (array(
      select m.id from public.sync_jobs m where m.request_id = request_id
      union all
      select r.job_id from chunk_private.joined_requests r where r.request_id = request_id
    ));
    if found_id is null then
      select j.id into found_id from public.sync_jobs j
      where j.kind = kind and j.job_key = job_key and j.owner_id is not distinct from owner_id and j.status in ('pending', 'running', 'paused');
      if found then
        insert into chunk_private.joined_requests (request_id, job_id)
        select request_id, found_id where request_id is not null
        on conflict do nothing;
      end if;
    end if;
    if found_id is not null then
      return public.get_sync_job_progress_safe(found_id) || '{"created": false}';
    end if;
    if not by_service then
      perform chunk_private.check_active_jobs(owner_id);
    end if;
    insert into public.sync_jobs
      (kind, owner_id, status, payload, job_key, request_id, priority, max_concurrency, max_retries, sealed, total_chunks, items_total,
       counter_shards, finishes, completed_at)
    select kind, owner_id, case when done then 'completed' else 'pending' end, payload, job_key, request_id, coalesce(priority, 0),
      m.cap, coalesce(max_retries, rules.max_retries), coalesce(sealed, true), total, total_items, least(16, m.cap), done::int, case when done then now() end
    from (select coalesce(max_concurrency, rules.max_concurrency) as cap, total = 0 and coalesce(sealed, true) as done) m
    on conflict do nothing
    returning * into job;
    exit when job.id is not null;
  end loop;
  if job.id is null then
    raise exception using errcode = 'SC005', message = format('jobs with the key %L start and end faster than this call can see', job_key);
  end if;

  insert into public.chunk_processing_queue
    (parent_sync_job_id, kind, owner_id, chunk_index, priority, max_retries, payload, items_total)
  select job.id, kind, owner_id, c.place - 1, job.priority, job.max_retries, c.payload, c.items
  from (
    select l.place, l.payload, null::bigint as items
    from jsonb_array_elements(chunks) with ordinality l (payload, place) where chunks is not null
    union all
    select s.place, jsonb_build_object('offset', s.first, 'limit', s.items), s.items
    from (
      select g.place, (g.place - 1) * chunk_size as first, least(chunk_size, total_items - (g.place - 1) * chunk_size) as items
      from generate_series(1, total) g (place)
    ) s where chunks is null and total_items is not null
    union all
    select 1, payload, null where chunks is null and total_items is null
  ) c;
  perform chunk_private.count_fresh(job.id, owner_id, job.counter_shards, 0, total);
  perform chunk_private.fill_slots(job.id);
  return public.get_sync_job_progress_safe(job.id) || '{"created": true}';
end
$$;
comment on function chunk_private.start_sync_job is 'The body of start_sync_job.';

create or replace function public.start_sync_job(
  kind text, chunks jsonb default null, total_items bigint default null, chunk_size int default null, payload jsonb default '{}',
  job_key text default null, request_id uuid default null, priority int default 0, max_concurrency int default null,
  max_retries int default null, owner_id uuid default null, sealed boolean default true
)
returns jsonb
language sql
set search_path = ''
set statement_timeout = '60s'
as $$ select chunk_private.start_sync_job($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12); $$;
comment on function public.start_sync_job is
  'Starts a sync: its chunks given as a JSON array of objects, or as total_items in pieces of chunk_size (payloads {offset, limit}), or by neither as one chunk with the job''s payload. Returns the job''s progress and whether it was created: with a job_key that is active, or a request_id seen before, the earlier job is returned.';
