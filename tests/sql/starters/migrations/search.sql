create extension citext with schema extensions;
create extension if not exists pg_trgm with schema extensions;
create extension if not exists unaccent with schema extensions;
create table people (email citext unique, name text);
create index people_name on people using gin (name gin_trgm_ops);
create function find_people(wanted text) returns setof people language sql stable as $$
  select * from people where unaccent(name) % unaccent(wanted)
$$;
