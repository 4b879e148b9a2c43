-- Tokens of accounts that log in by OAuth: handed out while they last, renewed by one at a time.

create or replace function chunk_private.begin_email_token(of_account uuid, refused text)
returns jsonb
language plpgsql
security definer -- the Vault is the owner's
set search_path = pg_catalog, pg_temp
as $$
declare
  secret jsonb;
  held chunk_private.email_token_leases;
  new_lease constant uuid := gen_random_uuid();
begin
  if (select a.reauth_required from public.email_accounts a where a.id = of_account) then
    return jsonb_build_object('state', 'reauth_required');
  end if;
  insert into chunk_private.email_token_leases as l (account_id)
  select a.id from public.email_accounts a where a.id = of_account and a.auth = 'xoauth2'
  on conflict do nothing;
  select l.account_id, l.lease, l.leased_until into held
  from chunk_private.email_token_leases l where l.account_id = of_account for update;
  if not found then
    return null;
  end if;
  secret := chunk_private.email_secret(of_account)::jsonb;
  -- A minute before its end a token may be too old when it arrives.
  if secret ->> 'access_token' is distinct from refused and (secret ->> 'expires_at')::timestamptz > now() + interval '1 minute' then
    return jsonb_build_object('state', 'token', 'access_token', secret ->> 'access_token');
  elsif held.leased_until > now() then
    return jsonb_build_object('state', 'wait', 'seconds', ceil(extract(epoch from held.leased_until - now())));
  end if;
  update chunk_private.email_token_leases l
  set lease = new_lease, leased_until = now() + interval '60 seconds'
  where l.account_id = of_account;
  return jsonb_build_object('state', 'refresh', 'lease', new_lease) || (secret - '{access_token,expires_at}'::text[]);
end
$$;
comment on function chunk_private.begin_email_token is 'The body of begin_email_token.';

create or replace function public.begin_email_token(account_id uuid, refused text default null)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
as $$ select chunk_private.begin_email_token($1, $2); $$;
comment on function public.begin_email_token is
  'For the handler sync-emails only: {state}, which is token (access_token), refresh (lease, refresh_token and how to use it: the caller renews it within 60 s), wait (seconds: another does), or reauth_required. refused: an access token that the mail server did not take.';

create or replace function chunk_private.save_email_token(
  of_account uuid, held_lease uuid, new_access_token text, seconds int, new_refresh_token text
)
returns boolean
language plpgsql
security definer -- the Vault is the owner's
set search_path = pg_catalog, pg_temp
as $$
declare
  secret jsonb;
begin
  update chunk_private.email_token_leases l
  set lease = null, leased_until = null
  where l.account_id = of_account and l.lease = held_lease;
  if not found then
    return false;
  end if;
  secret := chunk_private.email_secret(of_account)::jsonb || jsonb_build_object(
    'access_token', new_access_token, 'expires_at', now() + make_interval(secs => greatest(coalesce(seconds, 0), 0))
  );
  if new_refresh_token is not null then
    secret := secret || jsonb_build_object('refresh_token', new_refresh_token);
  end if;
  perform chunk_private.save_secret('email_account_' || of_account, secret::text, 'supabase-chunks: secret of an email account');
  return true;
end
$$;
comment on function chunk_private.save_email_token is 'The body of save_email_token.';

create or replace function public.save_email_token(
  account_id uuid, lease uuid, access_token text, expires_in int, refresh_token text default null
)
returns boolean
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
as $$ select chunk_private.save_email_token($1, $2, $3, $4, $5); $$;
comment on function public.save_email_token is
  'For the handler sync-emails only: stores renewed tokens, before they are used; false when the lease is another''s by now. expires_in: seconds.';

create or replace function chunk_private.refuse_email_token(of_account uuid, held_lease uuid)
returns boolean
language plpgsql
security definer -- the handler's key may write neither lease nor account otherwise
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from chunk_private.email_token_leases l where l.account_id = of_account and l.lease = held_lease;
  if not found then
    return false;
  end if;
  update public.email_accounts a set reauth_required = true, updated_at = now() where a.id = of_account;
  return true;
end
$$;
comment on function chunk_private.refuse_email_token is 'The body of refuse_email_token.';

create or replace function public.refuse_email_token(account_id uuid, lease uuid)
returns boolean
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
as $$ select chunk_private.refuse_email_token($1, $2); $$;
comment on function public.refuse_email_token is
  'For the handler sync-emails only: the provider refused the refresh token, so the account is reauth_required until it is saved again; false when the lease is another''s by now.';
