-- Settings: the limits, which the service may change.

create or replace function chunk_private.check_setting(name text, value jsonb, present jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  wanted constant text := case jsonb_typeof(present)
    when 'number' then 'a whole number from 0 to 2147483647'
    when 'boolean' then 'true or false'
    else 'an array of at most 20 ports from 1 to 65535'
  end;
begin
  if jsonb_typeof(value) is distinct from jsonb_typeof(present)
    or (case jsonb_typeof(value)
      when 'number' then value::numeric not between 0 and 2147483647 or value::numeric <> trunc(value::numeric)
      when 'array' then jsonb_array_length(value) > 20
        or jsonb_path_exists(value, 'strict $[*] ? (!(@.type() == "number" && @ >= 1 && @ <= 65535 && @ == @.floor()))')
      else false
    end)
  then
    raise exception using errcode = 'SC003', detail = name, message = format('%s must be %s, or null for the default', name, wanted);
  end if;
end
$$;
comment on function chunk_private.check_setting is 'Raises SC003, naming it, for a value that a setting cannot have: of another type than the present one, or out of range.';

create or replace function public.save_chunk_settings(settings jsonb)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
as $$
#variable_conflict use_variable
declare
  present jsonb;
  defaults jsonb;
  allowed text;
  unknown text;
begin
  perform chunk_private.check_isolation('save_chunk_settings');
  if jsonb_typeof(settings) is distinct from 'object' then
    raise exception using errcode = 'SC003', detail = 'settings', message = 'settings must be a JSON object';
  end if;
  -- Of two calls the second begins when the first has ended, or it would undo what that one has saved.
  perform chunk_private.lock_settings();
  select to_jsonb(s) - 'only_row' into present from chunk_private.settings s;
  select min(n.name) into unknown from jsonb_object_keys(settings) n (name) where not present ? n.name;
  if unknown is not null then
    select string_agg(n.name, ', ' order by n.name) into allowed from jsonb_object_keys(present) n (name);
    raise exception using errcode = 'SC003', detail = 'settings',
      message = format('settings has no %s; there are %s', quote_ident(left(unknown, 100)), allowed);
  end if;
  perform chunk_private.check_setting(n.key, n.value, present -> n.key) from jsonb_each(settings) n where n.value <> 'null';
  -- The defaults are those of the table.
  delete from chunk_private.settings;
  insert into chunk_private.settings as s (only_row) values (true) returning to_jsonb(s) into defaults;
  delete from chunk_private.settings;
  insert into chunk_private.settings
  select (jsonb_populate_record(null::chunk_private.settings, defaults || (present - array(
    select n.key from jsonb_each(settings) n where n.value = 'null'
  )) || jsonb_strip_nulls(settings))).*;
  return (select to_jsonb(s) - 'only_row' from chunk_private.settings s);
end
$$;
comment on function public.save_chunk_settings is
  'Changes the settings that are named, null meaning the default, and returns all: the columns of chunk_private.settings, whose comments say what each is. {} only reads.';
