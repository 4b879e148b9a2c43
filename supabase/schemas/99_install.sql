-- What an installation sets going.

-- pg_cron and pg_net come with Supabase, and may be absent elsewhere: Python workers need neither. The CLI swallows
-- notices, so what is missing is shown by chunk_system_health().
do $$
begin
  begin
    create schema if not exists extensions;
    create extension if not exists pg_net with schema extensions;
  exception when others then
    raise notice 'supabase-chunks: pg_net is not available: %', sqlerrm;
  end;
  begin
    create extension if not exists pg_cron with schema pg_catalog;
  exception when others then
    raise notice 'supabase-chunks: pg_cron is not available: %', sqlerrm;
  end;
end
$$;
select chunk_private.schedule_watchdog();
