-- Who calls, and what a user may do.

create or replace function chunk_private.is_service()
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- The role that the API has switched to, which a definer function does not change; never the absence of a user id.
  select pg_has_role(case current_setting('role') when 'none' then session_user else current_setting('role')::name end, 'service_role', 'member');
$$;
comment on function chunk_private.is_service is 'Whether the caller acts for the service (service_role, postgres), not for a signed-in user.';

create or replace function chunk_private.signed_in_user()
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
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

create or replace function chunk_private.owner_meant(owner_id uuid)
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if chunk_private.is_service() then
    return owner_id;
  end if;
  if owner_id <> chunk_private.signed_in_user() then
    raise exception using errcode = 'SC003', detail = 'owner_id', message = 'owner_id must be null or your own user id';
  end if;
  return chunk_private.signed_in_user();
end
$$;
comment on function chunk_private.owner_meant is 'For whom the caller acts: for whom the argument says when it is the service, otherwise for themselves.';

create or replace function chunk_private.refuse(job public.sync_jobs, action text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = 'SC005', message = format('the sync job %s is %s: it cannot be %s', (job).id, (job).status, action);
end
$$;
comment on function chunk_private.refuse is 'Raises SC005: not possible in the job''s state.';

-- The limits of a user. The caller holds the user's lock, or parallel calls could slip past them together.

create or replace function chunk_private.check_active_jobs(owner_id uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  most constant int := (select s.user_max_active_jobs from chunk_private.settings s);
begin
  if most <= (select count(*) from public.sync_jobs j where j.owner_id = owner_id and j.status in ('pending', 'running', 'paused')) then
    raise exception using errcode = 'SC004', detail = 'user_max_active_jobs',
      message = format('a user may have %s active jobs (user_max_active_jobs)', most), hint = 'Wait for one to end, or cancel it.';
  end if;
end
$$;
comment on function chunk_private.check_active_jobs is 'Raises SC004 when a user, whose lock the caller has, has as many active jobs as allowed.';

-- What is older does not count: else a project that never purges would refuse its users one day. Of the two parts the first reads
-- sync_jobs_owner, the second the active jobs, however many have ended.
create or replace function chunk_private.kept_chunks(owner_id uuid)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce((
    select sum(greatest(j.total_chunks, 1)) from public.sync_jobs j where j.owner_id = $1 and j.created_at > now() - interval '30 days'
  ), 0)::bigint + coalesce((
    select sum(greatest(j.total_chunks, 1)) from public.sync_jobs j
    where j.owner_id = $1 and j.created_at <= now() - interval '30 days' and j.status in ('pending', 'running', 'paused')
  ), 0)::bigint;
$$;
comment on function chunk_private.kept_chunks is 'The chunks that count towards a user''s user_max_kept_chunks.';

create or replace function chunk_private.check_kept_chunks(owner_id uuid, more bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  most constant int := (select s.user_max_kept_chunks from chunk_private.settings s);
  kept constant bigint := chunk_private.kept_chunks(owner_id);
begin
  if kept + more > most then
    raise exception using errcode = 'SC004', detail = 'user_max_kept_chunks',
      message = format('a user may have %s chunks in 30 days, those of ended jobs too (user_max_kept_chunks): there are %s, and %s would come', most, kept, more),
      hint = 'purge_sync_jobs() deletes jobs that have ended; save_chunk_settings() changes the limit.';
  end if;
end
$$;
comment on function chunk_private.check_kept_chunks is 'Raises SC004 when a user''s jobs would have more chunks than may be kept.';

create or replace function chunk_private.check_webhooks(owner_id uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  most constant int := (select s.user_max_webhooks from chunk_private.settings s);
begin
  if most <= (
    select count(*) from chunk_private.dispatches d
    where d.by_user and d.owner_id = owner_id and d.created_at > now() - interval '1 minute'
  ) then
    raise exception using errcode = 'SC004', detail = 'user_max_webhooks',
      message = format('what a user does may cause %s webhooks a minute (user_max_webhooks)', most), hint = 'Wait a minute.';
  end if;
end
$$;
comment on function chunk_private.check_webhooks is 'Raises SC004 when a user has caused as many webhooks within a minute as allowed.';

create or replace function chunk_private.remember_request(job_id uuid, request_id uuid, call text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  insert into chunk_private.answered_requests (request_id, job_id, call) values (request_id, job_id, call) on conflict do nothing;
  if not chunk_private.is_service() then
    delete from chunk_private.answered_requests r
    where r.job_id = job_id and r.call = call and r.created_at < (
      select n.created_at from chunk_private.answered_requests n
      where n.job_id = job_id and n.call = call
      order by n.created_at desc offset (select greatest(s.user_max_requests, 1) - 1 from chunk_private.settings s) limit 1
    );
  end if;
end
$$;
comment on function chunk_private.remember_request is
  'Remembers that a job has answered a request, so that its repeat does nothing; of a user''s requests the newest only.';
