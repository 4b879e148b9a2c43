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
    raise exception using errcode = 'SC004', message = format('a user may have %s active jobs', most),
      hint = 'Wait for one to end, or cancel it.';
  end if;
end
$$;
comment on function chunk_private.check_active_jobs is 'Raises SC004 when a user, whose lock the caller has, has as many active jobs as allowed.';
