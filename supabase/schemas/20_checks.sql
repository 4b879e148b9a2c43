-- Checks of arguments. Each raises SC003 or SC004, with a message that names the argument and what is allowed.

create or replace function chunk_private.check_range(argument text, value bigint, lowest bigint, highest bigint)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if value not between lowest and highest then
    raise exception using errcode = 'SC003', detail = argument,
      message = format('%s must be between %s and %s, not %s', argument, lowest, highest, value);
  end if;
end
$$;
comment on function chunk_private.check_range is 'Raises SC003, naming the argument, when the value lies outside; null passes.';

create or replace function chunk_private.most_items()
returns bigint
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$ select 9007199254740991; $$;
comment on function chunk_private.most_items is
  'The largest number of items: 2^53 - 1, which every JSON reader keeps exact. Sums of items stop there, and at zero, where what was beyond is taken back. A plan holds it as a constant, so it costs no call.';

create or replace function chunk_private.check_items(argument text, value bigint)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform chunk_private.check_range(argument, value, 0, chunk_private.most_items());
end
$$;
comment on function chunk_private.check_items is
  'Raises SC003, naming the argument, for a number of items that is negative or above most_items(); null passes.';

create or replace function chunk_private.check_length(argument text, list jsonb, longest int)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_array_length(list) > longest then
    raise exception using errcode = 'SC004', detail = argument,
      message = format('%s has %s items; one call may carry %s', argument, jsonb_array_length(list), longest);
  end if;
end
$$;
comment on function chunk_private.check_length is 'Raises SC004, naming the argument, when a JSON array is longer.';

create or replace function chunk_private.check_report(
  success boolean, retry_after_seconds int, next_chunks jsonb, items_processed bigint, items_total bigint, next_state jsonb,
  throttled_seconds int
)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if success is null then
    raise exception using errcode = 'SC003', detail = 'success', message = 'success must be true or false, not null';
  end if;
  perform chunk_private.check_range('retry_after_seconds', retry_after_seconds, 0, 604800);
  perform chunk_private.check_range('throttled_seconds', throttled_seconds, 0, 604800);
  if success and throttled_seconds is not null then
    raise exception using errcode = 'SC003', detail = 'throttled_seconds', message = 'throttled_seconds goes with success false only';
  end if;
  perform chunk_private.check_items('items_processed', items_processed);
  perform chunk_private.check_items('items_total', items_total);
  if next_state is not null then
    perform chunk_private.check_object('next_state', next_state, 65536);
    if not success then
      raise exception using errcode = 'SC003', detail = 'next_state', message = 'next_state goes with success only';
    end if;
  end if;
  if next_chunks is not null then
    perform chunk_private.check_chunks('next_chunks', next_chunks, (select s.max_payload_bytes from chunk_private.settings s));
    if not success and jsonb_array_length(next_chunks) > 0 then
      raise exception using errcode = 'SC003', detail = 'next_chunks', message = 'next_chunks goes with success only';
    end if;
    return next_chunks <> '[]';
  end if;
  return false;
end
$$;
comment on function chunk_private.check_report is
  'Raises SC003 or SC004, naming the argument, for a report that makes no sense; says whether it appends chunks.';

create or replace function chunk_private.check_kinds(kinds text[])
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  unknown text;
begin
  if (select count(*) from public.sync_kinds k where k.kind = any (kinds)) <> cardinality(kinds) then
    select w.kind into unknown from unnest(kinds) w (kind)
    where not exists (select from public.sync_kinds k where k.kind = w.kind) limit 1;
    if found then
      raise exception using errcode = 'SC002', detail = 'kinds', message = format('no sync kind is named %L', unknown),
        hint = 'save_sync_kind() adds one.';
    end if;
  end if;
end
$$;
comment on function chunk_private.check_kinds is 'Raises SC002, naming it, when one of the kinds does not exist; null passes.';
