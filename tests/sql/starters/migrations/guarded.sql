-- Row level security for every new table, by an event trigger.
create function enable_rls() returns event_trigger language plpgsql as $$
declare
  made record;
begin
  for made in select * from pg_event_trigger_ddl_commands() where command_tag = 'CREATE TABLE' loop
    execute format('alter table %s enable row level security', made.object_identity);
  end loop;
end;
$$;
create event trigger ensure_rls on ddl_command_end when tag in ('CREATE TABLE') execute function enable_rls();
create table sheltered (id int);
create publication everything for all tables;
