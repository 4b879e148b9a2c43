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
