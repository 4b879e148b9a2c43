create schema private;
grant usage on schema private to authenticated;
create table tenants (id uuid primary key default gen_random_uuid(), name text not null);
create table members (tenant_id uuid references tenants, user_id uuid references auth.users, role text not null);

create function private.tenant_id() returns uuid language sql stable
as $$ select ((auth.jwt() -> 'app_metadata') ->> 'tenant_id')::uuid $$;
create policy "Own tenant" on tenants to authenticated using (id = (select private.tenant_id()));
create policy "With a second factor" on members as restrictive to authenticated
  using ((select auth.jwt() ->> 'aal') = 'aal2' or not exists (
    select from auth.mfa_factors where auth.uid() = user_id and status = 'verified'
  ));
alter table tenants enable row level security;
alter table members enable row level security;

create or replace function public.custom_access_token_hook(event jsonb) returns jsonb
language plpgsql stable as $$
declare
  claims jsonb := event -> 'claims';
begin
  return jsonb_set(event, '{claims}', jsonb_set(claims, '{user_role}', to_jsonb(
    (select m.role from public.members m where m.user_id = (event ->> 'user_id')::uuid)
  )));
end;
$$;
grant usage on schema public to supabase_auth_admin;
grant execute on function public.custom_access_token_hook to supabase_auth_admin;
revoke execute on function public.custom_access_token_hook from authenticated, anon, public;
grant all on table public.members to supabase_auth_admin;
create policy "Auth reads roles" on public.members as permissive for select to supabase_auth_admin using (true);
alter role authenticator set pgrst.db_pre_request = 'public.check_request';
create function public.check_request() returns void language sql as $$ select $$;
