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
