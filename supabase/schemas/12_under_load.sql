-- What migrations may do while sessions are at work: replacing a view, and row level security, lock the relation against all who
-- use it, and two such locks in one transaction deadlock with them. So they are done only where something is different.

create or replace function chunk_private.replace_view(view text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  wanted constant text := pg_get_viewdef(to_regclass('chunk_private.wanted_view'));
begin
  if not exists (
    select from pg_class c
    where c.oid = to_regclass(view) and c.reloptions = '{security_invoker=true}' and pg_get_viewdef(c.oid) = wanted
  ) then
    execute format('create or replace view %s with (security_invoker = true) as %s', view, wanted);
  end if;
  execute 'drop view chunk_private.wanted_view'; -- so, since a check of all functions does not find it
end
$$;
comment on function chunk_private.replace_view is
  'For migrations: gives a view the definition of chunk_private.wanted_view, which was made for that, unless it has it.';

-- The condition is compared as PostgreSQL prints it, without regard to case, spaces and brackets: names are whole (`as uid`).
create or replace function chunk_private.set_reading_policy(relation regclass, policy text, condition text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if not (select c.relrowsecurity from pg_class c where c.oid = relation) then
    execute format('alter table %s enable row level security', relation);
  end if;
  if not exists (
    select from pg_policy p
    where p.polrelid = relation and p.polname = policy and p.polcmd = 'r' and p.polpermissive and p.polwithcheck is null
      and p.polroles = array['authenticated'::regrole::oid]
      and regexp_replace(lower(pg_get_expr(p.polqual, p.polrelid)), '[\s()]', '', 'g') = regexp_replace(lower(condition), '[\s()]', '', 'g')
  ) then
    execute format('drop policy if exists %I on %s', policy, relation);
    execute format('create policy %I on %s for select to authenticated using (%s)', policy, relation, condition);
  end if;
end
$$;
comment on function chunk_private.set_reading_policy is
  'For migrations: switches a table''s row level security on, and lets signed-in users read the rows for which the condition holds.';
