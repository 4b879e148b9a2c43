-- Schemas of a new project, and what may be done in them before any migration: in public nothing is granted on new
-- tables, to nobody, not even to service_role.
do $$
begin
    execute format('alter database %I owner to postgres', current_database());
end
$$;
alter schema public owner to postgres;
grant usage on schema public to postgres, anon, authenticated, service_role;

create schema if not exists extensions;
alter schema extensions owner to supabase_admin;
grant all on schema extensions to postgres;
grant usage on schema extensions to anon, authenticated, service_role;

create schema if not exists auth;
alter schema auth owner to supabase_admin;
grant usage on schema auth to postgres, anon, authenticated, service_role;

-- Enough of the users' table for foreign keys and for trying things out; there is no sign-up here.
create table if not exists auth.users (
    instance_id uuid,
    id uuid not null,
    aud varchar(255),
    role varchar(255),
    email varchar(255),
    raw_app_meta_data jsonb,
    raw_user_meta_data jsonb,
    created_at timestamptz,
    updated_at timestamptz,
    constraint users_pkey primary key (id)
);
grant select, insert, update, delete, references, trigger on auth.users to postgres;

-- PostgREST hands over the claims of the request's token as one JSON object; older versions set a setting a claim, and
-- where both are there the single one counts.
create or replace function auth.jwt() returns jsonb
language sql stable
return coalesce(
    nullif(current_setting('request.jwt.claim', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')
)::jsonb;

create or replace function auth.uid() returns uuid
language sql stable
return coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
)::uuid;

create or replace function auth.role() returns text
language sql stable
return coalesce(
    nullif(current_setting('request.jwt.claim.role', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
);

create or replace function auth.email() returns text
language sql stable
return coalesce(
    nullif(current_setting('request.jwt.claim.email', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email'
);
