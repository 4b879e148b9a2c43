-- The roles of a hosted project. Roles belong to the whole cluster, so each is made only when it is missing.
do $$
declare
    role_name text;
begin
    foreach role_name in array array[
        'supabase_admin', 'postgres', 'authenticator', 'anon', 'authenticated', 'service_role', 'dashboard_user',
        'supabase_auth_admin', 'supabase_storage_admin', 'supabase_realtime_admin'
    ] loop
        begin
            if to_regrole(role_name) is null then
                execute format('create role %I', role_name);
            end if;
        exception when duplicate_object or unique_violation then
            null; -- someone else installs the platform beside us
        end;
    end loop;
end
$$;

alter role supabase_admin superuser createdb createrole login replication bypassrls;

-- The owner of a project is no superuser: what a migration may do here is what it may do there.
-- Two minutes is the limit that the hosted servers put on every statement of this role.
do $$
begin
    if not (select rolname = current_user from pg_catalog.pg_roles where rolname = 'postgres') then
        alter role postgres nosuperuser createdb createrole login replication bypassrls;
    end if;
end
$$;
alter role postgres set search_path to "$user", public, extensions;
alter role postgres set statement_timeout = '2min';

-- PostgREST logs in as authenticator and becomes one of the three others for each request. It applies the settings of
-- that role; service_role has none of its own and keeps authenticator's.
alter role authenticator login noinherit;
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';
alter role anon nologin noinherit;
alter role anon set statement_timeout = '3s';
alter role authenticated nologin noinherit;
alter role authenticated set statement_timeout = '8s';
alter role service_role nologin noinherit bypassrls;

grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role, authenticator to postgres with admin option;
-- The services that own the tables of auth, storage and realtime do not run here, but migrations name these roles. The
-- project's owner acts for them: hosted, an extension of the server lets it put policies and triggers on their tables.
alter role dashboard_user nologin createdb createrole replication;
alter role supabase_auth_admin nologin noinherit createrole;
alter role supabase_storage_admin nologin noinherit createrole;
alter role supabase_realtime_admin nologin noinherit;
grant supabase_auth_admin, supabase_storage_admin, supabase_realtime_admin to postgres;
-- And these settings, by the same extension.
grant set on parameter
    session_replication_role, log_min_duration_statement, log_min_messages, log_statement, track_io_timing,
    pgrst.db_aggregates_enabled, pgrst.db_extra_search_path, pgrst.db_max_rows, pgrst.db_plan_enabled,
    pgrst.db_pre_request, pgrst.db_schemas
to postgres;
grant pg_monitor, pg_read_all_data, pg_signal_backend to postgres;
