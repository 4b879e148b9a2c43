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
