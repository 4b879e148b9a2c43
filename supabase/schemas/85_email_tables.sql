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
