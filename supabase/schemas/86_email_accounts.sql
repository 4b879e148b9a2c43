-- Saving and removing email accounts, and what the handler sync-emails logs in with.

create or replace function chunk_private.check_email_port(owner_id uuid, port int)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  allowed constant int[] := (select s.user_email_ports from chunk_private.settings s);
begin
  if owner_id is not null and port <> all (allowed) then
    raise exception using errcode = 'SC003', detail = 'port',
      message = format('port of a user''s email account must be one of %s (user_email_ports), not %s', array_to_string(allowed, ', '), port);
  end if;
end
$$;
comment on function chunk_private.check_email_port is
  'Raises SC003 for a port that a user''s account may not name: what else listens there is none of the user''s business.';

create or replace function chunk_private.save_email_account(
  name text, host text, username text, password text, port int, tls text, owner_id uuid
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
  account_id uuid;
begin
  if coalesce(length(name), 0) not between 1 and 100 then
    raise exception using errcode = 'SC003', detail = 'name', message = 'name must be a text of 1 to 100 characters';
  elsif host is null or host !~ '^([A-Za-z0-9._-]{1,253}|[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{0,40})$' then
    raise exception using errcode = 'SC003', detail = 'host', message = 'host must be a host name or an IP address, without a port';
  elsif coalesce(length(username), 0) not between 1 and 320 or username ~ '[\r\n]' then
    raise exception using errcode = 'SC003', detail = 'username', message = 'username must be one line of 1 to 320 characters';
  elsif coalesce(length(password), 0) not between 1 and 4000 or password ~ '[\r\n]' then
    raise exception using errcode = 'SC003', detail = 'password', message = 'password must be one line of 1 to 4000 characters';
  elsif tls is null or tls not in ('implicit', 'starttls', 'none') then
    raise exception using errcode = 'SC003', detail = 'tls', message = 'tls must be implicit, starttls or none';
  elsif port is null then
    raise exception using errcode = 'SC003', detail = 'port', message = 'port must be a number, not null';
  end if;
  perform chunk_private.check_range('port', port, 1, 65535);
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
  insert into public.email_accounts as a (owner_id, name, host, port, tls, username)
  values (owner, name, host, port, tls, username)
  on conflict on constraint email_accounts_one_per_name do update
    set host = excluded.host, port = excluded.port, tls = excluded.tls, username = excluded.username, updated_at = now()
  returning a.id into account_id;
  perform chunk_private.save_secret('email_account_' || account_id, password, 'supabase-chunks: password of an email account');
  return account_id;
end
$$;
comment on function chunk_private.save_email_account is 'The body of save_email_account.';

create or replace function public.save_email_account(
  name text, host text, username text, password text, port int default 993, tls text default 'implicit', owner_id uuid default null
)
returns uuid
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
as $$ select chunk_private.save_email_account($1, $2, $3, $4, $5, $6, $7); $$;
comment on function public.save_email_account is
  'Adds the IMAP account of that name, or changes it, and returns its id. The password goes into the Vault and is never returned. tls: implicit, starttls or none. A user saves accounts of their own only.';

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
  if to_regclass('vault.decrypted_secrets') is not null then
    select s.decrypted_secret into password from vault.decrypted_secrets s where s.name = 'email_account_' || found_account.id;
  end if;
  if password is null then
    raise exception using errcode = 'SC006', message = format('the password of the email account %L is not in the Vault', account),
      hint = 'Save the account again.';
  end if;
  return jsonb_build_object(
    'account_id', found_account.id, 'host', found_account.host, 'port', found_account.port, 'tls', found_account.tls,
    'username', found_account.username, 'password', password,
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
