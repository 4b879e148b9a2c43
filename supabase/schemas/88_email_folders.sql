-- The folders of an account: which there are, how far they are synced, and messages that moved between them.

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

create or replace function public.save_email_folders(account_id uuid, folders jsonb)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set statement_timeout = '60s' -- the messages of a folder that is gone
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
as $$
#variable_conflict use_variable
declare
  missing jsonb;
  missing_count bigint;
  stored bigint;
  deleted int;
  flags_changed int;
begin
  update public.synced_emails e
  set deleted_at = now()
  from jsonb_array_elements(vanished) r(range)
  where e.account_id = account_id and e.folder = folder and e.uidvalidity = uidvalidity and e.deleted_at is null
    and e.uid between (r.range ->> 0)::bigint and (r.range ->> 1)::bigint;
  get diagnostics deleted = row_count;
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

create or replace function public.adopt_moved_emails(
  account_id uuid, folder text, uidvalidity bigint, emails jsonb, with_body boolean default false
)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
as $$
#variable_conflict use_variable
declare
  adopted jsonb;
begin
  -- One row for one message: copies of a mail have the same id, size and date.
  with pairs as (
    select m.uid, m.flags, e.id,
      row_number() over (partition by m.uid order by e.deleted_at desc, e.id) as nth_row,
      row_number() over (partition by e.id order by m.uid) as nth_message
    from jsonb_to_recordset(emails) as m(
      uid bigint, message_id text, size bigint, received_at timestamptz, email_id text, flags text[]
    )
    join public.synced_emails e on e.account_id = account_id and e.message_id = m.message_id and e.size = m.size
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
    where e.id = p.id and p.nth_row = 1 and p.nth_message = 1
    returning e.uid
  )
  select coalesce(jsonb_agg(m.uid order by m.uid), '[]') into adopted from moved m;
  return adopted;
end
$$;
comment on function public.adopt_moved_emails is
  'Moves the rows of messages that are gone where they were to where they are now: emails are {uid, message_id, size, received_at, email_id, flags}. Returns the UIDs that need not be fetched.';
