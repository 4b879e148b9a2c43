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
-- New projects have these two from the start; the server's own, or those of `extensions/` beside this file.
do $$
declare
    extension_name text;
begin
    foreach extension_name in array array['pgcrypto', 'uuid-ossp'] loop
        if extension_name in (select e.name from pg_catalog.pg_available_extensions e) then
            execute format('create extension if not exists %I with schema extensions', extension_name);
        end if;
    end loop;
end
$$;

-- Where two extensions of the platform live; what is in them is missing here.
create schema if not exists graphql;
create schema if not exists pgsodium;
grant usage on schema graphql to postgres, anon, authenticated, service_role;
grant all on schema pgsodium to postgres;
