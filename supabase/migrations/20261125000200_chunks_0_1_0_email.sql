-- supabase-chunks 0.1.0: the email sync. Built from supabase/schemas by `make migrations`: change it there.

-- An upgrade under load waits this long for a lock. Then nothing has changed: run it again.
set local lock_timeout = '5s';

-- 85_email_tables.sql

-- Email: the accounts whose mailboxes are synced, and the messages.
--
-- A password, or the tokens of an OAuth provider, are in the Vault only, under the name email_account_<id>. They go in with
-- save_email_account() and come out with get_email_account_secret() and begin_email_token(), which are for the handler's
-- key alone.

create table if not exists public.email_accounts (
  id uuid primary key default gen_random_uuid(),
  owner_id uuid,
  name text not null,
  host text not null,
  port int not null default 993,
  tls text not null default 'implicit',
  username text not null,
  auth text not null default 'password',
  reauth_required boolean not null default false,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint email_accounts_one_per_name unique nulls not distinct (owner_id, name),
  constraint email_accounts_name_length check (length(name) between 1 and 100),
  constraint email_accounts_host_is_a_host check (host ~ '^([A-Za-z0-9._-]{1,253}|[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{0,40})$'),
  constraint email_accounts_port_range check (port between 1 and 65535),
  constraint email_accounts_tls_known check (tls in ('implicit', 'starttls', 'none')),
  constraint email_accounts_auth_known check (auth in ('password', 'xoauth2')),
  constraint email_accounts_username_length check (length(username) between 1 and 320)
);
comment on table public.email_accounts is 'IMAP accounts that can be synced. Written by save_email_account() and remove_email_account(); passwords are in the Vault.';
comment on column public.email_accounts.owner_id is 'The user whose account it is (auth.users.id); null: the service''s own. Only jobs of the same owner can use it.';
comment on column public.email_accounts.name is 'What a job''s payload calls it: {"account": "work"}.';
comment on column public.email_accounts.tls is 'implicit: TLS from the first byte (993). starttls: upgraded before the login, or refused (143). none: in the clear.';

comment on column public.email_accounts.auth is 'How the login goes: by a password, or xoauth2, by tokens of an OAuth provider.';
comment on column public.email_accounts.reauth_required is 'The provider refused to renew the tokens: somebody has to give access again, and save the account.';

-- Who renews an account's tokens; the tokens are in the Vault.
create table if not exists chunk_private.email_token_leases (
  account_id uuid primary key,
  lease uuid,
  leased_until timestamptz,
  constraint email_token_leases_account_fkey foreign key (account_id) references public.email_accounts (id) on delete cascade
);
comment on table chunk_private.email_token_leases is 'Who renews the tokens of an account: one at a time, since a provider may take a refresh token only once.';
comment on column chunk_private.email_token_leases.lease is 'Proves who may save the tokens; null: nobody renews them.';
comment on column chunk_private.email_token_leases.leased_until is 'After this another may try.';

create table if not exists public.synced_emails (
  id bigint generated always as identity primary key,
  account_id uuid not null,
  folder text not null,
  uidvalidity bigint not null,
  uid bigint not null,
  message_id text,
  in_reply_to text,
  subject text,
  from_addresses jsonb not null default '[]',
  to_addresses jsonb not null default '[]',
  cc_addresses jsonb not null default '[]',
  bcc_addresses jsonb not null default '[]',
  reply_to_addresses jsonb not null default '[]',
  sent_at timestamptz,
  received_at timestamptz,
  size bigint,
  flags text[] not null default '{}',
  email_id text,
  thread_id text,
  labels text[],
  preview text,
  body_text text,
  body_html text,
  parse_error text,
  deleted_at timestamptz,
  job_id uuid,
  stored_at timestamptz not null default now(),
  synced_at timestamptz not null default now(),
  constraint synced_emails_account_fkey foreign key (account_id) references public.email_accounts (id) on delete cascade,
  -- Also the index of the foreign key, and of "which UIDs of this folder are here".
  constraint synced_emails_one_per_uid unique (account_id, folder, uidvalidity, uid),
  constraint synced_emails_uid_range check (uid between 1 and 4294967295 and uidvalidity >= 0),
  constraint synced_emails_addresses_are_arrays check (
    jsonb_typeof(from_addresses) = 'array' and jsonb_typeof(to_addresses) = 'array' and jsonb_typeof(cc_addresses) = 'array'
    and jsonb_typeof(bcc_addresses) = 'array' and jsonb_typeof(reply_to_addresses) = 'array'
  )
);
comment on table public.synced_emails is 'Messages that were synced, one row a message and folder. Written by the handler sync-emails.';
comment on column public.synced_emails.uidvalidity is 'The server''s generation of UIDs in this folder. When it changes, the rows of the old one are marked deleted.';
comment on column public.synced_emails.from_addresses is 'Array of {name, address}, decoded; so are the other addresses.';
comment on column public.synced_emails.sent_at is 'The header Date; null when it is missing or no date.';
comment on column public.synced_emails.received_at is 'When the server got the message (INTERNALDATE).';
comment on column public.synced_emails.size is 'Size on the server in bytes.';
comment on column public.synced_emails.flags is 'IMAP flags, such as \Seen, as of the last sync that looked: every one where the server has CONDSTORE, else a full one.';
comment on column public.synced_emails.email_id is 'The server''s own id of the message, the same in every folder (EMAILID, or Gmail''s X-GM-MSGID); null where it has none.';
comment on column public.synced_emails.thread_id is 'The server''s id of the conversation (THREADID, or Gmail''s X-GM-THRID); null where it has none.';
comment on column public.synced_emails.labels is 'Gmail''s labels as of the message''s sync; null elsewhere.';
comment on column public.synced_emails.preview is 'The text''s beginning, in one line.';
comment on column public.synced_emails.body_text is 'Only when the job''s payload asked for it: {"body": true}.';
comment on column public.synced_emails.parse_error is 'What could not be read of the message; the rest is stored.';
comment on column public.synced_emails.deleted_at is 'When a sync found that the message, or its folder, is gone. A message that turns up in another folder is moved there.';
comment on column public.synced_emails.stored_at is 'When the message was first stored.';
comment on column public.synced_emails.job_id is 'The sync job that stored the message; it may have been purged since.';

create table if not exists public.email_folders (
  account_id uuid not null,
  folder text not null,
  special_use text,
  uidvalidity bigint,
  highestmodseq text,
  messages int,
  synced_at timestamptz,
  gone_at timestamptz,
  constraint email_folders_pkey primary key (account_id, folder),
  constraint email_folders_account_fkey foreign key (account_id) references public.email_accounts (id) on delete cascade,
  constraint email_folders_highestmodseq_is_a_number check (highestmodseq ~ '^[0-9]{1,19}$')
);
comment on table public.email_folders is 'Folders of the accounts, and how far they are synced. Written by the handler sync-emails.';
comment on column public.email_folders.folder is 'The name on the server, as synced_emails.folder.';
comment on column public.email_folders.special_use is 'What the folder is for, such as \Sent or \Junk; null: nothing special, or not listed yet.';
comment on column public.email_folders.uidvalidity is 'The server''s generation of UIDs at the last sync.';
comment on column public.email_folders.highestmodseq is 'The server''s mark of the last change that is in the table (CONDSTORE); text, since it has up to 63 bits. Null: unknown.';
comment on column public.email_folders.messages is 'How many messages the folder had at the last sync.';
comment on column public.email_folders.synced_at is 'When the folder was last compared with the table.';
comment on column public.email_folders.gone_at is 'When a listing of all folders found that it is no longer there.';

-- Indexes

-- Asked first: `create index if not exists` waits for all who write the table before it looks.
do $$
begin
  -- Of all, not only of those that are not gone: read as a whole it would seem cheap while the table is small.
  if to_regclass('public.synced_emails_newest') is null then
    create index synced_emails_newest on public.synced_emails (account_id, sent_at desc nulls last);
  end if;
  -- For messages that have moved. Of an id its hash: who writes it may make it longer than an index takes.
  if to_regclass('public.synced_emails_message') is null then
    create index synced_emails_message on public.synced_emails (account_id, hashtextextended(message_id, 0)) where message_id is not null;
  end if;
  if to_regclass('public.synced_emails_gone') is null then
    create index synced_emails_gone on public.synced_emails (account_id, deleted_at) where deleted_at is not null;
  end if;
end
$$;

-- 86_email_account_checks.sql

-- Checks of what save_email_account gets.

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

create or replace function chunk_private.check_email_account(
  name text, host text, username text, port int, tls text, auth text, password text, oauth jsonb
)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(length(name), 0) not between 1 and 100 then
    raise exception using errcode = 'SC003', detail = 'name', message = 'name must be a text of 1 to 100 characters';
  elsif host is null or host !~ '^([A-Za-z0-9._-]{1,253}|[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{0,40})$' then
    raise exception using errcode = 'SC003', detail = 'host', message = 'host must be a host name or an IP address, without a port';
  elsif coalesce(length(username), 0) not between 1 and 320 or username ~ '[\x01-\x1f\x7f]' then
    raise exception using errcode = 'SC003', detail = 'username', message = 'username must be one line of 1 to 320 characters';
  elsif tls is null or tls not in ('implicit', 'starttls', 'none') then
    raise exception using errcode = 'SC003', detail = 'tls', message = 'tls must be implicit, starttls or none';
  elsif port is null then
    raise exception using errcode = 'SC003', detail = 'port', message = 'port must be a number, not null';
  elsif auth is null or auth not in ('password', 'xoauth2') then
    raise exception using errcode = 'SC003', detail = 'auth', message = 'auth must be password or xoauth2';
  elsif auth = 'password' and oauth is not null then
    raise exception using errcode = 'SC003', detail = 'oauth', message = 'oauth goes with auth xoauth2 only';
  elsif auth = 'xoauth2' and password is not null then
    raise exception using errcode = 'SC003', detail = 'password', message = 'password goes with auth password only';
  elsif length(password) not between 1 and 4000 or password ~ '[\r\n]' then
    raise exception using errcode = 'SC003', detail = 'password', message = 'password must be one line of 1 to 4000 characters';
  end if;
  perform chunk_private.check_range('port', port, 1, 65535);
end
$$;
comment on function chunk_private.check_email_account is 'Raises SC003, naming the argument of save_email_account that makes no sense.';

create or replace function chunk_private.email_oauth_secret(oauth jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  provider constant text := oauth ->> 'provider';
  unknown text;
begin
  if jsonb_typeof(oauth) is distinct from 'object' or provider is null or provider not in ('google', 'microsoft', 'custom') then
    raise exception using errcode = 'SC003', detail = 'oauth',
      message = 'oauth must be {provider, client_id, refresh_token} with provider google, microsoft or custom';
  end if;
  select k.key into unknown from jsonb_object_keys(oauth) k(key)
  where k.key not in ('provider', 'client_id', 'refresh_token', 'token_url', 'scope')
  limit 1;
  if unknown is not null then
    raise exception using errcode = 'SC003', detail = 'oauth', message = format('oauth has no field %s', left(unknown, 100));
  elsif coalesce(oauth ->> 'client_id', '') !~ '^[\x21-\x7e]+$' or length(oauth ->> 'client_id') > 500 then
    raise exception using errcode = 'SC003', detail = 'oauth', message = 'oauth.client_id must be a text of 1 to 500 characters';
  elsif coalesce(oauth ->> 'refresh_token', '') !~ '^[\x21-\x7e]+$' or length(oauth ->> 'refresh_token') > 4000 then
    raise exception using errcode = 'SC003', detail = 'oauth', message = 'oauth.refresh_token must be a text of 1 to 4000 characters';
  elsif oauth ->> 'scope' !~ '^[\x20-\x7e]+$' or length(oauth ->> 'scope') > 1000 then
    raise exception using errcode = 'SC003', detail = 'oauth', message = 'oauth.scope must be a text of 1 to 1000 characters';
  end if;
  -- Where refresh tokens and client secrets are sent to is not for users to say.
  if provider = 'custom' then
    if not chunk_private.is_service() then
      raise exception using errcode = 'SC003', detail = 'oauth', message = 'the provider custom is for the service only';
    elsif coalesce(oauth ->> 'token_url', '') !~ '^(https://|http://(127\.0\.0\.1|localhost)[:/])[\x21-\x7e]+$' then
      raise exception using errcode = 'SC003', detail = 'oauth', message = 'oauth.token_url must be an https URL for the provider custom';
    end if;
  elsif oauth ? 'token_url' then
    raise exception using errcode = 'SC003', detail = 'oauth', message = 'oauth.token_url is for the provider custom only';
  end if;
  return oauth;
end
$$;
comment on function chunk_private.email_oauth_secret is 'Checks what save_email_account gets as oauth, and returns what the Vault keeps.';

-- 86_email_accounts.sql

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

-- 87_synced_emails.sql

-- The messages that the handler sync-emails stores.

create or replace function public.plan_email_folder(
  account_id uuid, folder text, uidvalidity bigint, present jsonb, mark_deleted boolean default false,
  present_count int default null, highestmodseq text default null
)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set statement_timeout = '60s' -- a folder of a million messages
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  missing jsonb;
  listed bigint;
  gone bigint := 0;
  superseded bigint := 0;
begin
  if jsonb_typeof(present) is distinct from 'array' then
    raise exception using errcode = 'SC003', detail = 'present', message = 'present must be an array of [first, last]';
  end if;
  select coalesce(sum((r.range ->> 1)::bigint - (r.range ->> 0)::bigint + 1), 0) into listed
  from jsonb_array_elements(present) r(range);
  if listed > 10000000 then
    raise exception using errcode = 'SC004', detail = 'present', message = 'a folder of more than 10,000,000 messages is too large';
  end if;
  -- A server that lists a part of its messages must not cost the rows of the others.
  if listed <> present_count or (mark_deleted and present_count is null) then
    raise exception using errcode = 'SC003', detail = 'present_count',
      message = format('present_count must be how many messages present lists (%s); it is %s', listed,
        coalesce(present_count::text, 'null'));
  end if;

  -- Neighbours in the folder keep the difference between their place there and their place among the missing.
  with in_folder as (
    select u.uid, row_number() over (order by u.uid) as place
    from jsonb_array_elements(present) r(range)
    cross join lateral generate_series((r.range ->> 0)::bigint, (r.range ->> 1)::bigint) u(uid)
  ), absent as (
    select f.uid, f.place - row_number() over (order by f.uid) as island
    from in_folder f
    where not exists (
      select from public.synced_emails e
      where e.account_id = account_id and e.folder = folder and e.uidvalidity = uidvalidity and e.uid = f.uid and e.deleted_at is null
    )
  ), islands as (
    select min(a.uid) as first, max(a.uid) as last, count(*) as messages from absent a group by a.island
  )
  select coalesce(jsonb_agg(jsonb_build_array(i.first, i.last, i.messages) order by i.first), '[]') into missing from islands i;

  if mark_deleted or exists (
    select from public.synced_emails e
    where e.account_id = account_id and e.folder = folder and e.uidvalidity <> uidvalidity and e.deleted_at is null
  ) then
    perform chunk_private.mark_emails_alone(account_id);
    update public.synced_emails e
    set deleted_at = now()
    where e.account_id = account_id and e.folder = folder and e.uidvalidity <> uidvalidity and e.deleted_at is null;
    get diagnostics superseded = row_count;
    superseded := superseded - chunk_private.reunite_gone_emails(account_id, folder);
    if mark_deleted then
      update public.synced_emails e
      set deleted_at = now()
      where e.account_id = account_id and e.folder = folder and e.uidvalidity = uidvalidity and e.deleted_at is null
        and not exists (
          select from jsonb_array_elements(present) r(range)
          cross join lateral generate_series((r.range ->> 0)::bigint, (r.range ->> 1)::bigint) u(uid)
          where u.uid = e.uid
        );
      get diagnostics gone = row_count;
      gone := gone - chunk_private.reunite_gone_emails(account_id, folder);
    end if;
  end if;
  perform chunk_private.note_email_folder(account_id, folder, uidvalidity, highestmodseq, listed::int);
  return jsonb_build_object(
    'missing', missing, 'deleted', gone, 'superseded', superseded, 'moved', chunk_private.has_gone_emails(account_id)
  );
end
$$;
comment on function public.plan_email_folder is
  'Compares a folder''s UIDs on the server (present: an array of [first, last]) with the table. missing: ranges [first, last, messages] of neighbours that are not stored, be they new or left out by an earlier failure. Marks the rows of an earlier UIDVALIDITY deleted, and with mark_deleted those that have left the folder; present_count, how many messages the server says there are, must then agree with the list. highestmodseq is noted as the mark up to which the table knows the folder. moved: whether messages may have moved here from where they are gone.';

create or replace function public.save_synced_emails(
  account_id uuid, folder text, uidvalidity bigint, emails jsonb, job_id uuid default null
)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  changed int;
  new_ids bigint[];
begin
  -- Whoever marks messages as gone meanwhile would not see these, nor these what is marked.
  perform chunk_private.store_emails_together(account_id);
  with stored as (
    insert into public.synced_emails as e (
      account_id, folder, uidvalidity, uid, message_id, in_reply_to, subject, from_addresses, to_addresses, cc_addresses,
      bcc_addresses, reply_to_addresses, sent_at, received_at, size, flags, email_id, thread_id, labels, preview, body_text,
      body_html, parse_error, job_id
    )
    select distinct on (m.uid)
      account_id, folder, uidvalidity, m.uid, m.message_id, m.in_reply_to, m.subject, coalesce(m.from_addresses, '[]'),
      coalesce(m.to_addresses, '[]'), coalesce(m.cc_addresses, '[]'), coalesce(m.bcc_addresses, '[]'),
      coalesce(m.reply_to_addresses, '[]'), m.sent_at, m.received_at, m.size, coalesce(m.flags, '{}'), m.email_id, m.thread_id, m.labels,
      m.preview, m.body_text, m.body_html, m.parse_error, job_id
    from jsonb_to_recordset(emails) as m(
      uid bigint, message_id text, in_reply_to text, subject text, from_addresses jsonb, to_addresses jsonb, cc_addresses jsonb,
      bcc_addresses jsonb, reply_to_addresses jsonb, sent_at timestamptz, received_at timestamptz, size bigint, flags text[],
      email_id text, thread_id text, labels text[], preview text, body_text text, body_html text, parse_error text
    )
    order by m.uid -- in one order, so that two workers with the same range wait and do not deadlock
    on conflict on constraint synced_emails_one_per_uid do update
    set message_id = excluded.message_id, in_reply_to = excluded.in_reply_to, subject = excluded.subject,
        from_addresses = excluded.from_addresses, to_addresses = excluded.to_addresses, cc_addresses = excluded.cc_addresses,
        bcc_addresses = excluded.bcc_addresses, reply_to_addresses = excluded.reply_to_addresses, sent_at = excluded.sent_at,
        received_at = excluded.received_at, size = excluded.size, flags = excluded.flags,
        email_id = excluded.email_id, thread_id = excluded.thread_id, labels = excluded.labels, preview = excluded.preview,
        body_text = coalesce(excluded.body_text, e.body_text), body_html = coalesce(excluded.body_html, e.body_html),
        parse_error = excluded.parse_error, deleted_at = null, job_id = excluded.job_id, synced_at = now()
    -- A chunk that runs again writes nothing.
    where (
        e.message_id, e.in_reply_to, e.subject, e.from_addresses, e.to_addresses, e.cc_addresses, e.bcc_addresses,
        e.reply_to_addresses, e.sent_at, e.received_at, e.size, e.flags, e.email_id, e.thread_id, e.labels, e.preview, e.body_text, e.body_html, e.parse_error,
        e.deleted_at
      ) is distinct from (
        excluded.message_id, excluded.in_reply_to, excluded.subject, excluded.from_addresses, excluded.to_addresses,
        excluded.cc_addresses, excluded.bcc_addresses, excluded.reply_to_addresses, excluded.sent_at, excluded.received_at,
        excluded.size, excluded.flags, excluded.email_id, excluded.thread_id, excluded.labels, excluded.preview, coalesce(excluded.body_text, e.body_text),
        coalesce(excluded.body_html, e.body_html), excluded.parse_error, null::timestamptz
      )
      -- What a server refuses to show today is no reason to forget what it showed before.
      and not (
        e.parse_error is null and excluded.parse_error is not null and excluded.message_id is null and excluded.subject is null
        and excluded.sent_at is null and excluded.from_addresses = '[]' and excluded.preview is null
      )
    returning e.id, e.xmax::text = '0' as is_new
  )
  select count(*), array_agg(s.id) filter (where s.is_new) into changed, new_ids from stored s;
  if new_ids is not null and chunk_private.has_gone_emails(account_id) then
    perform chunk_private.reunite_new_emails(account_id, new_ids);
  end if;
  return changed;
end
$$;
comment on function public.save_synced_emails is
  'Stores messages of one folder (an array of objects named like the columns); returns how many rows were added or changed. Storing the same again changes nothing.';

create or replace function public.save_email_flags(account_id uuid, folder text, uidvalidity bigint, emails jsonb)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  changed int;
begin
  update public.synced_emails e
  set flags = coalesce(m.flags, '{}'), synced_at = now()
  from jsonb_to_recordset(emails) as m(uid bigint, flags text[])
  where e.account_id = account_id and e.folder = folder and e.uidvalidity = uidvalidity and e.uid = m.uid
    and e.uid = any (array(select o.uid from jsonb_to_recordset(emails) as o(uid bigint))) -- so written, no others are read
    and e.flags is distinct from coalesce(m.flags, '{}');
  get diagnostics changed = row_count;
  return changed;
end
$$;
comment on function public.save_email_flags is 'Notes the present flags of messages ({uid, flags}) that are stored; returns how many differed.';

-- 88_email_folders.sql

-- The folders of an account: which there are, and how far they are synced.

create or replace function chunk_private.note_email_folder(
  of_account uuid, of_folder text, generation bigint, mark text, count_now int
)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into public.email_folders as f (account_id, folder, uidvalidity, highestmodseq, messages, synced_at)
  select a.id, of_folder, generation, mark, count_now, now()
  from public.email_accounts a
  where a.id = of_account -- which may have been removed while its mail was synced
  on conflict on constraint email_folders_pkey do update
  set uidvalidity = excluded.uidvalidity, highestmodseq = excluded.highestmodseq, messages = excluded.messages,
      synced_at = excluded.synced_at, gone_at = null;
$$;
comment on function chunk_private.note_email_folder is 'Notes how far a folder is synced.';

create or replace function public.save_email_folders(account_id uuid, folders jsonb)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set statement_timeout = '60s' -- the messages of a folder that is gone
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  names constant text[] := array(select f.folder from jsonb_to_recordset(folders) as f(folder text));
  gone int;
  messages int;
begin
  if cardinality(names) = 0 or array_position(names, null) is not null then
    raise exception using errcode = 'SC003', detail = 'folders',
      message = 'folders must be an array of {folder, special_use} with at least one folder';
  end if;
  perform chunk_private.mark_emails_alone(account_id);
  insert into public.email_folders as f (account_id, folder, special_use)
  select distinct on (n.folder) a.id, n.folder, n.special_use
  from jsonb_to_recordset(folders) as n(folder text, special_use text)
  join public.email_accounts a on a.id = account_id -- which may have been removed meanwhile
  order by n.folder
  on conflict on constraint email_folders_pkey do update
  set special_use = excluded.special_use, gone_at = null
  where f.special_use is distinct from excluded.special_use or f.gone_at is not null;

  update public.email_folders f
  set gone_at = now(), highestmodseq = null
  where f.account_id = account_id and f.gone_at is null and f.folder <> all (names);
  get diagnostics gone = row_count;

  update public.synced_emails e
  set deleted_at = now()
  where e.account_id = account_id and e.deleted_at is null and e.folder <> all (names);
  get diagnostics messages = row_count;
  messages := messages - (
    select coalesce(sum(chunk_private.reunite_gone_emails(account_id, f.folder)), 0)
    from public.email_folders f
    where f.account_id = account_id and f.gone_at = now()
  );
  return jsonb_build_object('gone', gone, 'deleted', messages);
end
$$;
comment on function public.save_email_folders is
  'Notes all folders of an account, an array of {folder, special_use}; marks those that are no longer there as gone, and their messages as deleted. Returns how many of each.';

create or replace function public.get_email_folder(account_id uuid, folder text)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
  select jsonb_build_object('uidvalidity', f.uidvalidity, 'highestmodseq', f.highestmodseq)
  from public.email_folders f
  where f.account_id = $1 and f.folder = $2;
$$;
comment on function public.get_email_folder is 'How far a folder is synced: {uidvalidity, highestmodseq}, or null when it never was.';

create or replace function public.update_email_folder(
  account_id uuid, folder text, uidvalidity bigint, highestmodseq text, present_count int, changed jsonb, vanished jsonb
)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set statement_timeout = '60s'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  missing jsonb;
  missing_count bigint;
  stored bigint;
  deleted int;
  flags_changed int;
begin
  if vanished <> '[]' then
    perform chunk_private.mark_emails_alone(account_id);
  end if;
  update public.synced_emails e
  set deleted_at = now()
  where e.id = any (array(
    select v.id from jsonb_array_elements(vanished) r(range)
    cross join lateral (
      select o.id from public.synced_emails o
      where o.account_id = account_id and o.folder = folder and o.uidvalidity = uidvalidity
        and o.uid between (r.range ->> 0)::bigint and (r.range ->> 1)::bigint
      offset 0
    ) v
  )) and e.deleted_at is null;
  get diagnostics deleted = row_count;
  if deleted > 0 then
    deleted := deleted - chunk_private.reunite_gone_emails(account_id, folder);
  end if;
  flags_changed := public.save_email_flags(account_id, folder, uidvalidity, changed);

  with absent as (
    select c.uid, c.uid - row_number() over (order by c.uid) as island
    from jsonb_to_recordset(changed) as c(uid bigint)
    where not exists (
      select from public.synced_emails e
      where e.account_id = account_id and e.folder = folder and e.uidvalidity = uidvalidity and e.uid = c.uid and e.deleted_at is null
    )
  ), islands as (
    select min(a.uid) as first, max(a.uid) as last, count(*) as messages from absent a group by a.island
  )
  select coalesce(jsonb_agg(jsonb_build_array(i.first, i.last, i.messages) order by i.first), '[]'), coalesce(sum(i.messages), 0)
  into missing, missing_count
  from islands i;

  select count(*) into stored
  from public.synced_emails e
  where e.account_id = account_id and e.folder = folder and e.uidvalidity = uidvalidity and e.deleted_at is null;
  if stored + missing_count = present_count then
    perform chunk_private.note_email_folder(account_id, folder, uidvalidity, highestmodseq, present_count);
  end if;
  return jsonb_build_object(
    'agrees', stored + missing_count = present_count, 'missing', missing, 'deleted', deleted, 'flags_changed', flags_changed,
    'moved', chunk_private.has_gone_emails(account_id)
  );
end
$$;
comment on function public.update_email_folder is
  'Applies what changed in a folder since its mark: changed ({uid, flags}), vanished ([first, last]). Returns what of it is missing like plan_email_folder, and agrees: whether the table then has as many messages as the server; otherwise the folder has to be compared as a whole.';

create or replace function public.renumber_email_folder(account_id uuid, folder text, uidvalidity bigint)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
begin
  insert into public.email_folders as f (account_id, folder, uidvalidity)
  select a.id, folder, uidvalidity from public.email_accounts a where a.id = account_id
  on conflict on constraint email_folders_pkey do update
  set uidvalidity = excluded.uidvalidity, highestmodseq = null
  where f.uidvalidity is distinct from excluded.uidvalidity;
  return found;
end
$$;
comment on function public.renumber_email_folder is
  'Notes that the server has renumbered a folder; true for the first who does, who then plans it again.';

-- 88_moved_emails.sql

-- Messages that move between folders keep their rows, whichever folder is looked at first.
--
-- A message has moved when it is gone in one folder and new in another. Who stores new ones looks for rows that are gone, and who
-- marks rows gone for new ones; each under the account's lock (22_locks.sql), so that one of them sees the other's.

create or replace function chunk_private.mark_emails_alone(account_id uuid)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select pg_advisory_xact_lock(uuid_hash_extended($1, 6)); $$;
comment on function chunk_private.mark_emails_alone is
  'Waits until nobody stores messages of the account, and keeps others from it, until the transaction''s end.';

create or replace function chunk_private.store_emails_together(account_id uuid)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select pg_advisory_xact_lock_shared(uuid_hash_extended($1, 6)); $$;
comment on function chunk_private.store_emails_together is
  'Waits until nobody marks messages of the account as gone, and keeps others from it, until the transaction''s end; others may store.';

create or replace function chunk_private.has_gone_emails(of_account uuid)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- Messages move within days; looking for them for ever would cost each new message a look.
  select exists (
    select from public.synced_emails e
    where e.account_id = of_account and e.deleted_at > now() - interval '7 days' and e.message_id is not null
  );
$$;
comment on function chunk_private.has_gone_emails is 'Whether messages of the account went lately, and may turn up in another folder.';

create or replace function chunk_private.reunite_emails(gone_ids bigint[], new_ids bigint[])
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  moved_ids bigint[];
  taken_ids bigint[];
  reunited int;
begin
  -- One row for one message: copies of a mail have the same id, size and date, and the first goes with the first.
  with matches as (
    select g.id as gone_id, n.id as new_id,
      dense_rank() over (partition by g.message_id, g.size order by g.id) as nth_gone,
      dense_rank() over (partition by g.message_id, g.size order by n.id) as nth_new
    from public.synced_emails g
    join public.synced_emails n on n.message_id = g.message_id and n.size = g.size
      and (n.received_at = g.received_at or n.email_id = g.email_id)
    where g.id = any (gone_ids) and n.id = any (new_ids)
  ), locked as (
    select g.id, m.new_id
    from public.synced_emails g
    join matches m on m.gone_id = g.id and m.nth_gone = m.nth_new
    where g.deleted_at is not null -- or another who stores has taken it
    order by g.id
    for no key update of g
  )
  select array_agg(l.id), array_agg(l.new_id) into moved_ids, taken_ids from locked l;

  with removed as (
    delete from public.synced_emails n
    using unnest(moved_ids, taken_ids) m (gone_id, new_id)
    where n.id = m.new_id and n.id = any (taken_ids) and n.deleted_at is null
    returning n.*, m.gone_id
  )
  update public.synced_emails g
  set folder = n.folder, uidvalidity = n.uidvalidity, uid = n.uid, message_id = n.message_id, in_reply_to = n.in_reply_to,
      subject = n.subject, from_addresses = n.from_addresses, to_addresses = n.to_addresses, cc_addresses = n.cc_addresses,
      bcc_addresses = n.bcc_addresses, reply_to_addresses = n.reply_to_addresses, sent_at = n.sent_at, received_at = n.received_at,
      flags = n.flags, email_id = n.email_id, thread_id = n.thread_id, labels = n.labels, preview = n.preview,
      body_text = coalesce(n.body_text, g.body_text), body_html = coalesce(n.body_html, g.body_html), parse_error = n.parse_error,
      deleted_at = null, job_id = n.job_id, synced_at = now()
  from removed n
  where g.id = n.gone_id and g.id = any (moved_ids);
  get diagnostics reunited = row_count;
  return reunited;
end
$$;
comment on function chunk_private.reunite_emails is
  'Of these rows, which are gone, and those, which are new, moves each of the first to the place of the one that is the same message, which goes. Returns how many.';

create or replace function chunk_private.reunite_new_emails(of_account uuid, new_ids bigint[])
returns int
language sql
set search_path = pg_catalog, pg_temp
as $$
  select chunk_private.reunite_emails(array_agg(g.id), new_ids)
  from public.synced_emails n
  cross join lateral (
    select g.id from public.synced_emails g
    where g.account_id = of_account and hashtextextended(g.message_id, 0) = hashtextextended(n.message_id, 0) and g.deleted_at is not null
    offset 0
  ) g
  where n.id = any (new_ids);
$$;
comment on function chunk_private.reunite_new_emails is 'Looks for rows that are gone for messages that were just stored.';

create or replace function chunk_private.reunite_gone_emails(of_account uuid, of_folder text)
returns int
language sql
set search_path = pg_catalog, pg_temp
as $$
  -- What was in another folder when this one was looked at last is a copy.
  select chunk_private.reunite_emails(array_agg(g.id), array_agg(n.id))
  from public.synced_emails g
  cross join lateral (
    select n.id from public.synced_emails n
    where n.account_id = of_account and hashtextextended(n.message_id, 0) = hashtextextended(g.message_id, 0) and n.deleted_at is null
      and n.stored_at > (select f.synced_at from public.email_folders f where f.account_id = of_account and f.folder = of_folder)
    offset 0
  ) n
  where g.account_id = of_account and g.folder = of_folder and g.deleted_at = now();
$$;
comment on function chunk_private.reunite_gone_emails is
  'Looks for messages that were stored in other folders for the rows of this folder that this transaction has marked as gone.';

create or replace function public.adopt_moved_emails(
  account_id uuid, folder text, uidvalidity bigint, emails jsonb, with_body boolean default false
)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  adopted jsonb;
begin
  perform chunk_private.store_emails_together(account_id);
  -- One row for one message: copies of a mail have the same id, size and date.
  with pairs as (
    select m.uid, m.flags, e.id,
      dense_rank() over (partition by m.message_id, m.size order by e.id) as nth_row,
      dense_rank() over (partition by m.message_id, m.size order by m.uid) as nth_message
    from jsonb_to_recordset(emails) as m(
      uid bigint, message_id text, size bigint, received_at timestamptz, email_id text, flags text[]
    )
    join public.synced_emails e on e.account_id = account_id and hashtextextended(e.message_id, 0) = hashtextextended(m.message_id, 0)
      and e.message_id = m.message_id and e.size = m.size
      and (e.received_at = m.received_at or e.email_id = m.email_id)
    where e.deleted_at is not null and (not with_body or e.body_text is not null)
      and not exists (
        select from public.synced_emails o
        where o.account_id = account_id and o.folder = folder and o.uidvalidity = uidvalidity and o.uid = m.uid
      )
  ), moved as (
    update public.synced_emails e
    set folder = adopt_moved_emails.folder, uidvalidity = adopt_moved_emails.uidvalidity, uid = p.uid,
        flags = coalesce(p.flags, '{}'), deleted_at = null, synced_at = now()
    from pairs p
    where e.id = p.id and e.id = any (array(select o.id from pairs o)) and p.nth_row = p.nth_message and e.deleted_at is not null
    returning e.uid
  )
  select coalesce(jsonb_agg(m.uid order by m.uid), '[]') into adopted from moved m;
  return adopted;
end
$$;
comment on function public.adopt_moved_emails is
  'Moves the rows of messages that are gone where they were to where they are now: emails are {uid, message_id, size, received_at, email_id, flags}. Returns the UIDs that need not be fetched.';

-- 89_email_tokens.sql

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

-- 90_access.sql

revoke all on public.email_accounts, public.synced_emails, public.email_folders from public, anon, authenticated, service_role;
revoke all on chunk_private.email_token_leases from public, anon, authenticated, service_role;
grant select on public.email_accounts, public.synced_emails, public.email_folders to authenticated;
grant select, insert, update, delete on public.email_accounts, public.synced_emails, public.email_folders to service_role;
revoke all on sequence public.synced_emails_id_seq from public, anon, authenticated, service_role;

select chunk_private.set_reading_policy('public.email_accounts', 'Users see their own email accounts',
  'owner_id = (select auth.uid() as uid)');
select chunk_private.set_reading_policy('public.synced_emails', 'Users see the emails of their own accounts',
  'account_id in (select a.id from public.email_accounts a where a.owner_id = (select auth.uid() as uid))');

select chunk_private.set_reading_policy('chunk_private.email_token_leases', 'No user sees these', 'false');
select chunk_private.set_reading_policy('public.email_folders', 'Users see the folders of their own accounts',
  'account_id in (select a.id from public.email_accounts a where a.owner_id = (select auth.uid() as uid))');

revoke execute on function
  public.save_email_account, public.remove_email_account, public.get_email_account_secret, public.plan_email_folder,
  public.save_synced_emails, public.save_email_flags, chunk_private.save_email_account,
  chunk_private.remove_email_account, chunk_private.get_email_account_secret, chunk_private.check_email_port, chunk_private.forget_email_password,
  public.save_email_folders, public.get_email_folder, public.update_email_folder, public.renumber_email_folder,
  public.adopt_moved_emails, chunk_private.note_email_folder, chunk_private.has_gone_emails,
  chunk_private.mark_emails_alone, chunk_private.store_emails_together, chunk_private.reunite_emails, chunk_private.reunite_new_emails, chunk_private.reunite_gone_emails,
  public.begin_email_token, public.save_email_token, public.refuse_email_token, chunk_private.begin_email_token,
  chunk_private.save_email_token, chunk_private.refuse_email_token, chunk_private.email_secret,
  chunk_private.check_email_account, chunk_private.email_oauth_secret
from public, anon, authenticated, service_role;
grant execute on function
  public.save_email_account, public.remove_email_account, chunk_private.save_email_account, chunk_private.remove_email_account
to authenticated, service_role;
grant execute on function
  public.get_email_account_secret, public.plan_email_folder, public.save_synced_emails, public.save_email_flags,
  chunk_private.get_email_account_secret, chunk_private.check_email_port,
  public.save_email_folders, public.get_email_folder, public.update_email_folder, public.renumber_email_folder,
  public.adopt_moved_emails, chunk_private.note_email_folder, chunk_private.has_gone_emails,
  chunk_private.mark_emails_alone, chunk_private.store_emails_together, chunk_private.reunite_emails, chunk_private.reunite_new_emails, chunk_private.reunite_gone_emails,
  public.begin_email_token, public.save_email_token, public.refuse_email_token, chunk_private.begin_email_token,
  chunk_private.save_email_token, chunk_private.refuse_email_token
to service_role;

notify pgrst, 'reload schema';
