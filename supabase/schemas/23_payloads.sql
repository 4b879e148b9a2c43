-- What a payload, a checkpoint or a state may be: a JSON object that every reader can read, and not too large; and a result: what
-- every reader can read.
--
-- PostgreSQL takes JSON nested some thousand levels deep, and numbers of a hundred thousand digits. Python's parser and others do
-- not: a worker would claim such a chunk, and die.

create or replace function chunk_private.long_number(value jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with recursive node (path, value) as (
    select '', $1
    union all
    select n.path || i.step, i.value from node n
    cross join lateral (
      select '.' || o.key as step, o.value from jsonb_each(case jsonb_typeof(n.value) when 'object' then n.value end) o
      union all
      select format('[%s]', a.place - 1), a.value
      from jsonb_array_elements(case jsonb_typeof(n.value) when 'array' then n.value end) with ordinality a (value, place)
    ) i
  )
  select left(n.path, 200) from node n where jsonb_typeof(n.value) = 'number' and n.value::text ~ '[0-9]{200}[0-9]{101}' limit 1;
$$;
comment on function chunk_private.long_number is 'The path of a number with more than 300 digits before or after the point, or null.';

-- 101 levels take 202 characters, and 301 digits more: short texts are asked nothing.
create or replace function chunk_private.unreadable_part(value jsonb, written text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if octet_length(written) <= 200 then
    return null;
  elsif jsonb_path_exists(value, 'strict $.**{100} ? (@.type() == "object" || @.type() == "array")') then
    return ' is nested deeper than 100 levels';
  elsif written ~ '[0-9]{200}[0-9]{101}' then
    return chunk_private.long_number(value) || ' is a number of more than 300 digits';
  end if;
  return null;
end
$$;
comment on function chunk_private.unreadable_part is
  'What in a JSON value, given as text too, there are programs that cannot read, to be said after its name; null when nothing is.';

create or replace function chunk_private.payload_flaw(payload jsonb, most_bytes int, out code text, out flaw text)
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  written constant text := payload::text;
begin
  code := 'SC003';
  if jsonb_typeof(payload) <> 'object' then
    flaw := ' must be a JSON object, not ' || jsonb_typeof(payload);
  elsif octet_length(written) > most_bytes then
    code := 'SC004';
    flaw := format(' has %s bytes of JSON; it may have %s', octet_length(written), most_bytes);
  else
    flaw := chunk_private.unreadable_part(payload, written);
  end if;
end
$$;
comment on function chunk_private.payload_flaw is
  'What is wrong with a payload, to be read after its name, and the SQLSTATE to say it with; null when nothing is.';

create or replace function chunk_private.check_result(result jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  written constant text := result::text;
  most constant int := (select s.max_payload_bytes from chunk_private.settings s);
  flaw constant text := chunk_private.unreadable_part(result, written);
begin
  if octet_length(written) > most then
    raise exception using errcode = 'SC004', detail = 'result',
      message = format('result has %s bytes of JSON; it may have %s', octet_length(written), most), hint = 'Keep it in a table of your own.';
  elsif flaw is not null then
    raise exception using errcode = 'SC003', detail = 'result', message = 'result' || flaw;
  end if;
end
$$;
comment on function chunk_private.check_result is
  'Raises SC003 or SC004 for a result that is too large, or that not every reader can read. Reports ask for the length of its text first, for speed.';

create or replace function chunk_private.check_object(argument text, value jsonb, most_bytes int)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  found constant record := chunk_private.payload_flaw(value, most_bytes);
begin
  if found.flaw is not null then
    raise exception using errcode = found.code, detail = argument, message = argument || found.flaw;
  end if;
end
$$;
comment on function chunk_private.check_object is
  'Raises SC003 or SC004, naming the argument, unless it is a JSON object of at most so many bytes, as PostgreSQL writes it, that every reader can read; null passes.';

create or replace function chunk_private.check_chunks(argument text, chunks jsonb, most_bytes int)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  bad record;
begin
  if jsonb_typeof(chunks) <> 'array' then
    raise exception using errcode = 'SC003', detail = argument,
      message = format('%s must be an array of JSON objects, not %s', argument, jsonb_typeof(chunks));
  end if;
  if jsonb_array_length(chunks) > 100000 then
    raise exception using errcode = 'SC004', detail = argument,
      message = format('%s has %s chunks; one call may carry 100000', argument, jsonb_array_length(chunks)),
      hint = 'Start the job with sealed => false and append the others with append_sync_chunks().';
  end if;
  -- One look over all; only where something may be wrong, chunk by chunk.
  if jsonb_path_exists(chunks, 'strict $.**{101} ? (@.type() == "object" || @.type() == "array")') or exists (
    select from jsonb_array_elements(chunks) c (payload)
    cross join lateral (select c.payload::text as written offset 0) w
    where jsonb_typeof(c.payload) <> 'object' or octet_length(w.written) > most_bytes
      or octet_length(w.written) > 300 and w.written ~ '[0-9]{200}[0-9]{101}'
  ) then
    select c.place - 1 as index, f.code, f.flaw into bad
    from jsonb_array_elements(chunks) with ordinality c (payload, place)
    cross join lateral chunk_private.payload_flaw(c.payload, most_bytes) f
    where f.flaw is not null
    order by c.place limit 1;
    if found then
      raise exception using errcode = bad.code, detail = argument, message = format('%s[%s]%s', argument, bad.index, bad.flaw);
    end if;
  end if;
end
$$;
comment on function chunk_private.check_chunks is
  'Raises SC003 or SC004, naming the argument and the index, unless it is an array of at most 100,000 objects of at most so many bytes each that every reader can read.';
