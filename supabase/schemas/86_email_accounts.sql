-- Saving and removing email accounts, and what the handler sync-emails logs in with.

create or replace function chunk_private.save_email_account(
  name text, host text, username text, password text, port int, tls text, owner_id uuid, auth text, oauth jsonb
)
returns uuid
language plpgsql
security definer -- users may save their accounts, and write neither the table nor the Vault
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  owner constant uuid := chunk_private.owner_meant(owner_id);
  by_service constant boolean := chunk_private.is_service();
  limits constant chunk_private.settings := (select s from chunk_private.settings s);
  secret text := password;
  account_id uuid;
begin
  perform chunk_private.check_email_account(name, host, username, port, tls, auth, password, oauth);
  if oauth is not null then
    secret := chunk_private.email_oauth_secret(oauth)::text;
  end if;
  perform chunk_private.check_email_port(owner, port);
  if not by_service then
    perform chunk_private.lock_user(owner);
    if not exists (select from public.email_accounts a where a.owner_id = owner and a.name = name)
      and limits.user_max_email_accounts <= (select count(*) from public.email_accounts a where a.owner_id = owner) then
      raise exception using errcode = 'SC004', detail = 'user_max_email_accounts',
        message = format('a user may have %s email accounts (user_max_email_accounts)', limits.user_max_email_accounts),
        hint = 'remove_email_account() removes one.';
    end if;
  end if;
  if to_regproc('vault.create_secret') is null then
    raise exception using errcode = 'SC006', message = 'the extension supabase_vault is not installed',
      hint = 'create extension supabase_vault cascade;';
  end if;
  -- A stored secret is not sent to where its owner did not mean it to go.
  if secret is null and not exists (
    select from public.email_accounts a
    where a.name = name and a.owner_id is not distinct from owner and a.auth = auth
      and (a.host, a.port, a.tls, a.username) = (host, port, tls, username)
  ) then
    raise exception using errcode = 'SC003', detail = case auth when 'password' then 'password' else 'oauth' end,
      message = format('%s must be given for a new account, and with another host, port, tls or username',
        case auth when 'password' then 'password' else 'oauth' end);
  end if;
  insert into public.email_accounts as a (owner_id, name, host, port, tls, username, auth)
  values (owner, name, host, port, tls, username, auth)
  on conflict on constraint email_accounts_one_per_name do update
    set host = excluded.host, port = excluded.port, tls = excluded.tls, username = excluded.username, auth = excluded.auth,
        reauth_required = a.reauth_required and secret is null, updated_at = now()
  returning a.id into account_id;
  if secret is not null then
    -- Who renews the tokens before must not write over the new ones.
    delete from chunk_private.email_token_leases l where l.account_id = account_id;
    perform chunk_private.save_secret('email_account_' || account_id, secret, 'supabase-chunks: secret of an email account');
  end if;
  return account_id;
end
$$;
comment on function chunk_private.save_email_account is 'The body of save_email_account.';

create or replace function public.save_email_account(
  name text, host text, username text, password text default null, port int default 993, tls text default 'implicit',
  owner_id uuid default null, auth text default 'password', oauth jsonb default null
)
returns uuid
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
as $$ select chunk_private.save_email_account($1, $2, $3, $4, $5, $6, $7, $8, $9); $$;
comment on function public.save_email_account is
  'Adds the IMAP account of that name, or changes it, and returns its id. The password, or with auth xoauth2 the tokens (oauth: {provider: google, microsoft or custom, client_id, refresh_token, token_url, scope}), go into the Vault and are never returned; without them those that are there stay. tls: implicit, starttls or none. A user saves accounts of their own only.';

create or replace function chunk_private.remove_email_account(name text, owner_id uuid)
returns boolean
language plpgsql
security definer -- users may remove their accounts, and write neither the table nor the Vault
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  owner constant uuid := chunk_private.owner_meant(owner_id);
begin
  delete from public.email_accounts a where a.name = name and a.owner_id is not distinct from owner;
  return found;
end
$$;
comment on function chunk_private.remove_email_account is 'The body of remove_email_account.';

create or replace function public.remove_email_account(name text, owner_id uuid default null)
returns boolean
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set statement_timeout = '60s' -- a mailbox's rows go too
as $$ select chunk_private.remove_email_account($1, $2); $$;
comment on function public.remove_email_account is
  'Removes an account with its synced messages and its password; false when there is none of that name.';

-- Whoever deletes the row, the password goes with it.
create or replace function chunk_private.forget_email_password()
returns trigger
language plpgsql
security definer -- the Vault is the owner's
set search_path = pg_catalog, pg_temp
as $$
begin
  if to_regclass('vault.secrets') is not null then
    delete from vault.secrets s where s.name = 'email_account_' || old.id;
  end if;
  return null;
end
$$;
comment on function chunk_private.forget_email_password is 'Trigger of email_accounts: removes the account''s Vault entry.';

do $$
begin
  -- Asked first: making a trigger again would wait for all who write accounts.
  if not exists (
    select from pg_trigger t where t.tgname = 'email_accounts_forget_password' and t.tgrelid = 'public.email_accounts'::regclass
  ) then
    create trigger email_accounts_forget_password
      after delete on public.email_accounts
      for each row execute function chunk_private.forget_email_password();
  end if;
end
$$;

create or replace function chunk_private.email_secret(of_account uuid)
returns text
language plpgsql
stable
security definer -- the Vault is the owner's
set search_path = pg_catalog, pg_temp
as $$
declare
  secret text;
begin
  if to_regclass('vault.decrypted_secrets') is not null then
    select s.decrypted_secret into secret from vault.decrypted_secrets s where s.name = 'email_account_' || of_account;
  end if;
  if secret is null then
    raise exception using errcode = 'SC006', message = 'the secret of the email account is not in the Vault', hint = 'Save the account again.';
  end if;
  return secret;
end
$$;
comment on function chunk_private.email_secret is 'What the Vault has of an account. For use in functions of the handler.';

create or replace function chunk_private.get_email_account_secret(account text, owner_id uuid)
returns jsonb
language plpgsql
stable
security definer -- the Vault is the owner's
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  found_account public.email_accounts;
  password text;
begin
  select a.* into found_account from public.email_accounts a
  where a.name = account and a.owner_id is not distinct from owner_id;
  if not found then
    return null;
  end if;
  perform chunk_private.check_email_port(owner_id, found_account.port); -- it may have been saved when more were allowed, or by the service
  if found_account.auth = 'password' then
    password := chunk_private.email_secret(found_account.id);
  end if;
  return jsonb_build_object(
    'account_id', found_account.id, 'host', found_account.host, 'port', found_account.port, 'tls', found_account.tls,
    'username', found_account.username, 'auth', found_account.auth, 'password', password,
    'public_only', owner_id is not null and not (select s.user_email_private_hosts from chunk_private.settings s)
  );
end
$$;
comment on function chunk_private.get_email_account_secret is 'The body of get_email_account_secret.';

create or replace function public.get_email_account_secret(account text, owner_id uuid default null)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$ select chunk_private.get_email_account_secret($1, $2); $$;
comment on function public.get_email_account_secret is
  'For the handler sync-emails only: how to log in to that owner''s account of that name, or null when there is none. public_only: a host on a private network is refused.';
