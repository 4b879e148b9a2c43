-- What a project answers whose extension pg_graphql is off.
create schema if not exists graphql_public;
alter schema graphql_public owner to supabase_admin;
grant usage on schema graphql_public to postgres, anon, authenticated, service_role;

create or replace function graphql_public.graphql(
    "operationName" text default null, query text default null, variables jsonb default null, extensions jsonb default null
) returns jsonb
language sql
set search_path = ''
as $$ select '{"errors": [{"message": "pg_graphql extension is not enabled."}]}'::jsonb $$;
