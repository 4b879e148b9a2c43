-- Starting and steering jobs. Users may call these for their own jobs, and write no table themselves: hence each is a
-- definer function in chunk_private, which checks who calls, behind an invoker wrapper in public.

-- Who calls -----------------------------------------------------------------------------------------------------------

create or replace function chunk_private.is_service()
returns boolean
language sql
stable
set search_path = ''
as $$
  -- The role that the API has switched to, which a definer function does not change; never the absence of a user id.
  select pg_has_role(case current_setting('role') when 'none' then session_user else current_setting('role')::name end, 'service_role', 'member');
$$;
comment on function chunk_private.is_service is 'Whether the caller acts for the service (service_role, postgres), not for a signed-in user.';

create or replace function chunk_private.signed_in_user()
returns uuid
language plpgsql
stable
set search_path = ''
as $$
declare
  user_id constant uuid := auth.uid();
begin
  if user_id is null then
    raise exception using errcode = '42501', message = 'this needs a signed-in user: the access token names none';
  end if;
  return user_id;
end
$$;
comment on function chunk_private.signed_in_user is 'The caller''s user id; 42501 when there is none.';

-- Enters a job exclusively: nobody completes, gives back or recovers its chunks until the transaction's end.
create or replace function chunk_private.enter_job(job_id uuid)
returns public.sync_jobs
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  job public.sync_jobs;
begin
  select j.* into job from public.sync_jobs j where j.id = job_id;
  if found and (chunk_private.is_service() or job.owner_id is not distinct from chunk_private.signed_in_user()) then
    perform pg_advisory_xact_lock(uuid_hash_extended(job_id, 0));
    select j.* into job from public.sync_jobs j where j.id = job_id;
  else
    job := null;
  end if;
  if job.id is null then -- there was none, or it was purged while this waited
    raise exception using errcode = 'SC001', message = format('there is no sync job %s', coalesce(job_id::text, '(null)')),
      hint = 'Or it belongs to another user.';
  end if;
  return job;
end
$$;
comment on function chunk_private.enter_job is 'Takes the exclusive gate of a job that the caller may steer, and returns the job; SC001 otherwise.';

create or replace function chunk_private.refuse(job public.sync_jobs, action text)
returns void
language plpgsql
set search_path = ''
as $$
begin
  raise exception using errcode = 'SC005', message = format('the sync job %s is %s: it cannot be %s', (job).id, (job).status, action);
end
$$;
comment on function chunk_private.refuse is 'Raises SC005: not possible in the job''s state.';

-- Start ---------------------------------------------------------------------------------------------------------------

-- A start takes this lock before all others, a retry after its gate: who has it waits for no gate.
create or replace function chunk_private.lock_user(owner_id uuid)
returns void
language sql
set search_path = ''
as $$ select pg_advisory_xact_lock(uuid_hash_extended($1, 2)); $$;
comment on function chunk_private.lock_user is 'One at a time a user, so that parallel calls cannot slip past the limits together.';

create or replace function chunk_private.check_active_jobs(owner_id uuid)
returns void
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  most constant int := (select s.user_max_active_jobs from chunk_private.settings s);
begin
  if most <= (select count(*) from public.sync_jobs j where j.owner_id = owner_id and j.status in ('pending', 'running', 'paused')) then
    raise exception using errcode = 'SC004', message = format('a user may have %s active jobs', most),
      hint = 'Wait for one to end, or cancel it.';
  end if;
end
$$;
comment on function chunk_private.check_active_jobs is 'Raises SC004 when a user, whose lock the caller has, has as many active jobs as allowed.';

create table if not exists chunk_private.joined_requests (
  request_id uuid not null,
  job_id uuid not null,
  primary key (request_id, job_id),
  constraint joined_requests_job_fkey foreign key (job_id) references public.sync_jobs (id) on delete cascade
);
comment on table chunk_private.joined_requests is
  'The request ids of starts that were given an active job with their job_key, so that they get the same job when it has ended.';
create index if not exists joined_requests_job on chunk_private.joined_requests (job_id);

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

-- Append --------------------------------------------------------------------------------------------------------------

create table if not exists chunk_private.appended_pages (
  job_id uuid not null,
  request_id uuid not null,
  primary key (job_id, request_id),
  constraint appended_pages_job_fkey foreign key (job_id) references public.sync_jobs (id) on delete cascade
);
comment on table chunk_private.appended_pages is 'The request ids of pages appended to a job, so that a repeated page adds nothing.';

create or replace function chunk_private.append_sync_chunks(
  parent_sync_job_id uuid, chunks jsonb, request_id uuid, seal boolean, items_total bigint
)
returns jsonb
language plpgsql
security definer -- users may append to their own jobs and write no table
set search_path = ''
as $$
#variable_conflict use_variable
declare
  job public.sync_jobs;
  most bigint;
begin
  chunks := coalesce(chunks, '[]');
  perform chunk_private.check_chunks('chunks', chunks);
  perform chunk_private.check_range('items_total', items_total, 0, 9007199254740991) where items_total is not null;
  job := chunk_private.enter_job(parent_sync_job_id);
  if request_id is not null and exists (
    select from chunk_private.appended_pages p where p.job_id = parent_sync_job_id and p.request_id = request_id
  ) then
    return public.get_sync_job_progress_safe(job.id);
  end if;
  if job.status not in ('pending', 'running', 'paused') then
    perform chunk_private.refuse(job, 'appended to');
  end if;
  if not chunk_private.is_service() then
    if job.sealed then
      raise exception using errcode = 'SC005', message = format('the sync job %s is sealed: only an unsealed job can be appended to', job.id);
    end if;
    select s.user_max_chunks into most from chunk_private.settings s;
    if job.total_chunks + jsonb_array_length(chunks) > most then
      raise exception using errcode = 'SC004', detail = 'chunks', message = format('a user''s job may have %s chunks', most);
    end if;
  end if;
  if request_id is not null then
    insert into chunk_private.appended_pages (job_id, request_id) values (job.id, request_id);
  end if;
  perform chunk_private.add_chunks(job.id, chunks, items_total);
  if seal and not job.sealed then
    update public.sync_jobs j set sealed = true where j.id = job.id;
    perform chunk_private.finish_if_done(job.id);
  end if;
  perform chunk_private.fill_slots(job.id);
  return public.get_sync_job_progress_safe(job.id);
end
$$;
comment on function chunk_private.append_sync_chunks is 'The body of append_sync_chunks.';

create or replace function public.append_sync_chunks(
  parent_sync_job_id uuid, chunks jsonb, request_id uuid default null, seal boolean default false, items_total bigint default null
)
returns jsonb
language sql
set search_path = ''
set statement_timeout = '60s'
as $$ select chunk_private.append_sync_chunks($1, $2, $3, $4, $5); $$;
comment on function public.append_sync_chunks is
  'Appends chunks (a JSON array of objects) to an active job; for users: to an unsealed job of their own. The same request_id again adds nothing. seal => true says that these were the last.';

create or replace function public.enqueue_chunks_from_rows()
returns trigger
language plpgsql
set search_path = ''
as $$
declare
  job_column constant text := coalesce(tg_argv[0], 'parent_sync_job_id');
  page record;
begin
  for page in
    select to_jsonb(r) ->> job_column as job_id, jsonb_agg(to_jsonb(r)) as chunks
    from new_rows r
    group by 1
    order by 1
  loop
    if page.job_id is null then
      raise exception using errcode = 'SC003', detail = job_column,
        message = format('each row of %s must name its sync job in the column %s', tg_relid::regclass, job_column);
    end if;
    perform public.append_sync_chunks(page.job_id::uuid, page.chunks);
  end loop;
  return null;
end
$$;
comment on function public.enqueue_chunks_from_rows is
  'A trigger for your own table of chunks: each row inserted becomes a chunk (its payload is the row) of the job that the column parent_sync_job_id, or the one named as the trigger''s argument, gives. Attach it with: create trigger … after insert on … referencing new table as new_rows for each statement execute function enqueue_chunks_from_rows().';

-- Cancel, pause, resume, retry -----------------------------------------------------------------------------------------

create or replace function chunk_private.cancel_sync_job(parent_sync_job_id uuid)
returns jsonb
language plpgsql
security definer -- users may cancel their own jobs and write no table
set search_path = ''
as $$
#variable_conflict use_variable
declare
  job constant public.sync_jobs := chunk_private.enter_job(parent_sync_job_id);
begin
  if job.status in ('completed', 'failed') then
    perform chunk_private.refuse(job, 'cancelled');
  elsif job.status <> 'cancelled' then
    -- The slots first: this waits for claims that are under way, and leaves nothing to later ones.
    delete from chunk_private.slots s where s.job_id = job.id;
    delete from chunk_private.returned_chunks r where r.job_id = job.id;
    delete from chunk_private.fresh_stripes f where f.job_id = job.id;
    with ended as (
      update public.chunk_processing_queue q
      set status = 'cancelled', locked_until = null, completed_at = now(), updated_at = now()
      where q.parent_sync_job_id = job.id and q.status in ('pending', 'processing')
      returning q.id, q.attempts, q.worker_id, q.claim_token, q.started_at, q.chunk_index, q.items_processed
    ),
    recorded as (
      insert into chunk_private.chunk_attempts (chunk_id, attempt, outcome, worker_id, claim_token, claimed_at)
      select e.id, e.attempts, 'cancelled', e.worker_id, e.claim_token, e.started_at from ended e where e.claim_token is not null
    )
    update chunk_private.job_counters c
    set open_chunks = 0, retrying_chunks = 0, cancelled_chunks = c.cancelled_chunks + c.open_chunks, last_activity_at = now(),
        items_processed = c.items_processed + coalesce((
          select sum(e.items_processed) from ended e where e.chunk_index % job.counter_shards = c.shard and e.claim_token is not null
        ), 0)::bigint
    where c.job_id = job.id;
    update public.sync_jobs j
    set status = 'cancelled', completed_at = now(), finishes = j.finishes + 1
    where j.id = job.id;
  end if;
  return public.get_sync_job_progress_safe(job.id);
end
$$;
comment on function chunk_private.cancel_sync_job is 'The body of cancel_sync_job.';

create or replace function chunk_private.pause_sync_job(parent_sync_job_id uuid)
returns jsonb
language plpgsql
security definer -- users may pause their own jobs and write no table
set search_path = ''
as $$
#variable_conflict use_variable
declare
  job constant public.sync_jobs := chunk_private.enter_job(parent_sync_job_id);
begin
  if job.status in ('completed', 'failed', 'cancelled') then
    perform chunk_private.refuse(job, 'paused');
  elsif job.status <> 'paused' then
    with taken_back as (
      delete from chunk_private.slots s where s.job_id = job.id and not s.claimed returning s.ready_at, s.chunk_index
    )
    insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
    select job.id, t.ready_at, t.chunk_index from taken_back t;
    update public.sync_jobs j set status = 'paused' where j.id = job.id;
  end if;
  return public.get_sync_job_progress_safe(job.id);
end
$$;
comment on function chunk_private.pause_sync_job is 'The body of pause_sync_job.';

create or replace function chunk_private.resume_sync_job(parent_sync_job_id uuid)
returns jsonb
language plpgsql
security definer -- users may resume their own jobs and write no table
set search_path = ''
as $$
#variable_conflict use_variable
declare
  job constant public.sync_jobs := chunk_private.enter_job(parent_sync_job_id);
begin
  if job.status in ('completed', 'failed', 'cancelled') then
    perform chunk_private.refuse(job, 'resumed');
  elsif job.status = 'paused' then
    update public.sync_jobs j
    set status = case when j.started_at is null then 'pending' else 'running' end
    where j.id = job.id;
    perform chunk_private.fill_slots(job.id);
  end if;
  return public.get_sync_job_progress_safe(job.id);
end
$$;
comment on function chunk_private.resume_sync_job is 'The body of resume_sync_job.';

create or replace function chunk_private.retry_failed_chunks(parent_sync_job_id uuid)
returns jsonb
language plpgsql
security definer -- users may retry their own jobs and write no table
set search_path = ''
as $$
#variable_conflict use_variable
declare
  job constant public.sync_jobs := chunk_private.enter_job(parent_sync_job_id);
  reopened bigint;
begin
  if job.status in ('completed', 'cancelled') then
    perform chunk_private.refuse(job, 'retried');
  elsif job.status = 'failed' and not chunk_private.is_service() then
    perform chunk_private.lock_user(job.owner_id);
    perform chunk_private.check_active_jobs(job.owner_id);
  end if;
  with chunk as (
    update public.chunk_processing_queue q
    set status = 'pending', attempts = 0, given_back = 0, claim_token = null, items_processed = null, completed_at = null, updated_at = now()
    where q.parent_sync_job_id = job.id and q.status = 'failed'
    returning q.chunk_index
  )
  insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
  select job.id, now(), c.chunk_index from chunk c;
  get diagnostics reopened = row_count;
  if reopened <> (select coalesce(sum(c.failed_chunks), 0) from chunk_private.job_counters c where c.job_id = job.id) then
    perform chunk_private.refuse(job, 'retried any more: purge_sync_jobs() has begun to delete its chunks');
  end if;
  update chunk_private.job_counters c
  set open_chunks = c.open_chunks + c.failed_chunks, failed_chunks = 0, last_activity_at = now()
  where c.job_id = job.id;
  if job.status = 'failed' then
    begin
      update public.sync_jobs j set status = 'running', completed_at = null where j.id = job.id;
    exception when unique_violation then
      raise exception using errcode = 'SC005',
        message = format('the sync job %s cannot be retried: another job with the key %L is active', job.id, job.job_key);
    end;
  end if;
  perform chunk_private.fill_slots(job.id);
  return public.get_sync_job_progress_safe(job.id);
end
$$;
comment on function chunk_private.retry_failed_chunks is 'The body of retry_failed_chunks.';

create or replace function public.cancel_sync_job(parent_sync_job_id uuid)
returns jsonb
language sql
set search_path = ''
set statement_timeout = '60s'
as $$ select chunk_private.cancel_sync_job($1); $$;
comment on function public.cancel_sync_job is
  'Ends a job and all its open chunks at once; a worker hears of it at its next heartbeat, and its late report answers cancelled. SC005 when the job has completed or failed.';

create or replace function public.pause_sync_job(parent_sync_job_id uuid)
returns jsonb
language sql
set search_path = ''
set statement_timeout = '60s'
as $$ select chunk_private.pause_sync_job($1); $$;
comment on function public.pause_sync_job is 'Stops handing out a job''s chunks; those that are processing go on. SC005 when the job has ended.';

create or replace function public.resume_sync_job(parent_sync_job_id uuid)
returns jsonb
language sql
set search_path = ''
set statement_timeout = '60s'
as $$ select chunk_private.resume_sync_job($1); $$;
comment on function public.resume_sync_job is 'Goes on with a paused job. SC005 when the job has ended.';

create or replace function public.retry_failed_chunks(parent_sync_job_id uuid)
returns jsonb
language sql
set search_path = ''
set statement_timeout = '60s'
as $$ select chunk_private.retry_failed_chunks($1); $$;
comment on function public.retry_failed_chunks is
  'Reopens the failed chunks of a job with all their attempts; the others stay as they are. SC005 when the job has completed, was cancelled or is being purged; SC004 when a user has as many active jobs as allowed.';
