-- supabase-chunks 0.1.0: the queue. Built from supabase/schemas by `make migrations`: change it there.

-- An upgrade under load waits this long for a lock. Then nothing has changed: run it again.
set local lock_timeout = '5s';

-- 10_public_tables.sql

-- The tables of the chunk queue, and the state machine as constraints: their names are what an update by hand is told.
--
-- public         what people query by name: sync_kinds, sync_jobs, chunk_processing_queue
-- chunk_private  what the Data API does not expose: settings, lanes, slots, counters, attempts, dispatches, helper functions

-- Views that run as who asks, and more, came with 15; without this an older server says so in words of its own.
do $$
begin
  if current_setting('server_version_num')::int < 150000 then
    raise exception 'supabase-chunks needs PostgreSQL 15 or newer, and this is %', current_setting('server_version')
    using errcode = 'feature_not_supported',
      hint = 'Upgrade the project''s database first (on Supabase: Project Settings, Infrastructure).';
  end if;
end
$$;

create schema if not exists chunk_private;
comment on schema chunk_private is
  'The inside of supabase-chunks: counters, attempts, dispatches and helper functions. Not exposed by the Data API.';

-- Kinds ---------------------------------------------------------------------------------------------------------------

create table if not exists public.sync_kinds (
  kind text primary key,
  handler text,
  max_concurrency int not null default 1,
  max_retries int not null default 3,
  lease_seconds int not null default 600,
  retry_delay_seconds int not null default 10,
  user_startable boolean not null default false,
  limit_by text,
  limit_each int,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint sync_kinds_kind_is_a_name check (kind ~ '^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$'),
  constraint sync_kinds_handler_is_a_name check (handler ~ '^[A-Za-z0-9_-]{1,100}$'),
  constraint sync_kinds_max_concurrency_range check (max_concurrency between 1 and 1000),
  constraint sync_kinds_max_retries_range check (max_retries between 0 and 100),
  constraint sync_kinds_lease_range check (lease_seconds between 1 and 86400),
  constraint sync_kinds_retry_delay_range check (retry_delay_seconds between 0 and 86400),
  constraint sync_kinds_limit_by_is_a_field check (length(limit_by) between 1 and 100),
  constraint sync_kinds_limit_each_range check (limit_each between 1 and 10000)
);
comment on table public.sync_kinds is 'What sorts of sync there are: who does their chunks, and within which limits. Change it with save_sync_kind().';
comment on column public.sync_kinds.handler is 'The Edge Function that does a chunk''s work; null: Python workers do this kind.';
comment on column public.sync_kinds.max_concurrency is 'How many chunks of one job may have a slot (wait to be claimed, or be processed) at once, unless the job says otherwise.';
comment on column public.sync_kinds.max_retries is 'Retries after the first attempt; a chunk has at most 1 + max_retries attempts.';
comment on column public.sync_kinds.lease_seconds is 'How long a claim lasts without a heartbeat, in seconds.';
comment on column public.sync_kinds.retry_delay_seconds is 'Backoff before the first retry in seconds; doubles with each further one, up to an hour.';
comment on column public.sync_kinds.user_startable is 'Whether a signed-in user (role authenticated) may start a job of this kind.';
comment on column public.sync_kinds.limit_by is 'What its jobs share limits by: a field of the job''s payload, or owner_id. Their limit_key is kind:owner:value; null: none.';
comment on column public.sync_kinds.limit_each is 'How many chunks of one such key may be processing at once, unless sync_limits says otherwise.';
-- Asked first, here and below: `create index if not exists` waits for all who write the table before it looks.
do $$
begin
  if to_regclass('public.sync_kinds_with_handler') is null then
    create index sync_kinds_with_handler on public.sync_kinds (kind) where handler is not null; -- the kinds of a claim that names none
  end if;
end
$$;

-- A mailbox allows so many connections, whoever syncs it: so the chunks of all its jobs count together.
insert into public.sync_kinds (kind, handler, max_concurrency, user_startable, limit_by, limit_each)
values ('email', 'sync-emails', 4, true, 'account', 4), ('custom', null, 16, false, null, null)
on conflict on constraint sync_kinds_pkey do nothing;

-- Jobs ----------------------------------------------------------------------------------------------------------------

create table if not exists public.sync_jobs (
  id uuid primary key default gen_random_uuid(),
  kind text not null,
  owner_id uuid,
  status text not null default 'pending',
  payload jsonb not null default '{}',
  job_key text,
  request_id uuid,
  priority smallint not null default 0,
  max_concurrency int not null,
  max_retries int not null,
  sealed boolean not null default true,
  total_chunks bigint not null default 0,
  items_total bigint,
  job_no bigint,
  next_state jsonb,
  limit_key text,
  stripes smallint not null default 1,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  completed_at timestamptz,
  constraint sync_jobs_kind_fkey foreign key (kind) references public.sync_kinds (kind),
  constraint job_is_pending_running_paused_completed_failed_or_cancelled check (status in ('pending', 'running', 'paused', 'completed', 'failed', 'cancelled')),
  constraint sync_jobs_ended_has_time check ((status in ('completed', 'failed', 'cancelled')) = (completed_at is not null)),
  constraint sync_jobs_completed_is_sealed check (sealed or status not in ('completed', 'failed')),
  constraint sync_jobs_payload_is_object check (jsonb_typeof(payload) = 'object'),
  constraint sync_jobs_next_state_is_object check (jsonb_typeof(next_state) = 'object'),
  constraint sync_jobs_limit_key_length check (length(limit_key) between 1 and 500),
  constraint sync_jobs_job_key_length check (length(job_key) between 1 and 500),
  constraint sync_jobs_priority_range check (priority between -3 and 3),
  constraint sync_jobs_max_concurrency_range check (max_concurrency between 1 and 1000),
  constraint sync_jobs_max_retries_range check (max_retries between 0 and 100),
  constraint sync_jobs_counts_not_negative check (total_chunks >= 0 and items_total >= 0),
  constraint sync_jobs_stripes_range check (stripes between 1 and 16)
);
comment on table public.sync_jobs is
  'One row a sync that someone triggered; the parent of its chunks. For counts and progress read the view chunk_processing_status.';
comment on column public.sync_jobs.owner_id is 'The user whose job it is (auth.users.id); null: the service''s own.';
comment on column public.sync_jobs.status is
  'pending (nobody has claimed a chunk yet) → running → completed | failed | cancelled, with paused between. failed: every chunk ended and at least one failed.';
comment on column public.sync_jobs.job_key is 'At most one active job a (kind, owner, job_key).';
comment on column public.sync_jobs.request_id is 'The start that made it: repeated, with the same request_id of the same owner, it returns this job until it is purged.';
comment on column public.sync_jobs.sealed is 'False while more chunks are to be appended; an unsealed job never finishes.';
comment on column public.sync_jobs.total_chunks is 'Chunks so far. Grows under the job''s exclusive gate only.';
comment on column public.sync_jobs.items_total is 'Items (messages, rows, …) the chunks have announced so far; null when nobody said.';
comment on column public.sync_jobs.job_no is 'Number of a job with a job_key, in the order of their starts: the state that a job leaves never replaces one of a higher number.';
comment on column public.sync_jobs.next_state is 'What its completed chunks have left for the next sync so far. Becomes the state in sync_states when the job completes, and only then.';
comment on column public.sync_jobs.limit_key is 'What it shares limits by with other jobs: a key of sync_limits, or one that its kind''s limit_by makes; null: nothing.';
comment on column public.sync_jobs.stripes is 'Into how many stripes (chunk_index modulo this) the job is cut: a counter and a row of fresh chunks each, so that workers do not queue for one row.';

do $$
begin
  if to_regclass('public.sync_jobs_one_active_per_key') is null then
    create unique index sync_jobs_one_active_per_key on public.sync_jobs (kind, owner_id, job_key)
      nulls not distinct where job_key is not null and status in ('pending', 'running', 'paused');
  end if;
  if to_regclass('public.sync_jobs_one_per_request') is null then
    create unique index sync_jobs_one_per_request on public.sync_jobs (request_id, owner_id)
      nulls not distinct where request_id is not null;
  end if;
  if to_regclass('public.sync_jobs_owner') is null then
    create index sync_jobs_owner on public.sync_jobs (owner_id, created_at desc);
  end if;
  if to_regclass('public.sync_jobs_active') is null then
    create index sync_jobs_active on public.sync_jobs (kind) where status in ('pending', 'running', 'paused');
  end if;
  if to_regclass('public.sync_jobs_ended') is null then
    create index sync_jobs_ended on public.sync_jobs (completed_at) where completed_at is not null;
  end if;
end
$$;

-- Chunks --------------------------------------------------------------------------------------------------------------

-- A type, since a constraint of the table is read anew for each write, and one of a type is kept.
do $$
begin
  if to_regtype('chunk_private.chunk_status') is null then
    create domain chunk_private.chunk_status as text
      constraint chunk_is_pending_processing_completed_failed_or_cancelled
      check (value = any ('{pending,processing,completed,failed,cancelled}'));
  end if;
end
$$;
comment on domain chunk_private.chunk_status is 'The states of a chunk.';

create table if not exists public.chunk_processing_queue (
  id bigint generated always as identity primary key,
  parent_sync_job_id uuid not null,
  chunk_index bigint not null,
  created_at timestamptz not null default now(),
  max_retries int not null default 3,
  given_back int not null default 0,
  has_failed boolean not null default false,
  kind text not null,
  owner_id uuid,
  payload jsonb default '{}',
  items_total bigint,
  ready_at timestamptz,
  checkpoint jsonb,
  checkpoint_at timestamptz,
  checkpoint_items bigint,
  checkpoints int,
  items_counted bigint,
  throttled int,
  -- What a claim writes stands behind what it does not, and what a report writes behind that: an update then logs its end only.
  attempts int not null default 0,
  claim_token uuid,
  worker_id text,
  started_at timestamptz,
  status chunk_private.chunk_status not null default 'pending',
  locked_until timestamptz,
  updated_at timestamptz not null default now(),
  items_processed bigint,
  error text,
  result jsonb,
  completed_at timestamptz,
  constraint chunk_processing_queue_parent_fkey foreign key (parent_sync_job_id) references public.sync_jobs (id) on delete cascade,
  constraint chunk_processing_queue_index_key unique (parent_sync_job_id, chunk_index),
  -- The state machine, in one short constraint, and with an array for `in`: the server reads it anew for each write.
  constraint processing_has_lease_ended_has_time_attempts_within_retries check (
    (status = 'processing') = (locked_until is not null) and (status = any ('{pending,processing}')) = (completed_at is null)
    and attempts <= 1 + max_retries
  )
)
-- No index knows a chunk's state: what may be claimed stands in chunk_private.slots. Claims, heartbeats and reports then
-- change no indexed column, and with room on the page they touch no index at all.
with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
comment on table public.chunk_processing_queue is 'The queue: one row a chunk, work small enough for one invocation. Written by the RPC functions only.';
comment on column public.chunk_processing_queue.kind is 'The job''s kind, copied so that a chunk reads by itself.';
comment on column public.chunk_processing_queue.owner_id is 'The job''s owner, copied for row level security.';
comment on column public.chunk_processing_queue.chunk_index is 'Its number in the job, from 0.';
comment on column public.chunk_processing_queue.status is 'pending → processing → completed | failed | cancelled; processing → pending on retry, when given back, or taken back from a lost worker.';
comment on column public.chunk_processing_queue.payload is 'What to do; null: what the payload of its job says, of which it is the only chunk so far.';
comment on column public.chunk_processing_queue.attempts is 'Claims since the last progress (a new checkpoint, else the start) that were not given back; counted at the claim, so that a chunk that kills its worker cannot loop for ever.';
comment on column public.chunk_processing_queue.error is 'Why the last attempt failed. All of them: chunk_private.chunk_attempts.';
comment on column public.chunk_processing_queue.given_back is 'How often a worker gave the chunk back unfinished (release_chunk_job); bounded.';
comment on column public.chunk_processing_queue.has_failed is 'Whether an attempt has failed or was lost since the chunk was made or reopened: an open one then counts as retrying.';
comment on column public.chunk_processing_queue.checkpoint is 'Where a later attempt goes on: what the claim''s holder saved last. Outlives retries, giving back and lost workers; dropped at the completion.';
comment on column public.chunk_processing_queue.checkpoint_at is 'When a checkpoint last brought progress: one that was new, within the bound of settings.max_checkpoints.';
comment on column public.chunk_processing_queue.checkpoint_items is 'items_processed as of the checkpoint, to which it falls back when the attempt ends without completion.';
comment on column public.chunk_processing_queue.checkpoints is 'How many checkpoints have brought progress; null: none.';
comment on column public.chunk_processing_queue.items_counted is 'Of items_processed, what chunk_private.job_counters has already; null: nothing.';
comment on column public.chunk_processing_queue.ready_at is 'When a chunk that has failed or was throttled may be claimed again; null before.';
comment on column public.chunk_processing_queue.throttled is 'How often it was throttled since the last progress; null: never.';
comment on column public.chunk_processing_queue.items_processed is 'Items done, as the last heartbeat or the completion said.';
comment on column public.chunk_processing_queue.items_total is 'Items this chunk was made for, or has found by its completion.';
comment on column public.chunk_processing_queue.claim_token is 'Fencing token of the current, or of an ended chunk the last, claim. Only its holder can report.';
comment on column public.chunk_processing_queue.locked_until is 'End of the lease. A heartbeat moves it; after it the watchdog takes the chunk back.';
comment on column public.chunk_processing_queue.started_at is 'When the current, or of an ended chunk the last, attempt was claimed.';
comment on column public.chunk_processing_queue.updated_at is 'Last claim, heartbeat or report.';

-- State between jobs --------------------------------------------------------------------------------------------------

create table if not exists public.sync_states (
  id bigint generated always as identity primary key,
  kind text not null,
  owner_id uuid,
  job_key text not null,
  state jsonb,
  job_no bigint not null,
  updated_at timestamptz not null default now(),
  constraint sync_states_kind_fkey foreign key (kind) references public.sync_kinds (kind) on delete cascade,
  constraint sync_states_one_per_key unique nulls not distinct (kind, owner_id, job_key),
  constraint sync_states_state_is_object check (jsonb_typeof(state) = 'object')
);
comment on table public.sync_states is
  'What the next sync of the same thing (kind, owner, job_key) starts from. Written by jobs that complete, and by save_sync_state().';
comment on column public.sync_states.state is 'Up to 64 KB of JSON, the handler''s own: a cursor, a timestamp, a token of the source. Null: forgotten by save_sync_state().';
comment on column public.sync_states.job_no is 'The number of the job, or of the call, that left it.';

-- 11_private_tables.sql

-- The inside: settings, lanes, slots, attempts, dispatches. Nothing of it is exposed by the Data API.

create table if not exists chunk_private.settings (
  only_row boolean primary key default true,
  max_payload_bytes int not null default 16777216,
  max_given_back int not null default 10,
  max_throttled int not null default 100,
  max_checkpoints int not null default 10000,
  user_max_payload_bytes int not null default 1048576,
  user_max_chunk_bytes int not null default 262144,
  user_max_chunks int not null default 10000,
  user_max_kept_chunks int not null default 50000,
  user_max_active_jobs int not null default 20,
  user_max_requests int not null default 100,
  user_max_webhooks int not null default 300,
  user_max_email_accounts int not null default 20,
  user_email_ports int[] not null default '{143,993}',
  user_email_private_hosts boolean not null default false,
  constraint settings_one_row check (only_row),
  constraint settings_limits_not_negative check (
    least(max_payload_bytes, max_given_back, max_throttled, max_checkpoints, user_max_payload_bytes, user_max_chunk_bytes, user_max_chunks,
      user_max_kept_chunks, user_max_active_jobs, user_max_requests, user_max_webhooks, user_max_email_accounts) >= 0
  )
);
comment on table chunk_private.settings is 'Limits, one row. Change them with save_chunk_settings(). Those that begin with user_ are for signed-in users only.';
comment on column chunk_private.settings.only_row is 'Keeps it to one row.';
comment on column chunk_private.settings.max_payload_bytes is 'Bytes of JSON that a payload of the service may have, of a job or of a chunk, and a result.';
comment on column chunk_private.settings.max_given_back is 'How often a chunk can be given back without progress before it costs an attempt.';
comment on column chunk_private.settings.max_throttled is 'How often a chunk can be throttled without progress before it costs an attempt.';
comment on column chunk_private.settings.max_checkpoints is 'How many checkpoints of a chunk count as progress; later ones are stored.';
comment on column chunk_private.settings.user_max_payload_bytes is 'Bytes of JSON that the payload of a user''s job may have.';
comment on column chunk_private.settings.user_max_chunk_bytes is 'Bytes of JSON that the payload of one chunk from a user may have.';
comment on column chunk_private.settings.user_max_chunks is 'Chunks that a user''s job may have.';
comment on column chunk_private.settings.user_max_kept_chunks is
  'Chunks that the jobs of a user may have together: those that have not ended, and all of the last 30 days; a job counts as one chunk at least.';
comment on column chunk_private.settings.user_max_active_jobs is 'Jobs that a user may have active at once.';
comment on column chunk_private.settings.user_max_requests is 'Request ids, the newest, that a user''s job remembers of starts and of appends.';
comment on column chunk_private.settings.user_max_webhooks is 'Webhooks that what a user does may cause within a minute.';
comment on column chunk_private.settings.user_max_email_accounts is 'Email accounts that a user may have.';
comment on column chunk_private.settings.user_email_ports is 'Ports that a user''s email account may name.';
comment on column chunk_private.settings.user_email_private_hosts is
  'Whether a user''s email account may be at a loopback, private or link-local address, which the Edge Functions may reach and the user may not.';
insert into chunk_private.settings (only_row) values (true) on conflict on constraint settings_pkey do nothing;

create table if not exists chunk_private.lanes (
  id bigint generated always as ((3 - priority) * 4294967296 + number) stored primary key,
  number bigint generated always as identity,
  kind text not null,
  priority smallint not null,
  constraint lanes_kind_fkey foreign key (kind) references public.sync_kinds (kind) on delete cascade,
  constraint lanes_kind_priority_key unique (kind, priority)
);
comment on table chunk_private.lanes is
  'The pairs of kind and priority that were ever used.';
comment on column chunk_private.lanes.id is 'In order of priority, the highest first: so does a claim find the lanes to look at in the index of slots.';
comment on column chunk_private.lanes.number is 'Tells lanes of one priority apart.';

create table if not exists chunk_private.slots (
  job_id uuid not null,
  chunk_index bigint not null,
  lane bigint not null,
  ready_at timestamptz not null,
  claimed boolean not null default false,
  parked boolean not null default false,
  claim_id uuid,
  dispatched_at timestamptz,
  dispatch_count int not null default 0,
  limit_key text,
  -- No foreign key to the job: its check would lock the job's row each time a slot is handed out. The trigger sync_jobs_forget_slots does its work.
  primary key (job_id, chunk_index)
)
with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
comment on table chunk_private.slots is
  'The slots in use: a row a chunk that waits to be claimed or is processing. A job has at most max_concurrency of them, so the cap holds without a check at the claim. A finished chunk''s row passes to the job''s next chunk.';
comment on column chunk_private.slots.lane is 'Its job''s kind and priority: chunk_private.lanes.id.';
comment on column chunk_private.slots.ready_at is 'Not claimable before. Claims take the oldest first, so that jobs take turns.';
comment on column chunk_private.slots.claimed is 'Whether its chunk is processing.';
comment on column chunk_private.slots.parked is
  'Whether it waits until its limit_key has room: claims do not see it, and settle_limit() wakes it.';
comment on column chunk_private.slots.limit_key is 'Its job''s, copied.';
comment on column chunk_private.slots.claim_id is 'The claim''s own id, so that a claim whose reply was lost can be repeated.';
comment on column chunk_private.slots.dispatched_at is 'When a webhook was last sent for the chunk.';
comment on column chunk_private.slots.dispatch_count is 'Webhooks sent since the chunk has it; the watchdog doubles its interval with each.';

create table if not exists chunk_private.returned_chunks (
  job_id uuid not null,
  ready_at timestamptz not null,
  chunk_index bigint not null,
  primary key (job_id, ready_at, chunk_index),
  constraint returned_chunks_job_fkey foreign key (job_id) references public.sync_jobs (id) on delete cascade
);
comment on table chunk_private.returned_chunks is
  'Pending chunks that had a slot before and wait for another: retries from ready_at on, and what a pause took back.';
comment on column chunk_private.returned_chunks.ready_at is 'From when on it may have a slot again.';

create table if not exists chunk_private.chunk_attempts (
  id bigint generated always as identity,
  job_id uuid not null,
  chunk_id bigint not null,
  attempt int not null,
  outcome text not null,
  error text,
  worker_id text,
  claim_token uuid not null,
  claimed_at timestamptz,
  ended_at timestamptz not null default now(),
  primary key (job_id, id),
  constraint chunk_attempts_chunk_fkey foreign key (chunk_id) references public.chunk_processing_queue (id) on delete cascade,
  constraint chunk_attempts_outcome_known check (outcome in ('retrying', 'failed', 'lost', 'released', 'throttled', 'cancelled'))
);
comment on table chunk_private.chunk_attempts is 'Every attempt that did not complete: who, when, and why.';
comment on column chunk_private.chunk_attempts.outcome is
  'retrying and failed: the worker reported an error; lost: its lease ran out; released: it gave the chunk back; throttled: what it works on asked for a pause; cancelled: the job was.';

create table if not exists chunk_private.dispatches (
  id bigint generated always as identity,
  job_id uuid not null,
  owner_id uuid,
  chunk_id bigint not null,
  request_id bigint,
  status_code int,
  error text,
  by_user boolean not null default false,
  created_at timestamptz not null default now(),
  answered_at timestamptz,
  primary key (job_id, id),
  constraint dispatches_job_fkey foreign key (job_id) references public.sync_jobs (id) on delete cascade
);
comment on table chunk_private.dispatches is 'Webhooks asked of pg_net, with their outcome once the watchdog has seen it. A dispatch is a hint, never the truth.';
comment on column chunk_private.dispatches.request_id is 'pg_net''s id of the request; null: it could not even be asked for.';
comment on column chunk_private.dispatches.by_user is 'Whether a user has caused it, by a start, an append, a resume or a retry.';
comment on column chunk_private.dispatches.error is 'Why it failed: an exception of pg_net, no answer, or an HTTP status of 300 and more.';

create table if not exists chunk_private.answered_requests (
  request_id uuid not null,
  job_id uuid not null,
  call text not null,
  created_at timestamptz not null default now(),
  primary key (request_id, job_id, call),
  constraint answered_requests_job_fkey foreign key (job_id) references public.sync_jobs (id) on delete cascade,
  constraint answered_requests_call_known check (call in ('start', 'append'))
);
comment on table chunk_private.answered_requests is
  'Request ids that a job has answered, so that a repeat finds its answer: of starts that were given this job because its job_key was active, and of pages appended. The start that made a job stands in sync_jobs.request_id.';
comment on column chunk_private.answered_requests.call is 'start or append: one request id may be used for both.';

create table if not exists chunk_private.watchdog (
  only_row boolean primary key default true,
  scheduled_at timestamptz,
  last_pass_at timestamptz,
  server_began timestamptz default pg_postmaster_start_time(),
  constraint watchdog_one_row check (only_row)
);
comment on table chunk_private.watchdog is 'When the watchdog was set going, and last came round; one row.';
comment on column chunk_private.watchdog.only_row is 'Keeps it to one row.';
comment on column chunk_private.watchdog.scheduled_at is 'When its schedule was last made or changed.';
comment on column chunk_private.watchdog.last_pass_at is 'When a pass last began that came to its end.';
comment on column chunk_private.watchdog.server_began is 'The start of the server that it came round on: after another, pg_net''s tables may have been emptied.';
insert into chunk_private.watchdog (only_row) values (true) on conflict on constraint watchdog_pkey do nothing;

create table if not exists chunk_private.healings (
  id bigint generated always as identity primary key,
  job_id uuid not null,
  healed_at timestamptz not null default now(),
  what text not null
);
comment on table chunk_private.healings is 'What the watchdog has put right that should not have been.';
comment on column chunk_private.healings.healed_at is 'When it did.';
comment on column chunk_private.healings.what is 'What was wrong, with how often.';

create sequence if not exists chunk_private.job_numbers;
comment on sequence chunk_private.job_numbers is 'Numbers jobs with a job_key, and states saved by hand, in their order: the later one''s state stands.';

-- Indexes

-- Asked first: `create index if not exists` waits for all who write the table before it looks.
do $$
begin
  if to_regclass('chunk_private.slots_claim') is null then
    create index slots_claim on chunk_private.slots (lane, ready_at, chunk_index) where not claimed and not parked;
  end if;
  if to_regclass('chunk_private.slots_limit') is null then
    create index slots_limit on chunk_private.slots (limit_key, claimed, parked, lane, ready_at, chunk_index) where limit_key is not null;
  end if;
  if to_regclass('chunk_private.slots_claim_id') is null then
    create index slots_claim_id on chunk_private.slots (claim_id) where claim_id is not null;
  end if;
  if to_regclass('chunk_private.chunk_attempts_chunk') is null then
    create index chunk_attempts_chunk on chunk_private.chunk_attempts (chunk_id, claim_token);
  end if;
  if to_regclass('chunk_private.dispatches_unanswered') is null then
    create index dispatches_unanswered on chunk_private.dispatches (request_id) where answered_at is null and request_id is not null;
  end if;
  if to_regclass('chunk_private.dispatches_by_user') is null then
    create index dispatches_by_user on chunk_private.dispatches (owner_id, created_at) where by_user;
  end if;
  if to_regclass('chunk_private.dispatches_age') is null then
    create index dispatches_age on chunk_private.dispatches (created_at, chunk_id);
  end if;
  if to_regclass('chunk_private.answered_requests_job') is null then
    create index answered_requests_job on chunk_private.answered_requests (job_id, call, created_at);
  end if;
end
$$;

-- 12_under_load.sql

-- What migrations may do while sessions are at work: replacing a view, and row level security, lock the relation against all who
-- use it, and two such locks in one transaction deadlock with them. So they are done only where something is different.

create or replace function chunk_private.replace_view(view text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  wanted constant text := pg_get_viewdef(to_regclass('chunk_private.wanted_view'));
begin
  if not exists (
    select from pg_class c
    where c.oid = to_regclass(view) and c.reloptions = '{security_invoker=true}' and pg_get_viewdef(c.oid) = wanted
  ) then
    execute format('create or replace view %s with (security_invoker = true) as %s', view, wanted);
  end if;
  execute 'drop view chunk_private.wanted_view'; -- so, since a check of all functions does not find it
end
$$;
comment on function chunk_private.replace_view is
  'For migrations: gives a view the definition of chunk_private.wanted_view, which was made for that, unless it has it.';

-- The condition is compared as PostgreSQL prints it, without regard to case, spaces and brackets: names are whole (`as uid`).
create or replace function chunk_private.set_reading_policy(relation regclass, policy text, condition text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if not (select c.relrowsecurity from pg_class c where c.oid = relation) then
    execute format('alter table %s enable row level security', relation);
  end if;
  if not exists (
    select from pg_policy p
    where p.polrelid = relation and p.polname = policy and p.polcmd = 'r' and p.polpermissive and p.polwithcheck is null
      and p.polroles = array['authenticated'::regrole::oid]
      and regexp_replace(lower(pg_get_expr(p.polqual, p.polrelid)), '[\s()]', '', 'g') = regexp_replace(lower(condition), '[\s()]', '', 'g')
  ) then
    execute format('drop policy if exists %I on %s', policy, relation);
    execute format('create policy %I on %s for select to authenticated using (%s)', policy, relation, condition);
  end if;
end
$$;
comment on function chunk_private.set_reading_policy is
  'For migrations: switches a table''s row level security on, and lets signed-in users read the rows for which the condition holds.';

-- 13_limit_tables.sql

-- Limits across jobs: how many chunks that share a key may be processing, and how fast they may ask.

create table if not exists public.sync_limits (
  key text primary key,
  max_concurrency int,
  rate int,
  per_seconds int not null default 1,
  blocked_until timestamptz,
  blocked_reason text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint sync_limits_key_length check (length(key) between 1 and 500),
  constraint sync_limits_max_concurrency_range check (max_concurrency between 1 and 10000),
  constraint sync_limits_rate_range check (rate between 1 and 1000000),
  constraint sync_limits_per_seconds_range check (per_seconds between 1 and 86400)
);
comment on table public.sync_limits is
  'What jobs with the same limit_key share: one row a key that has limits of its own, or is blocked. Change it with save_sync_limit() and block_sync_limit().';
comment on column public.sync_limits.key is 'The limit_key of its jobs.';
comment on column public.sync_limits.max_concurrency is 'How many chunks of all its jobs may be processing at once; null: the limit_each of their kind, else any number.';
comment on column public.sync_limits.rate is 'How many requests their handlers may make within per_seconds, as far as they ask pace_sync_limit(); null: any number.';
comment on column public.sync_limits.per_seconds is 'The time that rate is for, in seconds.';
comment on column public.sync_limits.blocked_until is 'None of its chunks is handed out before, since what they work on has asked for a pause.';
comment on column public.sync_limits.blocked_reason is 'What it said.';

-- A table of its own: it is written with every request, and by who has no lock of the key.
create table if not exists chunk_private.limit_paces (
  limit_key text primary key,
  free_at timestamptz not null
)
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
comment on table chunk_private.limit_paces is 'When the requests that were let through so far leave room for the next one: one row a key with a rate.';
comment on column chunk_private.limit_paces.limit_key is 'Its key in sync_limits.';
comment on column chunk_private.limit_paces.free_at is 'From then on the next request may go.';

-- No foreign key: it would lock the job's row, for which somebody may wait who has slots. Written only with the key's lock.
create table if not exists chunk_private.limit_seekers (
  limit_key text not null,
  job_id uuid not null,
  asked_at timestamptz not null default now(),
  primary key (limit_key, job_id)
)
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
comment on table chunk_private.limit_seekers is
  'Jobs that a worker has asked for by their ids, and that had to wait for a place of their limit key: somebody will come for their slots.';
comment on column chunk_private.limit_seekers.limit_key is 'The jobs''.';
comment on column chunk_private.limit_seekers.asked_at is 'When a worker last asked, to half a second.';

-- Asked first: `create index if not exists` waits for all who write the table before it looks.
do $$
begin
  if to_regclass('public.sync_kinds_with_limit') is null then
    create index sync_kinds_with_limit on public.sync_kinds (kind) where limit_each is not null;
  end if;
  if to_regclass('public.sync_jobs_limit') is null then
    create index sync_jobs_limit on public.sync_jobs (limit_key) where limit_key is not null and status in ('pending', 'running', 'paused');
  end if;
end
$$;

-- 14_stripe_tables.sql

-- Stripes: how the chunks of a job stand, and what of it is fresh, in up to 16 rows each.

create table if not exists chunk_private.job_counters (
  job_id uuid not null,
  generation bigint not null default 0,
  stripe smallint not null,
  owner_id uuid,
  failed_chunks bigint not null default 0,
  cancelled_chunks bigint not null default 0,
  retrying_chunks bigint not null default 0,
  slots_from bigint not null default 0,
  fresh_from bigint not null default 0,
  last_error text,
  last_error_at timestamptz,
  -- What every report writes comes last: an update then logs no more than that.
  items_processed bigint not null default 0,
  open_chunks bigint not null default 0,
  completed_chunks bigint not null default 0,
  changes bigint not null default 0,
  last_activity_at timestamptz not null default now(),
  primary key (job_id, generation, stripe),
  constraint job_counters_job_fkey foreign key (job_id) references public.sync_jobs (id) on delete cascade,
  constraint job_counters_not_negative check (least(open_chunks, completed_chunks, failed_chunks, cancelled_chunks, retrying_chunks) >= 0)
)
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
comment on table chunk_private.job_counters is
  'A job''s counts, spread over up to 16 rows so that workers finishing chunks of one job do not queue for one row. Their sum is exact at every commit.';
comment on column chunk_private.job_counters.open_chunks is 'Pending and processing. The job row is looked at only when this reaches zero.';
comment on column chunk_private.job_counters.retrying_chunks is 'Open chunks that have failed at least once.';
comment on column chunk_private.job_counters.items_processed is 'Items of ended chunks; those of running ones stand in their heartbeats.';
comment on column chunk_private.job_counters.slots_from is
  'No slot of the job has a lower chunk_index: raised to lowest_place() with every sixteenth report of a stripe, back to 0 when chunks are reopened. The highest of the stripes counts.';
comment on column chunk_private.job_counters.fresh_from is
  'No row of the job''s fresh_stripes has a lower generation: raised with slots_from, to lowest_generation(). The highest of the stripes counts.';
comment on column chunk_private.job_counters.changes is 'How often it was written since it joined its generation.';
comment on column chunk_private.job_counters.generation is
  'Part of the key, so that the newest versions are found first: while somebody holds an old snapshot, none of the outdated ones can be pruned. A stripe has one row all the same.';

create table if not exists chunk_private.fresh_stripes (
  job_id uuid not null,
  stripe smallint not null,
  next_index bigint not null,
  end_index bigint not null,
  generation bigint not null generated always as (next_index / 256) stored,
  primary key (job_id, generation, stripe),
  constraint fresh_stripes_job_fkey foreign key (job_id) references public.sync_jobs (id) on delete cascade
)
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
comment on table chunk_private.fresh_stripes is
  'Which chunks of a job are fresh, that is, never had a slot: of each stripe (chunk_index modulo sync_jobs.stripes) those from next_index on, below end_index.';
comment on column chunk_private.fresh_stripes.stripe is 'Its chunks have this remainder: chunk_index modulo sync_jobs.stripes.';
comment on column chunk_private.fresh_stripes.next_index is 'The first of them that is fresh.';
comment on column chunk_private.fresh_stripes.end_index is 'The job''s number of chunks: one above its last chunk_index.';
comment on column chunk_private.fresh_stripes.generation is 'Part of the key, as in job_counters: it follows next_index. Reports look from fresh_from on.';

-- 15_stripes.sql

-- How the newest versions of a job's stripes are found.
--
-- Every report writes a row of each. While somebody's long query holds an old snapshot, PostgreSQL prunes none of their outdated
-- versions, and whoever looks for such a row walks through all of them. So they carry a generation in their key, which rises
-- every some changes: from the newest on, a look ends when it has seen what there is.
--
-- Counters are read together, so their generation is one of the job: a counter that was written so often in the newest begins
-- the next, and the others join it when they are written. Who begins one brings along those that have stayed behind.

create view chunk_private.wanted_view
with (security_invoker = true)
as
select j.id as job_id, c.stripe, c.generation, c.open_chunks, c.completed_chunks, c.failed_chunks, c.cancelled_chunks, c.retrying_chunks,
  c.items_processed, c.last_activity_at, c.last_error, c.last_error_at, c.slots_from, c.fresh_from, c.changes, c.ctid as place
from public.sync_jobs j
cross join lateral (
  select o.ctid, o.* from chunk_private.job_counters o
  where o.job_id = j.id
  order by o.generation desc limit least(j.stripes, j.total_chunks)
) c;

select chunk_private.replace_view('chunk_private.newest_counters');
comment on view chunk_private.newest_counters is 'The counters of jobs, a row a stripe that has chunks, however many outdated versions there are.';
comment on column chunk_private.newest_counters.generation is 'As in job_counters.';
comment on column chunk_private.newest_counters.open_chunks is 'As in job_counters.';
comment on column chunk_private.newest_counters.retrying_chunks is 'As in job_counters.';
comment on column chunk_private.newest_counters.items_processed is 'As in job_counters.';
comment on column chunk_private.newest_counters.slots_from is 'As in job_counters.';
comment on column chunk_private.newest_counters.fresh_from is 'As in job_counters.';
comment on column chunk_private.newest_counters.changes is 'As in job_counters.';
comment on column chunk_private.newest_counters.place is 'Where the row is (ctid), to change just it.';

create view chunk_private.wanted_view
with (security_invoker = true)
as
select j.id as job_id, f.stripe, f.next_index, f.end_index, f.generation, f.ctid as place
from public.sync_jobs j
cross join lateral (
  select o.ctid, o.stripe, o.next_index, o.end_index, o.generation from chunk_private.fresh_stripes o
  where o.job_id = j.id
  order by o.generation desc limit j.stripes
) f;

select chunk_private.replace_view('chunk_private.newest_stripes');
comment on view chunk_private.newest_stripes is 'What is fresh of jobs, a row a stripe, however many outdated versions there are.';
comment on column chunk_private.newest_stripes.next_index is 'As in fresh_stripes.';
comment on column chunk_private.newest_stripes.end_index is 'As in fresh_stripes.';
comment on column chunk_private.newest_stripes.generation is 'As in fresh_stripes.';
comment on column chunk_private.newest_stripes.place is 'Where the row is (ctid), to lock just it.';

create or replace function chunk_private.changes_a_generation()
returns int
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$ select 32; $$;
comment on function chunk_private.changes_a_generation is 'How often a counter is written in one generation, before it begins the next.';

create or replace function chunk_private.slots_from(job_id uuid)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  return coalesce((select max(n.slots_from) from chunk_private.newest_counters n where n.job_id = job_id), 0);
end
$$;
comment on function chunk_private.slots_from is 'A chunk_index below which no slot of a job is: from there on its slots are read, past those that are outdated.';

create or replace function chunk_private.bring_along(job_id uuid, to_generation bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  update chunk_private.job_counters c
  set generation = to_generation, changes = 0
  where c.ctid = any (array(
    select l.ctid from chunk_private.job_counters l
    where l.ctid = any (array(
      select n.place from chunk_private.newest_counters n where n.job_id = job_id and n.generation < to_generation - 2
    ))
    for no key update skip locked
  ));
end
$$;
comment on function chunk_private.bring_along is 'Brings the counters of a job that have stayed behind into a generation that the caller has begun.';

-- A statement that waits for a row whose generation has risen meanwhile passes it over, though it then has its lock. So who
-- changes a counter holds it first.
create or replace function chunk_private.hold_counter(job_id uuid, stripe bigint)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  held record;
  joins bigint;
begin
  select c.generation, c.changes into held from chunk_private.job_counters c
  where c.job_id = job_id and c.stripe = stripe
  order by c.generation desc limit 1 for no key update;
  joins := (select c.generation from chunk_private.job_counters c where c.job_id = job_id order by c.generation desc limit 1);
  if held.generation = joins and held.changes + 1 >= chunk_private.changes_a_generation() then
    joins := joins + 1;
    perform chunk_private.bring_along(job_id, joins);
  end if;
  if held.generation < joins then
    update chunk_private.job_counters c
    set generation = joins, changes = 0
    where c.job_id = job_id and c.generation = held.generation and c.stripe = stripe;
  end if;
  return joins;
end
$$;
comment on function chunk_private.hold_counter is 'Locks the counter of a stripe, in the generation in which it is to be written next, and returns that.';

create or replace function chunk_private.hold_stripe(job_id uuid, stripe bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  perform 1 from chunk_private.fresh_stripes s
  where s.job_id = job_id and s.stripe = stripe
  order by s.generation desc limit 1 for no key update;
end
$$;
comment on function chunk_private.hold_stripe is 'Locks the row of a stripe''s fresh chunks.';

-- Whatever has a slot later is fresh now, or returned, or has one.
create or replace function chunk_private.lowest_place(job_id uuid)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  above constant bigint := chunk_private.slots_from(job_id);
begin
  return coalesce(least(
    (select s.chunk_index from chunk_private.slots s where s.job_id = job_id and s.chunk_index >= above order by s.chunk_index limit 1),
    (select min(r.chunk_index) from chunk_private.returned_chunks r where r.job_id = job_id),
    (select min(n.next_index) from chunk_private.newest_stripes n where n.job_id = job_id and n.next_index < n.end_index)
  ), above);
end
$$;
comment on function chunk_private.lowest_place is
  'The lowest chunk_index that a slot of a job has or will have, unless chunks are reopened. The caller is in the job''s gate.';

create or replace function chunk_private.lowest_generation(job_id uuid)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  return coalesce((select min(n.generation) from chunk_private.newest_stripes n where n.job_id = job_id), 0);
end
$$;
comment on function chunk_private.lowest_generation is 'The lowest generation of a job''s fresh_stripes: batches move one of them far ahead of the others.';

-- 20_checks.sql

-- Checks of arguments. Each raises SC003 or SC004, with a message that names the argument and what is allowed.

create or replace function chunk_private.check_range(argument text, value bigint, lowest bigint, highest bigint)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if value not between lowest and highest then
    raise exception using errcode = 'SC003', detail = argument,
      message = format('%s must be between %s and %s, not %s', argument, lowest, highest, value);
  end if;
end
$$;
comment on function chunk_private.check_range is 'Raises SC003, naming the argument, when the value lies outside; null passes.';

create or replace function chunk_private.most_items()
returns bigint
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$ select 9007199254740991; $$;
comment on function chunk_private.most_items is
  'The largest number of items: 2^53 - 1, which every JSON reader keeps exact. Sums of items stop there, and at zero, where what was beyond is taken back. A plan holds it as a constant, so it costs no call.';

create or replace function chunk_private.check_items(argument text, value bigint)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform chunk_private.check_range(argument, value, 0, chunk_private.most_items());
end
$$;
comment on function chunk_private.check_items is
  'Raises SC003, naming the argument, for a number of items that is negative or above most_items(); null passes.';

create or replace function chunk_private.check_length(argument text, list jsonb, longest int)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_array_length(list) > longest then
    raise exception using errcode = 'SC004', detail = argument,
      message = format('%s has %s items; one call may carry %s', argument, jsonb_array_length(list), longest);
  end if;
end
$$;
comment on function chunk_private.check_length is 'Raises SC004, naming the argument, when a JSON array is longer.';

create or replace function chunk_private.check_report(
  success boolean, retry_after_seconds int, next_chunks jsonb, items_processed bigint, items_total bigint, next_state jsonb,
  throttled_seconds int
)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if success is null then
    raise exception using errcode = 'SC003', detail = 'success', message = 'success must be true or false, not null';
  end if;
  perform chunk_private.check_range('retry_after_seconds', retry_after_seconds, 0, 604800);
  perform chunk_private.check_range('throttled_seconds', throttled_seconds, 0, 604800);
  if success and throttled_seconds is not null then
    raise exception using errcode = 'SC003', detail = 'throttled_seconds', message = 'throttled_seconds goes with success false only';
  end if;
  perform chunk_private.check_items('items_processed', items_processed);
  perform chunk_private.check_items('items_total', items_total);
  if next_state is not null then
    perform chunk_private.check_object('next_state', next_state, 65536);
    if not success then
      raise exception using errcode = 'SC003', detail = 'next_state', message = 'next_state goes with success only';
    end if;
  end if;
  if next_chunks is not null then
    perform chunk_private.check_chunks('next_chunks', next_chunks, (select s.max_payload_bytes from chunk_private.settings s));
    if not success and jsonb_array_length(next_chunks) > 0 then
      raise exception using errcode = 'SC003', detail = 'next_chunks', message = 'next_chunks goes with success only';
    end if;
    return next_chunks <> '[]';
  end if;
  return false;
end
$$;
comment on function chunk_private.check_report is
  'Raises SC003 or SC004, naming the argument, for a report that makes no sense; says whether it appends chunks.';

create or replace function chunk_private.check_kinds(kinds text[])
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  unknown text;
begin
  if (select count(*) from public.sync_kinds k where k.kind = any (kinds)) <> cardinality(kinds) then
    select w.kind into unknown from unnest(kinds) w (kind)
    where not exists (select from public.sync_kinds k where k.kind = w.kind) limit 1;
    if found then
      raise exception using errcode = 'SC002', detail = 'kinds', message = format('no sync kind is named %L', unknown),
        hint = 'save_sync_kind() adds one.';
    end if;
  end if;
end
$$;
comment on function chunk_private.check_kinds is 'Raises SC002, naming it, when one of the kinds does not exist; null passes.';

-- 21_callers.sql

-- Who calls, and what a user may do.

create or replace function chunk_private.is_service()
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- The role that the API has switched to, which a definer function does not change; never the absence of a user id.
  select pg_has_role(case current_setting('role') when 'none' then session_user else current_setting('role')::name end, 'service_role', 'member');
$$;
comment on function chunk_private.is_service is 'Whether the caller acts for the service (service_role, postgres), not for a signed-in user.';

create or replace function chunk_private.signed_in_user()
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  user_id constant uuid := auth.uid();
begin
  if user_id is null then
    raise exception using errcode = '42501', message = 'this needs a signed-in user: the access token names none';
  end if;
  return user_id;
end
$$;
comment on function chunk_private.signed_in_user is 'The caller''s user id; 42501 when there is none.';

create or replace function chunk_private.owner_meant(owner_id uuid)
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if chunk_private.is_service() then
    return owner_id;
  end if;
  if owner_id <> chunk_private.signed_in_user() then
    raise exception using errcode = 'SC003', detail = 'owner_id', message = 'owner_id must be null or your own user id';
  end if;
  return chunk_private.signed_in_user();
end
$$;
comment on function chunk_private.owner_meant is 'For whom the caller acts: for whom the argument says when it is the service, otherwise for themselves.';

create or replace function chunk_private.refuse(job public.sync_jobs, action text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = 'SC005', message = format('the sync job %s is %s: it cannot be %s', (job).id, (job).status, action);
end
$$;
comment on function chunk_private.refuse is 'Raises SC005: not possible in the job''s state.';

-- The limits of a user. The caller holds the user's lock, or parallel calls could slip past them together.

create or replace function chunk_private.check_active_jobs(owner_id uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  most constant int := (select s.user_max_active_jobs from chunk_private.settings s);
begin
  if most <= (select count(*) from public.sync_jobs j where j.owner_id = owner_id and j.status in ('pending', 'running', 'paused')) then
    raise exception using errcode = 'SC004', detail = 'user_max_active_jobs',
      message = format('a user may have %s active jobs (user_max_active_jobs)', most), hint = 'Wait for one to end, or cancel it.';
  end if;
end
$$;
comment on function chunk_private.check_active_jobs is 'Raises SC004 when a user, whose lock the caller has, has as many active jobs as allowed.';

-- What is older does not count: else a project that never purges would refuse its users one day. Of the two parts the first reads
-- sync_jobs_owner, the second the active jobs, however many have ended.
create or replace function chunk_private.kept_chunks(owner_id uuid)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce((
    select sum(greatest(j.total_chunks, 1)) from public.sync_jobs j where j.owner_id = $1 and j.created_at > now() - interval '30 days'
  ), 0)::bigint + coalesce((
    select sum(greatest(j.total_chunks, 1)) from public.sync_jobs j
    where j.owner_id = $1 and j.created_at <= now() - interval '30 days' and j.status in ('pending', 'running', 'paused')
  ), 0)::bigint;
$$;
comment on function chunk_private.kept_chunks is 'The chunks that count towards a user''s user_max_kept_chunks.';

create or replace function chunk_private.check_kept_chunks(owner_id uuid, more bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  most constant int := (select s.user_max_kept_chunks from chunk_private.settings s);
  kept constant bigint := chunk_private.kept_chunks(owner_id);
begin
  if kept + more > most then
    raise exception using errcode = 'SC004', detail = 'user_max_kept_chunks',
      message = format('a user may have %s chunks in 30 days, those of ended jobs too (user_max_kept_chunks): there are %s, and %s would come', most, kept, more),
      hint = 'purge_sync_jobs() deletes jobs that have ended; save_chunk_settings() changes the limit.';
  end if;
end
$$;
comment on function chunk_private.check_kept_chunks is 'Raises SC004 when a user''s jobs would have more chunks than may be kept.';

create or replace function chunk_private.check_webhooks(owner_id uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  most constant int := (select s.user_max_webhooks from chunk_private.settings s);
begin
  if most <= (
    select count(*) from chunk_private.dispatches d
    where d.by_user and d.owner_id = owner_id and d.created_at > now() - interval '1 minute'
  ) then
    raise exception using errcode = 'SC004', detail = 'user_max_webhooks',
      message = format('what a user does may cause %s webhooks a minute (user_max_webhooks)', most), hint = 'Wait a minute.';
  end if;
end
$$;
comment on function chunk_private.check_webhooks is 'Raises SC004 when a user has caused as many webhooks within a minute as allowed.';

create or replace function chunk_private.remember_request(job_id uuid, request_id uuid, call text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  insert into chunk_private.answered_requests (request_id, job_id, call) values (request_id, job_id, call) on conflict do nothing;
  if not chunk_private.is_service() then
    delete from chunk_private.answered_requests r
    where r.job_id = job_id and r.call = call and r.created_at < (
      select n.created_at from chunk_private.answered_requests n
      where n.job_id = job_id and n.call = call
      order by n.created_at desc offset (select greatest(s.user_max_requests, 1) - 1 from chunk_private.settings s) limit 1
    );
  end if;
end
$$;
comment on function chunk_private.remember_request is
  'Remembers that a job has answered a request, so that its repeat does nothing; of a user''s requests the newest only.';

-- 22_locks.sql

-- The gate of a job, and the order of all locks.
--
-- A gate is an advisory lock a job, held to the transaction's end. Shared, by those who move single chunks under way: reports,
-- heartbeats, giving back, recovery. Alone, by those who steer the job or count its free slots: append, seal, cancel, pause,
-- resume, retry, healing, purge, and a report with next_chunks. A claim enters no gate.
--
-- The order in which every function takes its locks, so that no two wait for each other in a circle (function by function in
-- docs/architecture.md, and tests/sql/deadlocks/test_order.py compares):
--   1. of a claim: its claim id (advisory, second part of the key 1); of a user's start: the user (2)
--   2. gates by job id (0)   a user's append, resume and retry take the user's lock after their gate: a start, which has it before, waits for no gate
--   3. slots that wait to be claimed   4. chunks by id   5. counters by (job, stripe)   6. jobs by id
--   7. job by job what a freed slot goes to: that slot, a stripe, returned chunks, slots that wait
--   8. limit keys by name (5), when all slots are passed on. Who has one waits for nothing but the next key, and takes rows with
--      SKIP LOCKED. A claim waits for one key, and only while it has none; others it tries for, as the watchdog does for all
--   9. of who sends webhooks for what waits: one lock for all (3), then slots with SKIP LOCKED
--  10. of who changes settings: one lock for all (4), and nothing else
--  11. of who stores mail: the account (6) beside others; of who marks it gone: the account alone. Before its rows, and nothing else
-- A claim takes its slot with SKIP LOCKED, and then its chunk. One that was claimed before may be held by an outdated report: a
-- claim waits for that if it has nothing but its slot, for which no report waits; else it passes the chunk over (hold_returned).
-- The watchdog only tries for gates, and takes chunks with SKIP LOCKED, each with its slot, which is claimed; purge only tries
-- for gates.
-- Alone in the gate, the order of 3 to 7 is free within the job: cancel takes slots, returned chunks and stripes before
-- chunks, append and a report with next_chunks take stripes before the job, purge deletes as it comes. Whoever else takes these
-- locks must enter the gate first; a claim need not, but has its slot before its chunk, and slots are what cancel and pause
-- wait for before anything else.

-- All of it needs read committed: who has waited for a lock must then see what was committed meanwhile. So each function that
-- takes these locks asks for the level first, and says to the API (default_transaction_isolation) to begin it so.
create or replace function chunk_private.check_isolation(call text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    raise exception using errcode = 'SC005',
      message = format('%s() needs the isolation level read committed: this transaction''s is %s', call, current_setting('transaction_isolation')),
      hint = 'Begin it with: begin transaction isolation level read committed; '
        'or, before it: set default_transaction_isolation = ''read committed'';';
  end if;
end
$$;
comment on function chunk_private.check_isolation is
  'Raises SC005, naming the call, in a transaction above read committed. Claims and reports ask in their own bodies first, for speed.';

create or replace function chunk_private.enter_shared(job_id uuid)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select pg_advisory_xact_lock_shared(uuid_hash_extended($1, 0)); $$;
comment on function chunk_private.enter_shared is
  'Enters a job''s gate beside others, until the transaction''s end: nobody steers the job meanwhile. Reports write the same in their own statement, for speed.';

create or replace function chunk_private.enter_alone(job_id uuid)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select pg_advisory_xact_lock(uuid_hash_extended($1, 0)); $$;
comment on function chunk_private.enter_alone is
  'Enters a job''s gate alone, until the transaction''s end: nobody completes, gives back or recovers its chunks meanwhile.';

create or replace function chunk_private.try_shared(job_id uuid)
returns boolean
language sql
set search_path = pg_catalog, pg_temp
as $$ select pg_try_advisory_xact_lock_shared(uuid_hash_extended($1, 0)); $$;
comment on function chunk_private.try_shared is 'enter_shared for who must not wait: whether it could enter.';

create or replace function chunk_private.try_alone(job_id uuid)
returns boolean
language sql
set search_path = pg_catalog, pg_temp
as $$ select pg_try_advisory_xact_lock(uuid_hash_extended($1, 0)); $$;
comment on function chunk_private.try_alone is 'enter_alone for who must not wait: whether it could enter.';

create or replace function chunk_private.lock_claim(claim_id uuid)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select pg_advisory_xact_lock(uuid_hash_extended($1, 1)); $$;
comment on function chunk_private.lock_claim is 'Makes the repeat of a claim wait for the first, which may still be under way.';

create or replace function chunk_private.lock_user(owner_id uuid)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select pg_advisory_xact_lock(uuid_hash_extended($1, 2)); $$;
comment on function chunk_private.lock_user is 'One at a time a user, so that parallel calls cannot slip past the limits together.';

create or replace function chunk_private.lock_settings()
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select pg_advisory_xact_lock(hashtextextended('supabase-chunks: settings', 4)); $$;
comment on function chunk_private.lock_settings is 'One at a time changes settings.';

create or replace function chunk_private.try_limit(limit_key text)
returns boolean
language sql
set search_path = pg_catalog, pg_temp
as $$ select pg_try_advisory_xact_lock(hashtextextended($1, 5)); $$;
comment on function chunk_private.try_limit is 'Locks a limit key, until the transaction''s end, if nobody has it; says whether it did.';

create or replace function chunk_private.lock_limit(limit_key text)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_advisory_xact_lock(hashtextextended(limit_key, 5));
  return true;
exception when lock_not_available then
  return false;
end
$$;
comment on function chunk_private.lock_limit is 'Locks a limit key, until the transaction''s end; false when somebody else has it for longer than the caller''s lock_timeout.';

-- A transaction that somebody leaves open must not make a report fail: what was not settled, the watchdog does.
create or replace function chunk_private.wait_for_limit(limit_key text)
returns boolean
language sql
set search_path = pg_catalog, pg_temp
set lock_timeout = '2s'
as $$ select chunk_private.lock_limit($1); $$;
comment on function chunk_private.wait_for_limit is 'Locks a limit key, until the transaction''s end; false when somebody else has it for longer than two seconds.';

create or replace function chunk_private.wait_a_moment_for_limit(limit_key text)
returns boolean
language sql
set search_path = pg_catalog, pg_temp
set lock_timeout = '300ms'
as $$ select chunk_private.lock_limit($1); $$;
comment on function chunk_private.wait_a_moment_for_limit is 'The same for a claim: false after three tenths of a second.';

create or replace function chunk_private.enter_own_job(job_id uuid, call text)
returns public.sync_jobs
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job public.sync_jobs;
begin
  perform chunk_private.check_isolation(call);
  select j.* into job from public.sync_jobs j where j.id = job_id;
  if found and (chunk_private.is_service() or job.owner_id is not distinct from chunk_private.signed_in_user()) then
    perform chunk_private.enter_alone(job_id);
    select j.* into job from public.sync_jobs j where j.id = job_id;
  else
    job := null;
  end if;
  if job.id is null then -- there was none, or it was purged while this waited
    raise exception using errcode = 'SC001', message = format('there is no sync job %s', coalesce(job_id::text, '(null)')),
      hint = 'Or it belongs to another user.';
  end if;
  return job;
end
$$;
comment on function chunk_private.enter_own_job is 'Enters the gate of a job that the caller may steer alone, and returns the job; SC001 otherwise. Names the call where it is refused.';

-- 23_payloads.sql

-- What a payload, a checkpoint or a state may be: a JSON object that every reader can read, and not too large; and a result: what
-- every reader can read.
--
-- PostgreSQL takes JSON nested some thousand levels deep, and numbers of a hundred thousand digits. Python's parser and others do
-- not: a worker would claim such a chunk, and die.

create or replace function chunk_private.long_number(value jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with recursive node (path, value) as (
    select '', $1
    union all
    select n.path || i.step, i.value from node n
    cross join lateral (
      select '.' || o.key as step, o.value from jsonb_each(case jsonb_typeof(n.value) when 'object' then n.value end) o
      union all
      select format('[%s]', a.place - 1), a.value
      from jsonb_array_elements(case jsonb_typeof(n.value) when 'array' then n.value end) with ordinality a (value, place)
    ) i
  )
  select left(n.path, 200) from node n where jsonb_typeof(n.value) = 'number' and n.value::text ~ '[0-9]{200}[0-9]{101}' limit 1;
$$;
comment on function chunk_private.long_number is 'The path of a number with more than 300 digits before or after the point, or null.';

-- 101 levels take 202 characters, and 301 digits more: short texts are asked nothing.
create or replace function chunk_private.unreadable_part(value jsonb, written text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if octet_length(written) <= 200 then
    return null;
  elsif jsonb_path_exists(value, 'strict $.**{100} ? (@.type() == "object" || @.type() == "array")') then
    return ' is nested deeper than 100 levels';
  elsif written ~ '[0-9]{200}[0-9]{101}' then
    return chunk_private.long_number(value) || ' is a number of more than 300 digits';
  end if;
  return null;
end
$$;
comment on function chunk_private.unreadable_part is
  'What in a JSON value, given as text too, there are programs that cannot read, to be said after its name; null when nothing is.';

create or replace function chunk_private.payload_flaw(payload jsonb, most_bytes int, out code text, out flaw text)
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  written constant text := payload::text;
begin
  code := 'SC003';
  if jsonb_typeof(payload) <> 'object' then
    flaw := ' must be a JSON object, not ' || jsonb_typeof(payload);
  elsif octet_length(written) > most_bytes then
    code := 'SC004';
    flaw := format(' has %s bytes of JSON; it may have %s', octet_length(written), most_bytes);
  else
    flaw := chunk_private.unreadable_part(payload, written);
  end if;
end
$$;
comment on function chunk_private.payload_flaw is
  'What is wrong with a payload, to be read after its name, and the SQLSTATE to say it with; null when nothing is.';

create or replace function chunk_private.check_result(result jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  written constant text := result::text;
  most constant int := (select s.max_payload_bytes from chunk_private.settings s);
  flaw constant text := chunk_private.unreadable_part(result, written);
begin
  if octet_length(written) > most then
    raise exception using errcode = 'SC004', detail = 'result',
      message = format('result has %s bytes of JSON; it may have %s', octet_length(written), most), hint = 'Keep it in a table of your own.';
  elsif flaw is not null then
    raise exception using errcode = 'SC003', detail = 'result', message = 'result' || flaw;
  end if;
end
$$;
comment on function chunk_private.check_result is
  'Raises SC003 or SC004 for a result that is too large, or that not every reader can read. Reports ask for the length of its text first, for speed.';

create or replace function chunk_private.check_object(argument text, value jsonb, most_bytes int)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  found constant record := chunk_private.payload_flaw(value, most_bytes);
begin
  if found.flaw is not null then
    raise exception using errcode = found.code, detail = argument, message = argument || found.flaw;
  end if;
end
$$;
comment on function chunk_private.check_object is
  'Raises SC003 or SC004, naming the argument, unless it is a JSON object of at most so many bytes, as PostgreSQL writes it, that every reader can read; null passes.';

create or replace function chunk_private.check_chunks(argument text, chunks jsonb, most_bytes int)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  bad record;
begin
  if jsonb_typeof(chunks) <> 'array' then
    raise exception using errcode = 'SC003', detail = argument,
      message = format('%s must be an array of JSON objects, not %s', argument, jsonb_typeof(chunks));
  end if;
  if jsonb_array_length(chunks) > 100000 then
    raise exception using errcode = 'SC004', detail = argument,
      message = format('%s has %s chunks; one call may carry 100000', argument, jsonb_array_length(chunks)),
      hint = 'Start the job with sealed => false and append the others with append_sync_chunks().';
  end if;
  -- One look over all; only where something may be wrong, chunk by chunk.
  if jsonb_path_exists(chunks, 'strict $.**{101} ? (@.type() == "object" || @.type() == "array")') or exists (
    select from jsonb_array_elements(chunks) c (payload)
    cross join lateral (select c.payload::text as written offset 0) w
    where jsonb_typeof(c.payload) <> 'object' or octet_length(w.written) > most_bytes
      or octet_length(w.written) > 300 and w.written ~ '[0-9]{200}[0-9]{101}'
  ) then
    select c.place - 1 as index, f.code, f.flaw into bad
    from jsonb_array_elements(chunks) with ordinality c (payload, place)
    cross join lateral chunk_private.payload_flaw(c.payload, most_bytes) f
    where f.flaw is not null
    order by c.place limit 1;
    if found then
      raise exception using errcode = bad.code, detail = argument, message = format('%s[%s]%s', argument, bad.index, bad.flaw);
    end if;
  end if;
end
$$;
comment on function chunk_private.check_chunks is
  'Raises SC003 or SC004, naming the argument and the index, unless it is an array of at most 100,000 objects of at most so many bytes each that every reader can read.';

-- 30_fresh_and_returned.sql

-- Where chunks stand that have no slot: fresh ones in stripes, returned ones (retries, what a pause took back) by time.

create or replace function chunk_private.line_up(job public.sync_jobs, first_index bigint, past_last bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  with added as materialized (
    select s.stripe, (past_last - f.first + job.stripes - 1) / job.stripes as chunks
    from generate_series(0, job.stripes - 1) s (stripe)
    cross join lateral (select first_index + (s.stripe - first_index % job.stripes + job.stripes) % job.stripes as first) f
    where f.first < past_last
  ),
  counted as (
    update chunk_private.job_counters c
    set open_chunks = c.open_chunks + a.chunks, last_activity_at = now()
    from added a
    join chunk_private.newest_counters n on n.job_id = job.id and n.stripe = a.stripe
    where c.ctid = n.place
    returning c.stripe
  )
  insert into chunk_private.job_counters (job_id, stripe, owner_id, open_chunks)
  select job.id, a.stripe, job.owner_id, a.chunks from added a where a.stripe not in (select c.stripe from counted c);
  with prolonged as (
    update chunk_private.fresh_stripes f
    set end_index = past_last
    from chunk_private.newest_stripes n
    where n.job_id = job.id and f.ctid = n.place
    returning f.stripe
  )
  insert into chunk_private.fresh_stripes (job_id, stripe, next_index, end_index)
  select job.id, s.stripe, first_index + (s.stripe - first_index % job.stripes + job.stripes) % job.stripes, past_last
  from generate_series(0, job.stripes - 1) s (stripe)
  where first_index < past_last and s.stripe not in (select p.stripe from prolonged p);
end
$$;
comment on function chunk_private.line_up is
  'Counts new chunks of a job, from first_index on and below past_last, as open, and lines them up as fresh. The caller is alone in the job''s gate, or has just made the job.';

-- What a free slot goes to, in this order: a returned chunk that is due, a fresh one, else the returned one that is due
-- soonest, which then keeps the slot.

create or replace function chunk_private.take_returned(
  job_id uuid, due_until timestamptz, how_many int, out chunk_indexes bigint[], out ready_ats timestamptz[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  -- Picked in a query of its own: in the delete's `using` it could be run again for each row, and take too many.
  with picked as materialized (
    select w.ready_at, w.chunk_index from chunk_private.returned_chunks w
    where w.job_id = job_id and w.ready_at <= due_until
    order by w.ready_at, w.chunk_index limit how_many for update skip locked
  ),
  taken as (
    delete from chunk_private.returned_chunks r
    using picked t
    where r.job_id = job_id and r.ready_at = t.ready_at and r.chunk_index = t.chunk_index
    returning r.chunk_index, r.ready_at
  )
  select coalesce(array_agg(t.chunk_index), '{}'), coalesce(array_agg(t.ready_at), '{}') into chunk_indexes, ready_ats from taken t;
end
$$;
comment on function chunk_private.take_returned is
  'Takes up to how_many returned chunks of a job that are due by then, the longest due first: their indexes, and from when on each may be claimed.';

create or replace function chunk_private.take_lowest(job public.sync_jobs, how_many int)
returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  chunk_indexes bigint[];
begin
  with lowest as (
    select n.place, c.chunk_index from chunk_private.newest_stripes n
    cross join lateral generate_series(
      n.next_index, least(n.end_index - 1, n.next_index + job.stripes * (how_many - 1)::bigint), job.stripes
    ) c (chunk_index)
    where n.job_id = job.id
    order by c.chunk_index limit how_many
  ),
  moved as (
    update chunk_private.fresh_stripes f
    set next_index = l.last_index + job.stripes
    from (select w.place, max(w.chunk_index) as last_index from lowest w group by w.place) l
    where f.ctid = l.place
  )
  select array_agg(l.chunk_index) into chunk_indexes from lowest l;
  return coalesce(chunk_indexes, '{}');
end
$$;
comment on function chunk_private.take_lowest is 'Takes the up to how_many lowest fresh chunks of a job, and returns their indexes. The caller is alone in the job''s gate.';

create or replace function chunk_private.take_of_stripe(job public.sync_jobs, place tid, how_many int)
returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  held record;
  past_last bigint;
begin
  -- Of this job: since the caller looked, the row may have moved, and another's have taken its place.
  select f.ctid as place, f.next_index, f.end_index into held from chunk_private.fresh_stripes f
  where f.ctid = place and f.job_id = job.id and f.next_index < f.end_index for no key update skip locked;
  if not found then
    return array[]::bigint[];
  end if;
  past_last := least(held.next_index + how_many * job.stripes::bigint, held.end_index);
  update chunk_private.fresh_stripes f
  set next_index = held.next_index + (past_last - held.next_index + job.stripes - 1) / job.stripes * job.stripes
  where f.ctid = held.place;
  return array(select generate_series(held.next_index, past_last - 1, job.stripes));
end
$$;
comment on function chunk_private.take_of_stripe is 'Takes up to how_many fresh chunks of the stripe whose row is there, unless somebody holds it, and returns their indexes.';

-- For reports, of which many come at once: from one stripe, that nobody holds, so that they do not wait for each other; and
-- the chunks of one batch then share a counter when they are reported.
--
-- No slot may be lost, so when others hold all that have some, it waits for one; and only then, for a row that has just moved may be held by
-- ourselves. While it waits, the stripes that it holds are empty, and have been since before it looked for one that is not: so no two
-- wait for each other.
create or replace function chunk_private.take_fresh(job public.sync_jobs, how_many int)
returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  taken bigint[] := array[]::bigint[];
  places tid[];
  tried tid[];
  place tid;
begin
  loop
    places := array(
      select n.place from chunk_private.newest_stripes n
      where n.job_id = job.id and n.next_index < n.end_index
      order by n.next_index + (how_many - 1) * job.stripes >= n.end_index, n.next_index
    );
    exit when places = '{}';
    if places = tried then
      perform chunk_private.hold_stripe(job.id, (
        select f.stripe from chunk_private.fresh_stripes f where f.ctid = places[1] and f.job_id = job.id
      ));
    end if;
    tried := places;
    foreach place in array places loop
      taken := taken || chunk_private.take_of_stripe(job, place, how_many - cardinality(taken));
      exit when cardinality(taken) = how_many;
    end loop;
    exit when cardinality(taken) = how_many;
  end loop;
  return taken;
end
$$;
comment on function chunk_private.take_fresh is 'Takes up to how_many fresh chunks of a job, and returns their indexes.';

create or replace function chunk_private.take_claimable(
  job public.sync_jobs, how_many int, lowest boolean, out chunk_indexes bigint[], out ready_ats timestamptz[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  due constant record := chunk_private.take_returned(job.id, now(), how_many);
  fresh bigint[];
begin
  chunk_indexes := due.chunk_indexes;
  ready_ats := due.ready_ats;
  how_many := how_many - cardinality(chunk_indexes);
  if how_many > 0 then
    fresh := case when lowest then chunk_private.take_lowest(job, how_many) else chunk_private.take_fresh(job, how_many) end;
    chunk_indexes := chunk_indexes || fresh;
    ready_ats := ready_ats || array_fill(now(), array[cardinality(fresh)]);
  end if;
end
$$;
comment on function chunk_private.take_claimable is
  'Takes up to how_many chunks of a job that may be claimed now, of the fresh ones the lowest or any: their indexes, and since when.';

-- 31_slots.sql

-- Slots: handing them out, passing them on, filling free ones.

-- pg_net cannot send later. So the webhook of a retry that is due soon goes out at once, and the processor waits; else the
-- last retries of a job, when no report follows that could start them, would wait for the watchdog.
create or replace function chunk_private.hand_out(
  job public.sync_jobs, chunk_indexes bigint[], ready_ats timestamptz[], first_claim_id uuid, sent_until timestamptz,
  on_their_way bigint[] default '{}', freed bigint[] default '{}'
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  claims constant int := (first_claim_id is not null)::int;
  lane record;
  to_dispatch bigint[] := array[]::bigint[];
begin
  select l.id, k.handler into lane
  from chunk_private.lanes l
  join public.sync_kinds k on k.kind = l.kind
  where l.kind = job.kind and l.priority = job.priority;
  if lane.handler is not null then
    to_dispatch := array(
      select n.chunk_index from unnest(chunk_indexes, ready_ats) with ordinality n (chunk_index, ready_at, place)
      where n.ready_at <= sent_until and n.place > claims and (job.limit_key is null or n.ready_at > now())
    );
  end if;
  with slot as materialized (
    select n.chunk_index, n.ready_at, n.freed, n.place <= claims as claimed, job.limit_key is not null and n.ready_at <= now() as parked,
      case when n.place = 1 then first_claim_id end as claim_id, n.chunk_index = any (to_dispatch) as sends
    from unnest(chunk_indexes, ready_ats, freed) with ordinality n (chunk_index, ready_at, freed, place)
    where n.chunk_index is not null
  ),
  moved as (
    update chunk_private.slots s
    set chunk_index = n.chunk_index, lane = lane.id, ready_at = n.ready_at, claimed = n.claimed, parked = n.parked, limit_key = job.limit_key,
        claim_id = n.claim_id, dispatched_at = case when n.sends then now() end, dispatch_count = n.sends::int
    from slot n
    where s.job_id = job.id and s.chunk_index = n.freed and s.chunk_index = any (freed) -- so written, no others are read
    returning n.chunk_index
  )
  insert into chunk_private.slots (job_id, chunk_index, lane, ready_at, claimed, parked, limit_key, claim_id, dispatched_at, dispatch_count)
  select job.id, n.chunk_index, lane.id, n.ready_at, n.claimed, n.parked, job.limit_key, n.claim_id, case when n.sends then now() end, n.sends::int
  from slot n where n.chunk_index not in (select m.chunk_index from moved m);
  if on_their_way <> '{}' then
    to_dispatch := array(select d.chunk_index from unnest(to_dispatch) d (chunk_index) where d.chunk_index <> all (on_their_way));
  end if;
  if cardinality(to_dispatch) > 0 then
    perform chunk_private.dispatch(job, to_dispatch);
  end if;
end
$$;
comment on function chunk_private.hand_out is
  'Hands out slots: each chunk gets one and, if it may be claimed by sent_until, a webhook, unless one is on its way. With first_claim_id the first one is claimed at once. Those of a job with a limit_key are parked, and their webhook waits for settle_limit(). The slots of freed chunks become theirs.';

-- What a report does with the slots it has freed, under a shared gate: each goes to at most one chunk, so the cap holds
-- without counting.
create or replace function chunk_private.pass_slots_on(job public.sync_jobs, freed bigint[], next_claim_id uuid)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  next record;
  free int;
  later record;
  to_claim bigint;
begin
  if job.status not in ('pending', 'running') then
    delete from chunk_private.slots s where s.job_id = job.id and s.chunk_index = any (freed);
    return null;
  end if;
  if job.limit_key is not null then
    next_claim_id := null; -- it may be another job's turn: settle_report() decides
  end if;
  next := chunk_private.take_claimable(job, cardinality(freed), false);
  free := cardinality(freed) - cardinality(next.chunk_indexes);
  to_claim := case when next_claim_id is not null then next.chunk_indexes[1] end;
  if free > 0 then
    if next_claim_id is not null and to_claim is null then -- claim a chunk that has a slot already
      update chunk_private.slots s
      set claimed = true, claim_id = next_claim_id
      where s.ctid = (
        select w.ctid from chunk_private.slots w
        where w.job_id = job.id and not w.claimed and w.ready_at <= now()
        order by w.ready_at, w.chunk_index limit 1 for no key update skip locked
      )
      returning s.chunk_index into to_claim;
      next_claim_id := null;
    end if;
    -- The free slots wait with retries that are not due.
    later := chunk_private.take_returned(job.id, 'infinity', free);
    next.chunk_indexes := next.chunk_indexes || later.chunk_indexes;
    next.ready_ats := next.ready_ats || later.ready_ats;
  end if;
  if next.chunk_indexes && freed then -- a retry that is due at once: its slot cannot move to itself
    delete from chunk_private.slots s where s.job_id = job.id and s.chunk_index = any (freed);
    freed := '{}';
  end if;
  if cardinality(next.chunk_indexes) > 0 then
    perform chunk_private.hand_out(job, next.chunk_indexes, next.ready_ats, next_claim_id, now() + interval '25 seconds', freed => freed);
  end if;
  delete from chunk_private.slots s
  where s.job_id = job.id and s.chunk_index = any (freed[cardinality(next.chunk_indexes) + 1 :]);
  return to_claim;
end
$$;
comment on function chunk_private.pass_slots_on is
  'Gives the slots of ended chunks to the job''s next ones, if it still runs. With next_claim_id it returns the index of one whose slot it has claimed: the caller starts its attempt.';

-- A handler that is down fails whatever it is given: the slot stays with the chunk that has failed, or lets the next one wait as
-- long, so that the outage costs the chunks in the slots and no others.
create or replace function chunk_private.rest_slot(job public.sync_jobs, freed bigint, attempts int)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  rested_at timestamptz;
  next record;
begin
  delete from chunk_private.slots s where s.job_id = job.id and s.chunk_index = freed;
  if job.status not in ('pending', 'running') then
    return;
  end if;
  delete from chunk_private.returned_chunks r where r.job_id = job.id and r.chunk_index = freed returning r.ready_at into rested_at;
  if found then
    perform chunk_private.hand_out(job, array[freed], array[rested_at], null, now() + interval '25 seconds');
    return;
  end if;
  rested_at := now() + (select chunk_private.backoff(k.retry_delay_seconds, attempts) from public.sync_kinds k where k.kind = job.kind);
  next := chunk_private.take_claimable(job, 1, false);
  if cardinality(next.chunk_indexes) = 0 then
    next := chunk_private.take_returned(job.id, 'infinity', 1);
  end if;
  if cardinality(next.chunk_indexes) > 0 then
    perform chunk_private.hand_out(job, next.chunk_indexes, array[greatest(rested_at, next.ready_ats[1])], null, now());
  end if;
end
$$;
comment on function chunk_private.rest_slot is
  'Lets the slot of a chunk that has failed rest: until that chunk''s retry, or for as long as one would wait.';

-- Or pausing and resuming a job again and again would send as many webhooks.
create or replace function chunk_private.webhooks_on_their_way(job_id uuid)
returns bigint[]
language plpgsql
stable
security definer -- reads pg_net's queue, which service_role may not
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  if not exists (select from chunk_private.dispatches d where d.job_id = job_id) or to_regclass('net.http_request_queue') is null then
    return array[]::bigint[];
  end if;
  return array(
    select q.chunk_index from net.http_request_queue r
    join chunk_private.dispatches d on d.request_id = r.id
    join public.chunk_processing_queue q on q.id = d.chunk_id
    where d.job_id = job_id and d.answered_at is null
  );
exception when others then
  return array[]::bigint[]; -- a pg_net that cannot be looked into
end
$$;
comment on function chunk_private.webhooks_on_their_way is 'Of which chunks of a job pg_net has a webhook that it has not sent yet.';

-- Only alone in the job's gate: of two beside each other each would count the same free slot.
create or replace function chunk_private.fill_slots(job_id uuid)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job public.sync_jobs;
  shared record;
  slots_from bigint;
  free int;
  next record;
  later record;
begin
  select j.* into job from public.sync_jobs j where j.id = job_id and j.status in ('pending', 'running');
  if not found then
    return 0;
  end if;
  shared := chunk_private.limit_of(job.limit_key);
  slots_from := chunk_private.slots_from(job_id);
  -- A chunk in backoff that kept its slot for want of others gives it to those that have come since.
  with later as materialized (
    select w.chunk_index from chunk_private.slots w
    where w.job_id = job_id and w.chunk_index >= slots_from and not w.claimed and w.ready_at > now()
      and (w.limit_key is null or w.ready_at <> shared.opens_at) -- which waits for the end of a block
    for update skip locked
  ),
  given_up as (
    delete from chunk_private.slots s using later l
    where s.job_id = job_id and s.chunk_index = l.chunk_index
    returning s.ready_at, s.chunk_index
  )
  insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
  select job_id, g.ready_at, g.chunk_index from given_up g;
  free := greatest(0, least(job.max_concurrency, shared.most) - (
    select count(*)::int from chunk_private.slots s where s.job_id = job_id and s.chunk_index >= slots_from
  ));
  next := chunk_private.take_claimable(job, free, true);
  later := chunk_private.take_returned(job_id, 'infinity', free - cardinality(next.chunk_indexes));
  next.chunk_indexes := next.chunk_indexes || later.chunk_indexes;
  -- What is not due yet was waited for since it failed, or is the watchdog's: no webhook.
  perform chunk_private.hand_out(job, next.chunk_indexes, next.ready_ats || later.ready_ats, null, now(),
    chunk_private.webhooks_on_their_way(job_id));
  return cardinality(next.chunk_indexes);
end
$$;
comment on function chunk_private.fill_slots is
  'Gives the free slots of a pending or running job to its next chunks, to no more than may be processing of its limit key; returns how many.';

create or replace function chunk_private.forget_slots()
returns trigger
language plpgsql
security definer -- whoever may delete a job need not have rights on what is inside
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from chunk_private.slots s using deleted_jobs d where s.job_id = d.id;
  return null;
end
$$;
comment on function chunk_private.forget_slots is 'Deletes the slots of deleted jobs.';
do $$
begin
  -- Asked first: making a trigger again would wait for all who write jobs.
  if not exists (select from pg_trigger t where t.tgname = 'sync_jobs_forget_slots' and t.tgrelid = 'public.sync_jobs'::regclass) then
    create trigger sync_jobs_forget_slots after delete on public.sync_jobs
      referencing old table as deleted_jobs for each statement execute function chunk_private.forget_slots();
  end if;
end
$$;

-- 32_lanes.sql

-- Lanes: where a claim looks. The claim index is read lane by lane, each as one short range.

create or replace function chunk_private.make_lane(kind text, priority smallint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  insert into chunk_private.lanes (kind, priority)
  select kind, priority
  where not exists (select from chunk_private.lanes l where l.kind = kind and l.priority = priority)
  on conflict on constraint lanes_kind_priority_key do nothing;
end
$$;
comment on function chunk_private.make_lane is 'Makes the lane of a kind and a priority, unless there is one: an insert that finds it would use up a number.';

create or replace function chunk_private.make_lane_of_job()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform chunk_private.make_lane(new.kind, new.priority);
  return null;
end
$$;
comment on function chunk_private.make_lane_of_job is
  'Trigger of sync_jobs: a priority may be changed by hand, and the watchdog moves the slots.';

create or replace function chunk_private.refuse_change()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = 'SC005', message = format('the sync job %s: kind and stripes of a job cannot be changed', new.id),
    hint = 'Cancel it, and start another.';
end
$$;
comment on function chunk_private.refuse_change is 'Trigger of sync_jobs: SC005 for a change by hand of what its chunks and counters are laid out by.';

do $$
begin
  -- Asked first: making a trigger again would wait for all who write jobs.
  if not exists (select from pg_trigger t where t.tgname = 'sync_jobs_make_lane' and t.tgrelid = 'public.sync_jobs'::regclass) then
    create trigger sync_jobs_make_lane after update of priority on public.sync_jobs
      for each row when (new.priority <> old.priority) execute function chunk_private.make_lane_of_job();
  end if;
  if not exists (select from pg_trigger t where t.tgname = 'sync_jobs_refuse_change' and t.tgrelid = 'public.sync_jobs'::regclass) then
    create trigger sync_jobs_refuse_change before update of kind, stripes on public.sync_jobs
      for each row when ((new.kind, new.stripes) is distinct from (old.kind, old.stripes))
      execute function chunk_private.refuse_change();
  end if;
end
$$;

create or replace function chunk_private.kinds_asked_one_by_one()
returns int
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$ select 500; $$;
comment on function chunk_private.kinds_asked_one_by_one is
  'For so many kinds a claim asks each lane whether something waits there; for more it steps through the lanes in which something does.';

create or replace function chunk_private.due_lanes(kinds text[], from_lane bigint, how_many int)
returns bigint[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  -- Some hundred kinds: each of their lanes is asked, so that what waits for others costs nothing
  if cardinality(kinds) <= chunk_private.kinds_asked_one_by_one() then
    return array(
      select l.id
      from (select n.id from chunk_private.lanes n where n.kind = any (kinds) and n.id >= from_lane offset 0) l
      cross join lateral (
        select from chunk_private.slots s where s.lane = l.id and not s.claimed and not s.parked and s.ready_at <= now() order by s.ready_at limit 1
      ) w
      order by l.id limit how_many
    );
  end if;
  -- Else steps from one lane to the next that is in the claim index; what is beyond how_many is not read.
  return array(
    with recursive waiting (lane, ready_at) as (
      (select s.lane, s.ready_at from chunk_private.slots s where not s.claimed and not s.parked and s.lane >= from_lane order by s.lane, s.ready_at limit 1)
      union all
      select n.lane, n.ready_at from waiting w
      cross join lateral (
        select s.lane, s.ready_at from chunk_private.slots s where not s.claimed and not s.parked and s.lane > w.lane order by s.lane, s.ready_at limit 1
      ) n
    )
    select w.lane from waiting w
    where w.ready_at <= now() and exists (
      select from chunk_private.lanes l
      join public.sync_kinds k on k.kind = l.kind
      where l.id = w.lane and case when kinds is null then k.handler is not null else k.kind = any (kinds) end
    )
    limit how_many
  );
end
$$;
comment on function chunk_private.due_lanes is
  'The first lanes, from one on, in which chunks of these kinds may be claimed; with null of those that have a handler.';

-- A claim that tried each of thousands of lanes would take long, and so would one that listed all in which something waits.
-- So it takes four of these: all, if there are no more, else of the highest priority some from a random one on.
create or replace function chunk_private.lanes_to_search(inout kinds text[], job_id uuid, out lanes bigint[])
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  within constant bigint := 4294967296;
  first_lane bigint;
  further bigint[];
begin
  perform chunk_private.check_kinds(kinds);
  if job_id is not null then
    kinds := array(
      select k.kind from public.sync_jobs j
      join public.sync_kinds k on k.kind = j.kind
      where j.id = job_id and case when kinds is null then k.handler is not null else k.kind = any (kinds) end
    );
    return;
  elsif kinds is null then
    kinds := array(select k.kind from public.sync_kinds k where k.handler is not null limit chunk_private.kinds_asked_one_by_one() + 1);
    if cardinality(kinds) > chunk_private.kinds_asked_one_by_one() then
      kinds := null;
    end if;
  end if;
  if cardinality(kinds) < 65 then
    return;
  end if;
  lanes := chunk_private.due_lanes(kinds, 0, 5);
  if cardinality(lanes) = 5 then
    first_lane := lanes[1] - lanes[1] % within;
    first_lane := first_lane + floor(random() * (
      select l.id - first_lane from chunk_private.lanes l where l.id < first_lane + within order by l.id desc limit 1
    ))::bigint;
    further := chunk_private.due_lanes(kinds, first_lane, 4);
    if further[1] / within = first_lane / within then
      lanes := further;
    end if;
  end if;
  kinds := array(select l.kind from chunk_private.lanes l where l.id = any (lanes));
end
$$;
comment on function chunk_private.lanes_to_search is
  'Where a claim looks: in the lanes of the kinds named, or with null of those that have a handler, or of its job''s; where there are many kinds, in some lanes with chunks that may be claimed. SC002 when there is no such kind.';

-- While somebody's long query holds an old snapshot, dead index entries of finished chunks pile up before the first live
-- one. Each session therefore remembers, a lane, from which time on it last found chunks, and starts there; it
-- looks from the very beginning when it finds too few, and once a second, for chunks committed late; or, when such a look takes
-- long, less often, so that looking never takes more than a hundredth of the time. A twentieth of a second is near enough
-- for the floor, and spares most claims the write.
create view chunk_private.wanted_view
with (security_invoker = true)
as
select l.id, l.kind, l.priority, k.handler, k.lease_seconds,
  coalesce(case
    when now() < to_timestamp(split_part(r.remembered, ' ', 2)::float8) then to_timestamp(split_part(r.remembered, ' ', 1)::float8)
  end, '-infinity') as floor
from chunk_private.lanes l
join public.sync_kinds k on k.kind = l.kind
cross join lateral (select nullif(current_setting('chunk_private.floor_' || l.id, true), '') as remembered) r;

select chunk_private.replace_view('chunk_private.claim_lanes');
comment on view chunk_private.claim_lanes is 'Where a claim looks, with what it needs to know of the kind.';
comment on column chunk_private.claim_lanes.handler is 'The kind''s.';
comment on column chunk_private.claim_lanes.lease_seconds is 'The kind''s.';
comment on column chunk_private.claim_lanes.floor is 'The ready_at from which on this session last found chunks there; -infinity when it is time to look at all.';

create or replace function chunk_private.remember_floor(lane bigint, found_at timestamptz, looked_at_all boolean)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  setting constant text := 'chunk_private.floor_' || lane;
begin
  perform set_config(setting, (extract(epoch from found_at)::float8 - 0.001) || ' ' || case
    when looked_at_all then (
      extract(epoch from now())::float8 + least(60, greatest(1, 100 * extract(epoch from clock_timestamp() - statement_timestamp())::float8))
    )::text
    else split_part(current_setting(setting), ' ', 2)
  end, false);
end
$$;
comment on function chunk_private.remember_floor is 'Remembers for this session at which ready_at a claim has found chunks of a lane, and when to look at all of it again.';

-- 33_limits.sql

-- Limits: how many chunks of all jobs with one limit_key may be processing, and whose turn it is.
--
-- A slot of such a job is born parked, where no claim sees it. settle_limit wakes slots, the longest parked first, and is the last
-- act of whatever makes, frees or deletes slots. What it brings about is a level: in each lane at least as many slots are awake
-- and due as there is room for. So whatever a claim looks for, it finds a slot while there is room; and the claim counts again,
-- under the key's lock, and parks what there is no room for. Room is counted from the claimed slots: there is no counter to drift.

create or replace function chunk_private.limit_of(limit_key text, out most int, out opens_at timestamptz)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  select l.max_concurrency, case when l.blocked_until > now() then least(l.blocked_until, now() + interval '7 days') end into most, opens_at
  from public.sync_limits l where l.key = limit_key;
  opens_at := coalesce(opens_at, now());
  if most is null then
    most := (select min(k.limit_each) from public.sync_kinds k where k.limit_each is not null and starts_with(limit_key, k.kind || ':'));
  end if;
end
$$;
comment on function chunk_private.limit_of is
  'How many chunks of a limit key may be processing at once (null: any number), and from when on they may be claimed.';

create or replace function chunk_private.limit_key_of(job public.sync_jobs, limit_by text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when limit_by = 'owner_id' then (job).kind || ':' || coalesce((job).owner_id::text, '')
    when limit_by is not null then (job).kind || ':' || coalesce((job).owner_id::text, '') || ':' || case
      when length(v.value) > 200 then left(v.value, 100) || ':' || md5(v.value) else coalesce(v.value, '') end
  end
  from (select (job).payload ->> limit_by as value) v;
$$;
comment on function chunk_private.limit_key_of is 'The key that a kind''s limit_by gives to a job: kind:owner:value, or kind:owner. No user can make one of another owner.';

create or replace function chunk_private.limit_key_meant(limit_key text, job public.sync_jobs, limit_by text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if limit_key is not null and not chunk_private.is_service() then
    raise exception using errcode = 'SC003', detail = 'limit_key',
      message = 'limit_key is for the service: a user''s job has the one that its kind''s limit_by makes';
  elsif length(limit_key) not between 1 and 500 then
    raise exception using errcode = 'SC003', detail = 'limit_key', message = 'limit_key must be a text of 1 to 500 characters, or null';
  end if;
  return coalesce(limit_key, chunk_private.limit_key_of(job, limit_by));
end
$$;
comment on function chunk_private.limit_key_meant is 'The limit key of a new job: the one given, which only the service may, else its kind''s.';

-- Steps from lane to lane through the index: of a thousand parked slots it reads one a lane.
create or replace function chunk_private.limit_lanes(limit_key text, parked boolean)
returns setof bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  lane bigint := (select min(s.lane) from chunk_private.slots s where s.limit_key = limit_key and not s.claimed and s.parked = parked);
begin
  while lane is not null loop
    return next lane;
    lane := (
      select min(s.lane) from chunk_private.slots s
      where s.limit_key = limit_key and not s.claimed and s.parked = parked and s.lane > lane
    );
  end loop;
end
$$;
comment on function chunk_private.limit_lanes is 'The lanes in which slots of a limit key wait, parked or awake.';

create or replace function chunk_private.limit_used(limit_key text)
returns int
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  return (select count(*)::int from chunk_private.slots s where s.limit_key = limit_key and s.claimed);
end
$$;
comment on function chunk_private.limit_used is 'How many chunks of a limit key are processing.';

create or replace function chunk_private.slots_to_wake(limit_key text)
returns table (lane bigint, how_many int, wakes_at timestamptz)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  rules constant record := chunk_private.limit_of(limit_key);
  room constant int := rules.most - chunk_private.limit_used(limit_key); -- null: without end
begin
  if room <= 0 then
    return;
  end if;
  wakes_at := rules.opens_at;
  for lane in select l.lane from chunk_private.limit_lanes(limit_key, true) l (lane) loop
    how_many := room - (
      select count(*) from (
        select from chunk_private.slots s
        where s.limit_key = limit_key and s.claimed < true and not s.parked -- so written, it is not read by the claim index
          and s.lane = lane and s.ready_at <= rules.opens_at
        limit room
      ) a
    );
    if how_many > 0 or room is null then
      return next;
    end if;
  end loop;
end
$$;
comment on function chunk_private.slots_to_wake is
  'In which lanes fewer slots of a limit key are awake than there is room for: how many are missing (null: all), and from when on they may be claimed.';

-- A job that somebody deletes just now is left alone: a webhook for it would wait for that.
create or replace function chunk_private.wake_slots(limit_key text, lane bigint, how_many int, wakes_at timestamptz)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
as $$
#variable_conflict use_variable
declare
  job_ids uuid[];
  chunk_indexes bigint[];
  calls uuid[] := array[]::uuid[];
begin
  select array_agg(p.job_id), array_agg(p.chunk_index) into job_ids, chunk_indexes
  from (
    select s.job_id, s.chunk_index from chunk_private.slots s
    where s.limit_key = limit_key and not s.claimed and s.parked and s.lane = lane
    order by s.ready_at, s.chunk_index limit how_many for update skip locked
  ) p;
  if job_ids is null then
    return;
  end if;
  if wakes_at <= now() + interval '25 seconds' and exists (
    select from chunk_private.lanes l join public.sync_kinds k on k.kind = l.kind where l.id = lane and k.handler is not null
  ) then
    calls := array(select j.id from public.sync_jobs j where j.id = any (job_ids) for key share skip locked);
  end if;
  update chunk_private.slots s
  set parked = false, ready_at = wakes_at, dispatched_at = case when s.job_id = any (calls) then now() end,
      dispatch_count = (s.job_id = any (calls))::int
  from unnest(job_ids, chunk_indexes) w (job_id, chunk_index)
  where s.job_id = w.job_id and s.chunk_index = w.chunk_index;
  perform chunk_private.dispatch(j, w.chunk_indexes)
  from (
    select u.job_id, array_agg(u.chunk_index) as chunk_indexes
    from unnest(job_ids, chunk_indexes) u (job_id, chunk_index)
    where u.job_id = any (calls)
    group by u.job_id
  ) w
  join public.sync_jobs j on j.id = w.job_id;
end
$$;
comment on function chunk_private.wake_slots is
  'Wakes the longest parked slots of a limit key in a lane, with a webhook each if they may be claimed now or soon.';

create or replace function chunk_private.settle_limit(limit_key text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
  perform chunk_private.wake_slots(limit_key, w.lane, w.how_many, w.wakes_at) from chunk_private.slots_to_wake(limit_key) w;
end
$$;
comment on function chunk_private.settle_limit is
  'Leaves, in each lane, at least as many slots of a limit key awake as there is room for. The caller has the key''s lock.';

create or replace function chunk_private.settle_limits(limit_keys text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  limit_key text;
begin
  for limit_key in select distinct k.key from unnest(limit_keys) k (key) where k.key is not null order by k.key loop
    if chunk_private.wait_for_limit(limit_key) then
      perform chunk_private.settle_limit(limit_key);
    end if;
  end loop;
end
$$;
comment on function chunk_private.settle_limits is
  'settle_limit for several keys, nulls left out: the last act of what makes, frees or deletes slots. A key that somebody holds for long is left to the watchdog.';

-- Who makes room goes on with its own job only when no other has waited longer, or there is room for that one too.
create or replace function chunk_private.claim_in_turn(limit_key text, job_id uuid, next_claim_id uuid)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  rules constant record := chunk_private.limit_of(limit_key);
  room constant int := rules.most - chunk_private.limit_used(limit_key);
  within constant bigint := 4294967296; -- a lane's id follows its priority
  own record;
begin
  if rules.opens_at > now() or room <= 0 then
    return null;
  end if;
  select s.ctid as place, s.lane, s.parked, s.ready_at, s.chunk_index into own from chunk_private.slots s
  where s.job_id = job_id and not s.claimed and s.ready_at <= now()
  order by s.parked, s.ready_at, s.chunk_index limit 1 for no key update skip locked;
  if not found or room <= (
    select count(*) from (
      select from chunk_private.slots s
      where s.limit_key = limit_key and not s.claimed and s.ready_at <= now()
        and (s.lane / within, s.parked, s.ready_at, s.chunk_index, s.job_id) < (own.lane / within, own.parked, own.ready_at, own.chunk_index, job_id)
      limit room
    ) earlier
  ) then
    return null;
  end if;
  update chunk_private.slots s set claimed = true, parked = false, claim_id = next_claim_id where s.ctid = own.place;
  return own.chunk_index;
end
$$;
comment on function chunk_private.claim_in_turn is
  'Claims the slot of a job that has waited longest, if it is its turn among those of the limit key, and returns its index. The caller has the key''s lock.';

-- 40_claim.sql

-- Claim: take a chunk that waits, with a fencing token and a lease.

do $$
begin
  if to_regtype('chunk_private.claimed_chunk') is null then
    create type chunk_private.claimed_chunk as (
      chunk_id bigint,
      parent_sync_job_id uuid,
      kind text,
      handler text,
      chunk_index bigint,
      attempt int,
      max_attempts int,
      payload jsonb,
      job_payload jsonb,
      owner_id uuid,
      claim_token uuid,
      locked_until timestamptz,
      checkpoint jsonb,
      limit_key text
    );
  end if;
end
$$;
comment on type chunk_private.claimed_chunk is 'What a worker gets when it claims a chunk.';

create or replace function chunk_private.claimed_by(claim_id uuid)
returns chunk_private.claimed_chunk[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  return array(
    select row(q.id, q.parent_sync_job_id, q.kind, k.handler, q.chunk_index, q.attempts, 1 + q.max_retries, coalesce(q.payload, j.payload), j.payload,
      q.owner_id, q.claim_token, q.locked_until, q.checkpoint, j.limit_key)::chunk_private.claimed_chunk
    from chunk_private.slots s
    join public.chunk_processing_queue q on q.parent_sync_job_id = s.job_id and q.chunk_index = s.chunk_index
    join public.sync_jobs j on j.id = s.job_id
    join public.sync_kinds k on k.kind = j.kind
    where s.claim_id = claim_id and s.claimed
    order by s.ready_at, s.chunk_index
  );
end
$$;
comment on function chunk_private.claimed_by is 'What an earlier claim with this id took and still has.';

create or replace function chunk_private.begin_claim(worker_id text, parent_sync_job_id uuid, lease_seconds int, claim_id uuid)
returns chunk_private.claimed_chunk[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  if worker_id is null or length(worker_id) not between 1 and 200 then
    raise exception using errcode = 'SC003', detail = 'worker_id', message = 'worker_id must be a text of 1 to 200 characters';
  end if;
  if lease_seconds not between 1 and 86400 then
    perform chunk_private.check_range('lease_seconds', lease_seconds, 1, 86400);
  end if;
  -- Nested: a condition with a query in it runs as a query, also for the claims that name no job.
  if parent_sync_job_id is not null then
    if not exists (select from public.sync_jobs j where j.id = parent_sync_job_id) then
      raise exception using errcode = 'SC001', message = format('there is no sync job %s', parent_sync_job_id);
    end if;
  end if;
  if claim_id is null then
    return array[]::chunk_private.claimed_chunk[];
  end if;
  perform chunk_private.lock_claim(claim_id);
  return chunk_private.claimed_by(claim_id);
end
$$;
comment on function chunk_private.begin_claim is 'Checks a claim''s arguments; returns what an earlier claim with the same id has.';

-- With SKIP LOCKED, since a claim must not wait; whoever holds the row either does the same or is a control operation that
-- knows better, and the next claim finds what is left.
create or replace function chunk_private.start_jobs(job_ids uuid[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  update public.sync_jobs j
  set status = 'running', started_at = now()
  where j.id = any (array(
    select s.id from public.sync_jobs s where s.id = any (job_ids) and s.status = 'pending' for no key update skip locked
  ));
end
$$;
comment on function chunk_private.start_jobs is 'Makes pending jobs running: a chunk of theirs is claimed.';

-- The slot is the caller's already, and nobody else writes a pending chunk without its slot.
create or replace function chunk_private.start_attempt(
  job_id uuid, chunk_index bigint, worker text, handler text, lease_seconds int, waits boolean
)
returns chunk_private.claimed_chunk
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  chunk record;
begin
  update public.chunk_processing_queue q
  set status = 'processing', attempts = least(q.attempts, q.max_retries) + 1, claim_token = gen_random_uuid(), worker_id = worker,
      locked_until = now() + make_interval(secs => lease_seconds), started_at = now(), updated_at = now()
  from public.sync_jobs j
  where j.id = job_id and q.parent_sync_job_id = job_id and q.chunk_index = chunk_index
    and (waits or q.started_at is null or chunk_private.hold_returned(job_id, chunk_index))
  returning q.id, q.kind, q.attempts, q.max_retries, q.payload, q.owner_id, q.claim_token, q.locked_until, q.checkpoint,
    j.payload as job_payload, j.status as job_status, j.limit_key into chunk;
  if not found then -- or, if it may wait, deleted by somebody: its slot stays claimed, and no other claim finds it
    if not waits then
      perform chunk_private.unclaim(array[job_id], array[chunk_index]);
    end if;
    return null;
  end if;
  if chunk.job_status = 'pending' then
    perform chunk_private.start_jobs(array[job_id]);
  end if;
  return row(chunk.id, job_id, chunk.kind, handler, chunk_index, chunk.attempts, 1 + chunk.max_retries, coalesce(chunk.payload, chunk.job_payload),
    chunk.job_payload,
    chunk.owner_id, chunk.claim_token, chunk.locked_until, chunk.checkpoint, chunk.limit_key);
end
$$;
comment on function chunk_private.start_attempt is 'Claims the chunk of a slot that the caller has claimed; null when it cannot be held and the caller may not wait.';

-- Generic plans: a plan made anew for each list of ids costs more than the claim. And no sequential scans: a plan made
-- while the tables were empty must not meet them full.
-- And no compiling: up to PostgreSQL 17 a scan that is forbidden counts as so dear that each new plan would be compiled.
--
-- A slot is taken by its ctid, since nobody moves a slot that is not claimed but the watchdog, which then sends another
-- webhook for it. Kinds of one priority come in random order, so that none waits for ever behind a busy one.
create or replace function public.claim_next_chunk_job_safe(
  worker_id text, parent_sync_job_id uuid default null, kinds text[] default null, lease_seconds int default null, claim_id uuid default null
)
returns setof chunk_private.claimed_chunk
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  earlier chunk_private.claimed_chunk[];
  lanes bigint[];
  lane record;
  floor timestamptz;
  slot record;
  claimed chunk_private.claimed_chunk;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    perform chunk_private.check_isolation('claim_next_chunk_job_safe');
  end if;
  if num_nonnulls(parent_sync_job_id, lease_seconds, claim_id) > 0 or (length(worker_id) between 1 and 200) is not true then
    earlier := chunk_private.begin_claim(worker_id, parent_sync_job_id, lease_seconds, claim_id);
    if cardinality(earlier) > 0 then
      return next earlier[1];
      return;
    end if;
  end if;
  if cardinality(kinds) is distinct from 1 then -- one is checked below, if nothing was found
    select s.kinds, s.lanes into kinds, lanes from chunk_private.lanes_to_search(kinds, parent_sync_job_id) s;
  end if;
  for lane in
    select l.id, l.handler, coalesce(lease_seconds, l.lease_seconds) as lease_seconds, l.floor
    from chunk_private.claim_lanes l
    where l.kind = any (kinds) and (lanes is null or l.id = any (lanes)) order by l.priority desc, random()
  loop
    floor := case when parent_sync_job_id is null then lane.floor else '-infinity' end;
    loop
      if parent_sync_job_id is null then
        update chunk_private.slots s
        set claimed = true, claim_id = claim_next_chunk_job_safe.claim_id
        where s.ctid = (
          select p.ctid from chunk_private.slots p
          where p.lane = lane.id and not p.claimed and not p.parked and p.ready_at >= floor and p.ready_at <= now()
          order by p.ready_at, p.chunk_index limit 1 for no key update skip locked
        )
        returning s.job_id, s.chunk_index, s.ready_at, s.limit_key into slot;
      else
        update chunk_private.slots s
        set claimed = true, claim_id = claim_next_chunk_job_safe.claim_id
        where s.ctid = (
          select p.ctid from chunk_private.slots p
          where p.job_id = parent_sync_job_id and p.chunk_index >= chunk_private.slots_from(parent_sync_job_id) and p.lane = lane.id
            and (p.claimed or p.parked) is false and p.ready_at <= now() -- so written, it is not read by the claim index
          order by p.ready_at, p.chunk_index limit 1 for no key update skip locked
        )
        returning s.job_id, s.chunk_index, s.ready_at, s.limit_key into slot;
      end if;
      if found then
        if slot.ready_at > floor + interval '50 milliseconds' and parent_sync_job_id is null then
          perform chunk_private.remember_floor(lane.id, slot.ready_at, floor = '-infinity');
        end if;
        if slot.limit_key is not null then -- who claims many asks whether there is room
          perform chunk_private.unclaim(array[slot.job_id], array[slot.chunk_index]);
          return query select c.* from unnest(chunk_private.claim_in_lanes(worker_id, 1, parent_sync_job_id, kinds, lanes, lease_seconds, claim_id)) c;
          return;
        end if;
        claimed := chunk_private.start_attempt(slot.job_id, slot.chunk_index, worker_id, lane.handler, lane.lease_seconds, true);
        if claimed.chunk_id is not null then
          return next claimed;
          return;
        end if;
      else
        exit when floor = '-infinity';
        floor := '-infinity';
      end if;
    end loop;
  end loop;
  perform chunk_private.check_kinds(kinds);
  return query select c.* from unnest(case when parent_sync_job_id is not null then
    chunk_private.claim_by_job(worker_id, 1, parent_sync_job_id, kinds, lease_seconds, claim_id) end) c;
end
$$;
comment on function public.claim_next_chunk_job_safe is
  'Claims the next chunk: 0 or 1 rows. kinds null means the kinds that have a handler. lease_seconds null means the kind''s. A claim repeated with the same claim_id returns the chunk that it already has.';

-- 41_claim_many.sql

-- Claiming many chunks at once: the same as a claim, set by set.

-- Reports and heartbeats that had to wait for a chunk, and then find their claim outdated, have locked it all the same until
-- they end, and may meanwhile wait for other chunks. So a claim that has locks which they could wait for (of other chunks, of
-- counters) waits for no chunk.
create or replace function chunk_private.hold_returned(job_id uuid, chunk_index bigint)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  perform 1 from public.chunk_processing_queue q
  where q.parent_sync_job_id = job_id and q.chunk_index = chunk_index for no key update skip locked;
  return found;
end
$$;
comment on function chunk_private.hold_returned is
  'Locks a chunk that was claimed before, unless somebody with an outdated claim holds it just now; says whether it did.';

create or replace function chunk_private.unclaim(job_ids uuid[], chunk_indexes bigint[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
as $$
#variable_conflict use_variable
begin
  update chunk_private.slots s
  set claimed = false, claim_id = null
  from unnest(job_ids, chunk_indexes) t (job_id, chunk_index)
  where s.job_id = t.job_id and s.chunk_index = t.chunk_index;
end
$$;
comment on function chunk_private.unclaim is 'Gives back the slots of chunks that could not be held.';

create or replace function chunk_private.take_slots(
  lane bigint, floor timestamptz, how_many int, parent_sync_job_id uuid, with_claim_id uuid, out job_ids uuid[], out chunk_indexes bigint[],
  out limited boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  taken record;
begin
  floor := case when parent_sync_job_id is null then floor else '-infinity' end;
  limited := false;
  loop
    with slot as (
      update chunk_private.slots s
      set claimed = true, claim_id = with_claim_id
      where s.ctid = any (case when parent_sync_job_id is null then array(
          select p.ctid from chunk_private.slots p
          where p.lane = lane and not p.claimed and not p.parked and p.ready_at >= floor and p.ready_at <= now()
          order by p.ready_at, p.chunk_index limit how_many for no key update skip locked
        ) else array(
          select p.ctid from chunk_private.slots p
          where p.job_id = parent_sync_job_id and p.chunk_index >= chunk_private.slots_from(parent_sync_job_id) and p.lane = lane
            and (p.claimed or p.parked) is false and p.ready_at <= now() -- so written, it is not read by the claim index
          order by p.ready_at, p.chunk_index limit how_many for no key update skip locked
        ) end)
      returning s.job_id, s.chunk_index, s.ready_at, s.limit_key
    )
    select array_agg(t.job_id order by t.ready_at, t.chunk_index) as job_ids,
      array_agg(t.chunk_index order by t.ready_at, t.chunk_index) as chunk_indexes, count(*)::int as slots, max(t.ready_at) as newest,
      count(t.limit_key) > 0 as limited
    into taken from slot t;
    job_ids := job_ids || taken.job_ids;
    chunk_indexes := chunk_indexes || taken.chunk_indexes;
    limited := limited or taken.limited;
    how_many := how_many - taken.slots;
    if taken.newest > floor + interval '50 milliseconds' and parent_sync_job_id is null then
      perform chunk_private.remember_floor(lane, taken.newest, floor = '-infinity');
    end if;
    exit when how_many = 0 or floor = '-infinity';
    floor := '-infinity';
  end loop;
end
$$;
comment on function chunk_private.take_slots is 'Claims the slots of up to how_many claimable chunks of a lane, those that wait longest first, and returns whose they are, or nulls; limited: whether one has a limit key.';

create or replace function chunk_private.start_attempts(
  job_ids uuid[], chunk_indexes bigint[], worker text, handler text, lease_seconds int
)
returns chunk_private.claimed_chunk[]
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
as $$
#variable_conflict use_variable
declare
  claimed chunk_private.claimed_chunk[];
  starting uuid[];
begin
  with chunk as (
    update public.chunk_processing_queue q
    set status = 'processing', attempts = least(q.attempts, q.max_retries) + 1, claim_token = gen_random_uuid(), worker_id = worker,
        locked_until = now() + make_interval(secs => lease_seconds), started_at = now(), updated_at = now()
    from unnest(job_ids, chunk_indexes) with ordinality t (job_id, chunk_index, place)
    cross join lateral (select j.payload, j.limit_key, j.status from public.sync_jobs j where j.id = t.job_id limit 1) j
    where q.parent_sync_job_id = t.job_id and q.chunk_index = t.chunk_index
      and (q.started_at is null or chunk_private.hold_returned(t.job_id, t.chunk_index)) -- of t: after the join, not for all chunks
    returning q.id, q.parent_sync_job_id, q.kind, q.chunk_index, q.attempts, q.max_retries, q.payload, j.payload as job_payload,
      q.owner_id, q.claim_token, q.locked_until, q.checkpoint, j.limit_key, j.status as job_status, t.place
  )
  select
    coalesce(array_agg(row(c.id, c.parent_sync_job_id, c.kind, handler, c.chunk_index, c.attempts, 1 + c.max_retries, coalesce(c.payload, c.job_payload),
      c.job_payload, c.owner_id, c.claim_token, c.locked_until, c.checkpoint, c.limit_key)::chunk_private.claimed_chunk order by c.place), '{}'),
    array_agg(c.parent_sync_job_id) filter (where c.job_status = 'pending')
  into claimed, starting
  from chunk c;
  if starting is not null then
    perform chunk_private.start_jobs(starting);
  end if;
  if cardinality(claimed) < cardinality(job_ids) then
    perform chunk_private.unclaim(array_agg(t.job_id), array_agg(t.chunk_index))
    from unnest(job_ids, chunk_indexes) t (job_id, chunk_index)
    where (t.job_id, t.chunk_index) not in (select c.parent_sync_job_id, c.chunk_index from unnest(claimed) c);
  end if;
  return claimed;
end
$$;
comment on function chunk_private.start_attempts is 'What start_attempt does, for many chunks: in the order given, without those that cannot be held.';

create or replace function public.claim_chunk_jobs_safe(
  worker_id text, batch_size int, parent_sync_job_id uuid default null, kinds text[] default null, lease_seconds int default null,
  claim_id uuid default null
)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  earlier constant chunk_private.claimed_chunk[] := chunk_private.begin_claim(worker_id, parent_sync_job_id, lease_seconds, claim_id);
  asked_kinds constant text[] := kinds;
  lanes bigint[];
  claimed chunk_private.claimed_chunk[];
begin
  perform chunk_private.check_isolation('claim_chunk_jobs_safe');
  perform chunk_private.check_range('batch_size', coalesce(batch_size, 0), 1, 100);
  if cardinality(earlier) > 0 then
    return to_jsonb(earlier);
  end if;
  if cardinality(kinds) is distinct from 1 then -- one is checked below, if nothing was found
    select s.kinds, s.lanes into kinds, lanes from chunk_private.lanes_to_search(kinds, parent_sync_job_id) s;
  end if;
  claimed := chunk_private.claim_in_lanes(worker_id, batch_size, parent_sync_job_id, kinds, lanes, lease_seconds, claim_id);
  if claimed = '{}' and parent_sync_job_id is not null then
    claimed := chunk_private.claim_by_job(worker_id, batch_size, parent_sync_job_id, kinds, lease_seconds, claim_id);
  end if;
  if claimed = '{}' then
    perform chunk_private.check_kinds(kinds);
    perform chunk_private.say_when_to_ask_again(asked_kinds, parent_sync_job_id);
  end if;
  return to_jsonb(claimed);
end
$$;
comment on function public.claim_chunk_jobs_safe is
  'Claims up to batch_size (at most 100) chunks at once: a JSON array of what claim_next_chunk_job_safe returns. When there are none, but some wait for a place of their limit key, the API''s header Chunks-Ask-Again-Ms says when to ask again.';

-- 42_claim_limited.sql

-- Claiming chunks that share limits: what a claim does with the keys of the slots that it has taken.
--
-- A claim tries for each key. What it does not get it puts aside, so that it goes on to other chunks; and when there are none it
-- waits for one key, having no other. Under the lock it counts: what there is no room for is parked.

create or replace function chunk_private.keep_within_limits(
  inout job_ids uuid[], inout chunk_indexes bigint[], inout held text[], out aside_jobs uuid[], out aside_indexes bigint[], out parked boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
as $$
#variable_conflict use_variable
declare
  taken record;
  rules record;
  room int;
  kept_jobs uuid[] := array[]::uuid[];
  kept_indexes bigint[] := array[]::bigint[];
begin
  aside_jobs := array[]::uuid[];
  aside_indexes := array[]::bigint[];
  parked := false;
  for taken in
    select s.limit_key, array_agg(s.job_id order by t.place) as jobs, array_agg(s.chunk_index order by t.place) as indexes, count(*)::int as slots
    from unnest(job_ids, chunk_indexes) with ordinality t (job_id, chunk_index, place)
    join chunk_private.slots s on s.job_id = t.job_id and s.chunk_index = t.chunk_index
    group by s.limit_key
    order by s.limit_key
  loop
    if taken.limit_key is null then
      room := taken.slots;
    elsif taken.limit_key = any (held) or chunk_private.try_limit(taken.limit_key) then
      held := array_remove(held, taken.limit_key) || taken.limit_key;
      rules := chunk_private.limit_of(taken.limit_key);
      room := case
        when rules.opens_at > now() then 0
        when rules.most is null then taken.slots
        -- Those taken are claimed already.
        else greatest(0, least(taken.slots, rules.most - chunk_private.limit_used(taken.limit_key) + taken.slots))
      end;
      if room < taken.slots then
        update chunk_private.slots s
        set claimed = false, claim_id = null, parked = true
        from unnest(taken.jobs[room + 1:], taken.indexes[room + 1:]) t (job_id, chunk_index)
        where s.job_id = t.job_id and s.chunk_index = t.chunk_index;
        parked := true;
      end if;
    else
      room := 0;
      aside_jobs := aside_jobs || taken.jobs;
      aside_indexes := aside_indexes || taken.indexes;
    end if;
    kept_jobs := kept_jobs || taken.jobs[:room];
    kept_indexes := kept_indexes || taken.indexes[:room];
  end loop;
  job_ids := kept_jobs;
  chunk_indexes := kept_indexes;
end
$$;
comment on function chunk_private.keep_within_limits is
  'Of slots that a claim has taken, keeps those that their limit keys have room for, and parks the others; those whose key somebody has are put aside. held: the keys that the claim has.';

create or replace function chunk_private.wait_for_room(
  inout job_ids uuid[], inout chunk_indexes bigint[], inout held text[], how_many int, out parked boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  first record;
  kept record;
begin
  -- Those of the first one's key and lane; the others are given back.
  select s.limit_key, s.lane into first from chunk_private.slots s where s.job_id = job_ids[1] and s.chunk_index = chunk_indexes[1];
  perform chunk_private.unclaim(array_agg(s.job_id), array_agg(s.chunk_index))
  from unnest(job_ids, chunk_indexes) with ordinality t (job_id, chunk_index, place)
  join chunk_private.slots s on s.job_id = t.job_id and s.chunk_index = t.chunk_index
  where (s.limit_key, s.lane) <> (first.limit_key, first.lane) or t.place > how_many;
  select array_agg(s.job_id order by t.place), array_agg(s.chunk_index order by t.place) into job_ids, chunk_indexes
  from unnest(job_ids, chunk_indexes) with ordinality t (job_id, chunk_index, place)
  join chunk_private.slots s on s.job_id = t.job_id and s.chunk_index = t.chunk_index
  where s.claimed;
  parked := false;
  if not chunk_private.wait_a_moment_for_limit(first.limit_key) then
    perform chunk_private.unclaim(job_ids, chunk_indexes);
    job_ids := array[]::uuid[];
    chunk_indexes := array[]::bigint[];
    return;
  end if;
  held := array[first.limit_key];
  kept := chunk_private.keep_within_limits(job_ids, chunk_indexes, held);
  parked := kept.parked;
  job_ids := kept.job_ids;
  chunk_indexes := kept.chunk_indexes;
end
$$;
comment on function chunk_private.wait_for_room is
  'Of slots that a claim has put aside, waits a moment for the key of the first, and keeps those that it has room for; the others are given back. The claim has no key.';

create or replace function chunk_private.claim_in_lanes(
  worker text, how_many int, job_id uuid, kinds text[], lanes bigint[], wanted_lease int, with_claim_id uuid
)
returns chunk_private.claimed_chunk[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  claimed chunk_private.claimed_chunk[] := array[]::chunk_private.claimed_chunk[];
  lane record;
  taken record;
  kept record;
  got int;
  held text[] := array[]::text[];
  aside_jobs uuid[] := array[]::uuid[];
  aside_indexes bigint[] := array[]::bigint[];
  aside_lane record;
  parked boolean := false;
begin
  for lane in
    select l.id, l.handler, coalesce(wanted_lease, l.lease_seconds) as lease_seconds, l.floor
    from chunk_private.claim_lanes l
    where l.kind = any (kinds) and (lanes is null or l.id = any (lanes))
    order by l.priority desc, random()
  loop
    loop
      taken := chunk_private.take_slots(lane.id, lane.floor, how_many - cardinality(claimed), job_id, with_claim_id);
      exit when taken.job_ids is null;
      if taken.limited then
        kept := chunk_private.keep_within_limits(taken.job_ids, taken.chunk_indexes, held);
        held := kept.held;
        parked := parked or kept.parked;
        if aside_jobs = '{}' and kept.aside_jobs <> '{}' then
          aside_lane := lane;
        end if;
        aside_jobs := aside_jobs || kept.aside_jobs;
        aside_indexes := aside_indexes || kept.aside_indexes;
        taken.job_ids := kept.job_ids;
        taken.chunk_indexes := kept.chunk_indexes;
      end if;
      got := cardinality(claimed);
      claimed := claimed || chunk_private.start_attempts(taken.job_ids, taken.chunk_indexes, worker, lane.handler, lane.lease_seconds);
      -- More of this lane when limits have left room in the batch; not when an outdated report holds a chunk: it would be found again.
      exit when not taken.limited or cardinality(claimed) = how_many or cardinality(claimed) < got + cardinality(taken.job_ids)
        or cardinality(aside_jobs) >= 100;
    end loop;
    exit when cardinality(claimed) = how_many or cardinality(aside_jobs) >= 100;
  end loop;

  -- What was put aside: without anything else, it is waited for.
  if aside_jobs <> '{}' then
    if claimed = '{}' and held = '{}' then
      kept := chunk_private.wait_for_room(aside_jobs, aside_indexes, held, how_many);
      held := kept.held;
      parked := parked or kept.parked;
      if cardinality(kept.job_ids) > 0 then
        claimed := chunk_private.start_attempts(kept.job_ids, kept.chunk_indexes, worker, aside_lane.handler, aside_lane.lease_seconds);
      end if;
    else
      perform chunk_private.unclaim(aside_jobs, aside_indexes);
    end if;
  end if;
  if parked then
    perform chunk_private.settle_limit(h.key) from unnest(held) h (key);
  end if;
  return claimed;
end
$$;
comment on function chunk_private.claim_in_lanes is
  'Claims up to how_many chunks of these kinds, or of one job, the lanes of the highest priority first.';

-- 43_claim_by_job.sql

-- Claiming by a job's id where the job has a limit key: its slots may be parked while those of other jobs are awake.
--
-- settle_limit wakes those that have waited longest, whoever works on them. Where workers name their jobs it may be that nobody
-- does: then a job takes parked slots of its own, when there is room beside those that somebody is to be expected for. These are
-- slots that were woken a moment ago, and those of jobs that have waited longer and are asked for by their ids, too.

create or replace function chunk_private.note_seeker(limit_key text, job_id uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  if exists (
    select from chunk_private.limit_seekers k
    where k.limit_key = limit_key and k.job_id = job_id and k.asked_at > now() - interval '500 milliseconds'
  ) then
    return;
  end if;
  delete from chunk_private.limit_seekers k where k.limit_key = limit_key and k.asked_at < now() - interval '1 minute';
  insert into chunk_private.limit_seekers (limit_key, job_id) values (limit_key, job_id)
  on conflict on constraint limit_seekers_pkey do update set asked_at = now();
end
$$;
comment on function chunk_private.note_seeker is 'Notes that a worker asks for a job by its id. The caller has the key''s lock.';

create or replace function chunk_private.claim_by_job(
  worker text, how_many int, job_id uuid, kinds text[], wanted_lease int, with_claim_id uuid
)
returns chunk_private.claimed_chunk[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  within constant bigint := 4294967296; -- a lane's id follows its priority
  lately constant timestamptz := now() - interval '2 seconds';
  job record;
  rules record;
  room int;
  own record;
  taken bigint[] := array[]::bigint[];
begin
  select j.limit_key, k.handler, coalesce(wanted_lease, k.lease_seconds) as lease_seconds into job
  from public.sync_jobs j
  join public.sync_kinds k on k.kind = j.kind
  where j.id = job_id and j.kind = any (kinds) and j.limit_key is not null
    and exists (select from chunk_private.slots s where s.job_id = job_id and s.parked);
  if not found or not chunk_private.wait_a_moment_for_limit(job.limit_key) then
    return array[]::chunk_private.claimed_chunk[];
  end if;
  rules := chunk_private.limit_of(job.limit_key);
  if rules.opens_at > now() then
    return array[]::chunk_private.claimed_chunk[];
  end if;
  room := coalesce(rules.most - chunk_private.limit_used(job.limit_key), how_many);
  while room > 0 and cardinality(taken) < how_many loop
    select s.ctid as place, s.lane / within as priority, s.ready_at, s.chunk_index into own from chunk_private.slots s
    where s.job_id = job_id and not s.claimed and s.ready_at <= now()
    order by s.ready_at, s.chunk_index limit 1 for no key update skip locked;
    exit when not found or room <= (
      select count(*) from (
        (select from chunk_private.slots s
        where s.limit_key = job.limit_key and s.claimed < true and not s.parked -- so written, it is not read by the claim index
          and s.job_id <> job_id and s.lane / within <= own.priority
          and s.ready_at <= now() and (s.ready_at > lately or s.dispatched_at > now() - interval '30 seconds')
        limit room)
        union all
        (select from chunk_private.limit_seekers k
        join chunk_private.slots s on s.job_id = k.job_id
        where k.limit_key = job.limit_key and k.asked_at > lately and k.job_id <> job_id and not s.claimed and s.parked
          and (s.lane / within, s.ready_at, s.chunk_index, s.job_id) < (own.priority, own.ready_at, own.chunk_index, job_id)
        limit room)
      ) expected
    );
    update chunk_private.slots s set claimed = true, parked = false, claim_id = with_claim_id where s.ctid = own.place;
    taken := taken || own.chunk_index;
    room := room - 1;
  end loop;
  if taken = '{}' then
    perform chunk_private.note_seeker(job.limit_key, job_id);
    return array[]::chunk_private.claimed_chunk[];
  end if;
  return chunk_private.start_attempts(array_fill(job_id, array[cardinality(taken)]), taken, worker, job.handler, job.lease_seconds);
end
$$;
comment on function chunk_private.claim_by_job is
  'Claims up to how_many parked chunks of one job, as far as its limit key has room beside those who go first.';

-- 44_ask_again.sql

-- What an empty claim says beside its answer: when to ask again, if chunks wait for a place of their limit key.
--
-- Nobody is told when a place is free, and who polls would have to ask often at all times, or be late. So the claim that has found
-- nothing, and can know, says so; in a header, since its answer is a list of chunks.

create or replace function chunk_private.say_when_to_ask_again(kinds text[], job_id uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  lanes bigint[];
  milliseconds int;
begin
  -- Where no job has a limit key, it ends here.
  if not exists (select from chunk_private.slots s where s.limit_key is not null) then
    return;
  end if;
  if job_id is not null then
    select greatest(50, ceil(1000 * extract(epoch from l.blocked_until - now()))) into milliseconds
    from public.sync_jobs j
    left join public.sync_limits l on l.key = j.limit_key
    where j.id = job_id and j.kind = any (kinds)
      and exists (select from chunk_private.slots s where s.job_id = job_id and s.parked);
  else
    lanes := array(select l.id from chunk_private.lanes l where l.kind = any (kinds));
    -- Steps from key to key through the index: as many as a fleet would wait for.
    with recursive keys (key, place) as (
      (select s.limit_key, 1 from chunk_private.slots s where s.limit_key is not null order by s.limit_key limit 1)
      union all
      select n.limit_key, k.place + 1 from keys k
      cross join lateral (select s.limit_key from chunk_private.slots s where s.limit_key > k.key order by s.limit_key limit 1) n
      where k.place < 200
    ),
    waiting (opens_at) as (
      select case when l.blocked_until > now() then l.blocked_until end
      from keys k
      left join public.sync_limits l on l.key = k.key
      where exists (
        select from chunk_private.slots s where s.limit_key = k.key and not s.claimed and s.parked and s.lane = any (lanes)
      )
    )
    select coalesce(
      (select 50 from waiting w where w.opens_at is null limit 1), -- reads no further
      (select greatest(50, ceil(1000 * extract(epoch from min(w.opens_at) - now()))) from waiting w having min(w.opens_at) is not null)
    ) into milliseconds;
  end if;
  if milliseconds is not null then
    perform set_config('response.headers', (
      coalesce(nullif(current_setting('response.headers', true), '')::jsonb, '[]') || jsonb_build_object('Chunks-Ask-Again-Ms', milliseconds::text)
    )::text, true);
  end if;
end
$$;
comment on function chunk_private.say_when_to_ask_again is
  'Sets the API''s header Chunks-Ask-Again-Ms when chunks of these kinds, or of one job of them, wait for a place of their limit key: 50, or until the end of the key''s block.';

-- 50_outcomes.sql

-- How attempts and jobs end, and what an outdated report is answered.

-- Lock before asking whether anything is left: two last finishers cannot see each other's uncommitted counters, but the
-- one that gets the job row second sees the first's.
create or replace function chunk_private.finish_if_done(job_id uuid)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job record;
  counts record;
begin
  select j.status, j.sealed, j.next_state is not null as leaves_state into job from public.sync_jobs j where j.id = job_id for no key update;
  if job.status in ('pending', 'running', 'paused') and job.sealed then
    select coalesce(sum(c.open_chunks), 0) as open, sum(c.failed_chunks) as failed into counts
    from chunk_private.newest_counters c where c.job_id = job_id;
    if counts.open = 0 then
      job.status := case when counts.failed > 0 then 'failed' else 'completed' end;
      update public.sync_jobs j
      set status = job.status, completed_at = now(), started_at = coalesce(j.started_at, now())
      where j.id = job_id;
      if job.status = 'completed' and job.leaves_state then
        perform chunk_private.promote_state(job_id);
      end if;
    end if;
  end if;
  return job.status;
end
$$;
comment on function chunk_private.finish_if_done is 'Ends a sealed job that has no open chunk left; returns the job''s status.';

create or replace function chunk_private.refuse_open_end()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from chunk_private.newest_counters c where c.job_id = new.id and c.open_chunks > 0) then
    raise exception using errcode = 'SC005',
      message = format('the sync job %s has %s open chunks: it cannot be %s', new.id,
        (select sum(c.open_chunks) from chunk_private.newest_counters c where c.job_id = new.id), new.status),
      hint = 'cancel_sync_job() ends a job and its open chunks.';
  end if;
  return null;
end
$$;
comment on function chunk_private.refuse_open_end is 'Trigger of sync_jobs: SC005 when somebody completes or fails a job by hand whose chunks have not ended. Cancelled by hand, the watchdog cancels them.';

do $$
begin
  -- Asked first: making a trigger again would wait for all who write jobs.
  if not exists (select from pg_trigger t where t.tgname = 'sync_jobs_refuse_open_end' and t.tgrelid = 'public.sync_jobs'::regclass) then
    create trigger sync_jobs_refuse_open_end after update of status on public.sync_jobs
      for each row when (new.completed_at is not null and old.completed_at is null and new.status <> 'cancelled')
      execute function chunk_private.refuse_open_end();
  end if;
end
$$;

create or replace function chunk_private.backoff(retry_delay_seconds int, attempts int)
returns interval
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select make_interval(secs => least($1 * 2.0 ^ least($2 - 1, 30), greatest($1, 3600)) * (0.75 + 0.25 * random()));
$$;
comment on function chunk_private.backoff is
  'How long a chunk waits after its attempts-th failure: the kind''s delay, doubled each time, up to an hour, less up to a quarter of jitter.';

-- Ends the attempt of a locked, processing chunk without success: back to pending while attempts are left, else failed.
-- Its slot is the caller's to pass on.
create or replace function chunk_private.end_attempt(
  chunk public.chunk_processing_queue, attempt_outcome text, reason text, retryable boolean, retry_after_seconds int
)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  retry constant boolean := coalesce(retryable, true) and chunk.attempts <= chunk.max_retries;
  delay interval;
  stripe bigint;
  held bigint;
begin
  insert into chunk_private.chunk_attempts (job_id, chunk_id, attempt, outcome, error, worker_id, claim_token, claimed_at)
  values (chunk.parent_sync_job_id, chunk.id, chunk.attempts,
    case when attempt_outcome = 'lost' then 'lost' when retry then 'retrying' else 'failed' end,
    reason, chunk.worker_id, chunk.claim_token, chunk.started_at);
  if retry then
    delay := case when retry_after_seconds is not null then make_interval(secs => retry_after_seconds)
      else (select chunk_private.backoff(k.retry_delay_seconds, chunk.attempts) from public.sync_kinds k where k.kind = chunk.kind) end;
    update public.chunk_processing_queue q
    set status = 'pending', has_failed = true, ready_at = now() + delay, error = reason, claim_token = null, locked_until = null,
        items_processed = q.checkpoint_items, items_counted = q.checkpoint_items, updated_at = now()
    where q.id = chunk.id;
    insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
    values (chunk.parent_sync_job_id, now() + delay, chunk.chunk_index);
  else
    update public.chunk_processing_queue q
    set status = 'failed', error = reason, locked_until = null, items_counted = q.checkpoint_items, completed_at = now(), updated_at = now()
    where q.id = chunk.id;
  end if;
  stripe := chunk.chunk_index % (select j.stripes from public.sync_jobs j where j.id = chunk.parent_sync_job_id);
  held := chunk_private.hold_counter(chunk.parent_sync_job_id, stripe);
  update chunk_private.job_counters c
  set open_chunks = c.open_chunks - (not retry)::int,
      failed_chunks = c.failed_chunks + (not retry)::int,
      retrying_chunks = c.retrying_chunks + (retry and not chunk.has_failed)::int - (not retry and chunk.has_failed)::int,
      items_processed = least(greatest(c.items_processed + coalesce(chunk.checkpoint_items, 0) - coalesce(chunk.items_counted, 0), 0), chunk_private.most_items()),
      last_activity_at = now(), changes = c.changes + 1,
      -- Why chunks failed for good says more than a retry that came later.
      last_error = case when retry and c.failed_chunks > 0 then c.last_error else reason end,
      last_error_at = case when retry and c.failed_chunks > 0 then c.last_error_at else now() end
  where c.job_id = chunk.parent_sync_job_id and c.stripe = stripe and c.generation = held;
  return case when retry then 'retrying' else 'failed' end;
end
$$;
comment on function chunk_private.end_attempt is 'Records a failed or lost attempt; returns retrying or failed.';

-- What a report answers whose chunk is not, or no longer, its own: a repeat of a report gets what the first one got.
create or replace function chunk_private.answer_again(chunk_id bigint, claim_token uuid)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'chunk_id', q.id,
    'outcome', case
      when a.outcome in ('lost', 'released') then 'stale'
      when a.outcome is not null then a.outcome
      when q.claim_token = $2 and q.completed_at is not null then q.status
      else 'stale'
    end,
    'chunk_status', q.status,
    'job_status', j.status,
    'remaining', (select coalesce(sum(c.open_chunks), 0) from chunk_private.newest_counters c where c.job_id = j.id),
    'next', to_jsonb(chunk_private.claimed_by($2)) -> 0
  )
  from public.chunk_processing_queue q
  join public.sync_jobs j on j.id = q.parent_sync_job_id
  left join chunk_private.chunk_attempts a on a.chunk_id = q.id and a.claim_token = $2
  where q.id = $1;
$$;
comment on function chunk_private.answer_again is 'The answer to a report by a token that does not hold the chunk now; null when there is no such chunk.';

create or replace function chunk_private.answer_again_or_refuse(chunk_id bigint, claim_token uuid)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  answer constant jsonb := chunk_private.answer_again(chunk_id, claim_token);
begin
  if answer is null then
    raise exception using errcode = 'SC001', message = format('there is no chunk %s', chunk_id);
  end if;
  return answer;
end
$$;
comment on function chunk_private.answer_again_or_refuse is 'What answer_again says; SC001 when there is no such chunk.';

-- 51_report.sql

-- Reports: how a worker says that its chunk has ended, fenced by the claim's token.

create or replace function chunk_private.count_failure(
  chunk public.chunk_processing_queue, reason text, retryable boolean, retry_after_seconds int, throttled_seconds int, out outcome text,
  out id uuid, out status text, out stripes smallint, out handler text, out open_here bigint, out remaining bigint, out limit_key text,
  out fresh_from bigint
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  outcome := case
    when throttled_seconds is not null then chunk_private.throttle_attempt(chunk, coalesce(reason, 'throttled'), throttled_seconds)
    else chunk_private.end_attempt(chunk, 'error', coalesce(reason, 'the worker gave no error text'), retryable, retry_after_seconds)
  end;
  select j.id, j.status, j.stripes, k.handler, o.open_here, o.remaining, j.limit_key, o.fresh_from
  into id, status, stripes, handler, open_here, remaining, limit_key, fresh_from
  from public.sync_jobs j
  join public.sync_kinds k on k.kind = j.kind
  cross join lateral (
    select sum(c.open_chunks)::bigint as remaining, max(c.fresh_from) as fresh_from,
      min(c.open_chunks) filter (where c.stripe = chunk.chunk_index % j.stripes) as open_here
    from chunk_private.newest_counters c where c.job_id = j.id
  ) o
  where j.id = chunk.parent_sync_job_id;
end
$$;
comment on function chunk_private.count_failure is
  'Ends the attempt of a locked chunk with an error, or gives it back when it was throttled; returns the outcome, and of its job what the rest of the report needs.';

-- One body with headings: its phases as functions would cost a tenth of the report.
create or replace function public.complete_chunk_job_safe(
  chunk_id bigint, claim_token uuid, success boolean default true, result jsonb default null, error text default null,
  retryable boolean default true, retry_after_seconds int default null, next_chunks jsonb default null,
  items_processed bigint default null, items_total bigint default null, claim_next boolean default false,
  handler_down boolean default false, next_state jsonb default null, throttled_seconds int default null
)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  appends boolean := false;
  lease_seconds int;
  chunk record;
  job record;
  outcome text := 'completed';
  rests boolean;
  fresh_index bigint;
  sends boolean;
  to_claim bigint;
  next jsonb;
begin
  -- Arguments, and the level
  if current_setting('transaction_isolation') <> 'read committed' then
    perform chunk_private.check_isolation('complete_chunk_job_safe');
  end if;
  if success is null or num_nonnulls(retry_after_seconds, next_chunks, items_processed, items_total, next_state, throttled_seconds) > 0 then
    appends := chunk_private.check_report(success, retry_after_seconds, next_chunks, items_processed, items_total, next_state, throttled_seconds);
  end if;
  if success and octet_length(result::text) > 200 then
    perform chunk_private.check_result(result);
  end if;
  if claim_next then
    select greatest(1, extract(epoch from q.locked_until - q.updated_at))::int into lease_seconds
    from public.chunk_processing_queue q where q.id = chunk_id;
  end if;

  -- Fence and gate: a chunk with this token and no end is processing. The gate stands in the `where`, behind the fence: it is
  -- entered before the chunk is locked, in one statement with it. What this statement reads may be older than the gate; the
  -- job is therefore read by the next one.
  if success then
    update public.chunk_processing_queue q
    set status = 'completed', result = complete_chunk_job_safe.result, error = null, locked_until = null,
        items_processed = coalesce(complete_chunk_job_safe.items_processed, q.items_processed),
        items_total = coalesce(complete_chunk_job_safe.items_total, q.items_total),
        checkpoint = null, completed_at = now(), updated_at = now()
    where q.id = chunk_id and q.claim_token = complete_chunk_job_safe.claim_token and q.completed_at is null and case when appends
      then pg_advisory_xact_lock(uuid_hash_extended(q.parent_sync_job_id, 0))::text
      else pg_advisory_xact_lock_shared(uuid_hash_extended(q.parent_sync_job_id, 0))::text
    end is not null
    returning q.parent_sync_job_id as job_id, q.chunk_index, q.has_failed, q.items_processed, q.items_counted, q.worker_id into chunk;
  else
    select q.parent_sync_job_id as job_id, q.chunk_index, q.has_failed, q.items_processed, q.items_counted, q.worker_id, q.attempts into chunk
    from public.chunk_processing_queue q
    where q.id = chunk_id and q.claim_token = complete_chunk_job_safe.claim_token and q.completed_at is null
      and pg_advisory_xact_lock_shared(uuid_hash_extended(q.parent_sync_job_id, 0))::text is not null
    for no key update;
  end if;
  if not found then
    return chunk_private.answer_again_or_refuse(chunk_id, claim_token);
  end if;

  -- Counters. One whose generation has risen while we waited for it is passed over, locked: the second time finds it.
  if success then
    for time in 1 .. 2 loop
      update chunk_private.job_counters c
      set open_chunks = c.open_chunks - 1,
          completed_chunks = c.completed_chunks + 1,
          retrying_chunks = c.retrying_chunks - chunk.has_failed::int,
          items_processed = least(greatest(c.items_processed + coalesce(chunk.items_processed, 0) - coalesce(chunk.items_counted, 0), 0), chunk_private.most_items()),
          slots_from = case when j.raises then chunk_private.lowest_place(j.id) else c.slots_from end,
          fresh_from = case when j.raises then chunk_private.lowest_generation(j.id) else c.fresh_from end,
          changes = case when j.joins > c.generation then 0 else c.changes + 1 end, generation = j.joins, last_activity_at = now()
      from (
        select j.id, j.status, j.stripes, j.limit_key, k.handler, n.own, n.newest, n.oldest, n.open_chunks, n.fresh_from, n.changes % 16 = 15 as raises,
          case when n.own < n.newest then n.newest else n.own + (n.changes + 1 >= chunk_private.changes_a_generation())::int end as joins
        from public.sync_jobs j
        join public.sync_kinds k on k.kind = j.kind
        cross join lateral (
          select min(o.generation) filter (where o.is_own) as own, min(o.changes) filter (where o.is_own) as changes,
            max(o.generation) as newest, min(o.generation) as oldest, sum(o.open_chunks)::bigint as open_chunks,
            max(o.fresh_from) as fresh_from
          from ( -- as newest_counters has them: without another look at the job
            select o.stripe = chunk.chunk_index % j.stripes as is_own, o.generation, o.changes, o.open_chunks, o.fresh_from
            from chunk_private.job_counters o
            where o.job_id = j.id
            order by o.generation desc limit least(j.stripes, j.total_chunks)
          ) o
        ) n
        where j.id = chunk.job_id
        offset 0 -- before the counter, which is then found by its whole key
      ) j
      where c.job_id = j.id and c.generation = j.own and c.stripe = chunk.chunk_index % j.stripes
      returning j.id, j.status, j.stripes, j.handler, j.limit_key, c.open_chunks as open_here, j.open_chunks - 1 as remaining, j.fresh_from,
        case when j.joins > greatest(j.newest, j.oldest + 2) then j.joins end as begun
      into job;
      exit when found;
    end loop;
    if job.begun is not null then -- and some have stayed behind
      perform chunk_private.bring_along(job.id, job.begun);
    end if;
    if appends then
      perform chunk_private.add_chunks(job.id, next_chunks, items_total);
      job.remaining := job.remaining + jsonb_array_length(next_chunks);
      job.open_here := null;
    elsif items_total is not null then
      perform chunk_private.add_items(job.id, items_total);
    end if;
    if next_state is not null then
      perform chunk_private.stage_state(job.id, next_state);
    end if;
  else
    job := chunk_private.count_failure(
      (select q from public.chunk_processing_queue q where q.id = chunk_id), error, retryable, retry_after_seconds,
      throttled_seconds
    );
    outcome := job.outcome;
  end if;

  -- The job's end
  if job.open_here = 0 then
    job.status := chunk_private.finish_if_done(job.id);
  end if;

  -- The chunk's slot goes to the next one. In most reports the job runs on, no retry is due, and a stripe is free: that in
  -- two statements, since calling take_fresh and hand_out would cost a tenth of the report. All else is pass_slots_on's.
  rests := coalesce(handler_down, false) and not success and throttled_seconds is null;
  if rests then
    perform chunk_private.rest_slot(j, chunk.chunk_index, chunk.attempts) from public.sync_jobs j where j.id = job.id;
  elsif job.status in ('pending', 'running') and job.limit_key is null then
    update chunk_private.fresh_stripes f
    set next_index = f.next_index + job.stripes
    where f.ctid = (
      select s.ctid from chunk_private.fresh_stripes s
      where s.job_id = job.id and s.generation >= job.fresh_from and s.next_index < s.end_index
        and not exists (select from chunk_private.returned_chunks r where r.job_id = job.id and r.ready_at <= now())
      order by s.next_index limit 1 for no key update skip locked
    )
    returning f.next_index - job.stripes into fresh_index;
  end if;
  if fresh_index is null and not rests then
    to_claim := chunk_private.pass_slots_on(
      (select j from public.sync_jobs j where j.id = job.id), array[chunk.chunk_index], case when claim_next then claim_token end
    );
  elsif fresh_index is not null then
    to_claim := case when claim_next then fresh_index end;
    sends := to_claim is null and job.handler is not null;
    update chunk_private.slots s
    set chunk_index = fresh_index, ready_at = now(), claimed = to_claim is not null, claim_id = case when claim_next then claim_token end,
        dispatched_at = case when sends then now() end, dispatch_count = sends::int
    where s.job_id = job.id and s.chunk_index = chunk.chunk_index;
    if not found then -- somebody has deleted it
      to_claim := null;
      perform chunk_private.hand_out(j, array[fresh_index], array[now()], null, now()) from public.sync_jobs j where j.id = job.id;
    elsif sends then
      perform chunk_private.dispatch(j, array[fresh_index]) from public.sync_jobs j where j.id = job.id;
    end if;
  end if;
  if to_claim is not null then
    next := to_jsonb(chunk_private.start_attempt(job.id, to_claim, chunk.worker_id, job.handler, lease_seconds, false));
  end if;
  if appends then
    perform chunk_private.fill_slots(job.id);
  end if;
  if job.limit_key is not null then
    next := chunk_private.settle_report(job.id, job.limit_key, case when outcome = 'throttled' then throttled_seconds end, error,
      case when claim_next then claim_token end, chunk.worker_id, job.handler, lease_seconds);
  end if;

  -- The answer
  return jsonb_build_object(
    'chunk_id', chunk_id, 'outcome', outcome, 'job_status', job.status, 'next', next,
    'remaining', case when job.status in ('completed', 'failed') then 0 else job.remaining end,
    'chunk_status', case when outcome in ('retrying', 'throttled') then 'pending' else outcome end
  );
end
$$;
comment on function public.complete_chunk_job_safe is
  'Reports a chunk''s end, once: by the token of its claim. outcome: completed, retrying, failed, throttled, cancelled (the job was) or stale (the claim was lost; nothing is changed). next_chunks become chunks of the same job in the same transaction. next_state is merged into what the job leaves for the next one with its job_key, if it completes. claim_next claims the next chunk of the job for the same worker. handler_down says that the failure is the handler''s rather than the chunk''s: the slot rests until the retry. throttled_seconds says that what it works on asked for a pause: the chunk goes back without an attempt, and its limit_key is blocked for as long, an hour at most. A repeated report answers what the first one did.';

-- 52_reports_read.sql

-- Reading the list of a bulk report, and entering its gates.

do $$
begin
  if to_regtype('chunk_private.report') is null then
    create type chunk_private.report as (
      place int,
      job_id uuid,
      chunk_id bigint,
      claim_token uuid,
      success boolean,
      result jsonb,
      error text,
      retryable boolean,
      retry_after_seconds int,
      next_chunks jsonb,
      items_processed bigint,
      items_total bigint,
      next_state jsonb,
      throttled_seconds int
    );
    create type chunk_private.accepted_report as (
      place int,
      job_id uuid,
      chunk_id bigint,
      chunk_index bigint,
      success boolean,
      had_failed boolean,
      items bigint,
      appends boolean,
      items_total bigint,
      stages boolean
    );
  end if;
end
$$;
comment on type chunk_private.report is 'One item of a bulk report: its place in the list, its chunk''s job, and the arguments of complete_chunk_job_safe.';
comment on type chunk_private.accepted_report is 'What the rest of a bulk report needs of an item whose claim holds, without its payload and result.';

create or replace function chunk_private.read_reports(completions jsonb, first_place int)
returns chunk_private.report[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  reports chunk_private.report[];
begin
  reports := array(
    select row(
      first_place + r.place - 1, q.parent_sync_job_id, r.chunk_id, r.claim_token, coalesce(r.success, true), r.result, r.error, coalesce(r.retryable, true), r.retry_after_seconds,
      nullif(r.next_chunks, '[]'), r.items_processed, r.items_total, r.next_state, r.throttled_seconds
    )::chunk_private.report
    from rows from (jsonb_to_recordset(completions) as (
      chunk_id bigint, claim_token uuid, success boolean, result jsonb, error text, retryable boolean, retry_after_seconds int,
      next_chunks jsonb, items_processed bigint, items_total bigint, next_state jsonb, throttled_seconds int
    )) with ordinality r (
      chunk_id, claim_token, success, result, error, retryable, retry_after_seconds, next_chunks, items_processed, items_total,
      next_state, throttled_seconds, place
    )
    left join lateral (select q.parent_sync_job_id from public.chunk_processing_queue q where q.id = r.chunk_id limit 1) q on true
    order by r.chunk_id, r.place
  );
  perform chunk_private.check_report(r.success, r.retry_after_seconds, r.next_chunks, r.items_processed, r.items_total, r.next_state,
    r.throttled_seconds)
  from unnest(reports) r
  where r.retry_after_seconds is not null or r.next_chunks is not null or r.items_processed is not null or r.items_total is not null
    or r.next_state is not null or r.throttled_seconds is not null;
  perform chunk_private.check_result(r.result) from unnest(reports) r where r.success and octet_length(r.result::text) > 200;
  if jsonb_path_exists(completions, '$[*].success ? (@ == null)') then
    raise exception using errcode = 'SC003', detail = 'success', message = 'success must be true or false, not null';
  elsif jsonb_path_exists(completions, '$[*].claim_next ? (@ == true)') then
    raise exception using errcode = 'SC003', detail = 'claim_next', message = 'claim_next goes with complete_chunk_job_safe only';
  end if;
  if exists (select from unnest(reports) r where r.chunk_id is null or r.claim_token is null) then
    raise exception using errcode = 'SC003', detail = 'completions', message = 'each item of completions needs chunk_id and claim_token';
  end if;
  return reports;
end
$$;
comment on function chunk_private.read_reports is
  'The items of a bulk report in order of their chunks, checked, with the defaults of complete_chunk_job_safe.';

create or replace function chunk_private.read_reports_apart(
  completions jsonb, out reports chunk_private.report[], out refusals jsonb[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  item record;
begin
  reports := array[]::chunk_private.report[];
  refusals := array_fill(null::jsonb, array[jsonb_array_length(completions)]);
  for item in select c.value, c.place::int from jsonb_array_elements(completions) with ordinality c (value, place) loop
    begin
      reports := reports || chunk_private.read_reports(jsonb_build_array(item.value), item.place);
    exception when sqlstate 'SC003' or sqlstate 'SC004' or data_exception then
      refusals[item.place] := jsonb_build_object(
        'chunk_id', case when jsonb_typeof(item.value) = 'object' then item.value -> 'chunk_id' end,
        'outcome', 'error', 'code', sqlstate, 'message', left(sqlerrm, 500)
      );
    end;
  end loop;
  reports := array(select r from unnest(reports) r order by r.chunk_id, r.place);
end
$$;
comment on function chunk_private.read_reports_apart is
  'What read_reports does, one item at a time, so that only the bad ones are refused: their answers stand at their places.';

create or replace function chunk_private.enter_gates(reports chunk_private.report[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job record;
  appended bigint := 0;
begin
  for job in
    select r.job_id as id, bool_or(r.next_chunks is not null) as appends, sum(jsonb_array_length(r.next_chunks)) as chunks
    from unnest(reports) r
    where r.job_id is not null
    group by r.job_id
    order by r.job_id
  loop
    appended := appended + coalesce(job.chunks, 0);
    if appended > 100000 then
      raise exception using errcode = 'SC004', detail = 'completions',
        message = 'completions have more than 100000 next_chunks together; one call may carry 100000';
    end if;
    if job.appends then
      perform chunk_private.enter_alone(job.id);
    else
      perform chunk_private.enter_shared(job.id);
    end if;
  end loop;
end
$$;
comment on function chunk_private.enter_gates is
  'Enters the gates of the reported jobs in their order: alone where chunks are appended. SC004 for more than 100,000 of these.';

-- 53_report_many.sql

-- Reporting many chunks at once: set by set, in the order of locks.

-- In order of id, as they stand in the array, and no chunk that is somebody else's by now: those take theirs in no order.
-- Of two reports for one chunk the first counts. What failed is written again by count_reports.
create or replace function chunk_private.accept_reports(reports chunk_private.report[])
returns chunk_private.accepted_report[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  accepted chunk_private.accepted_report[];
begin
  with ended as (
    update public.chunk_processing_queue q
    set status = case when r.success then 'completed' else q.status end, result = case when r.success then r.result end,
        error = null, locked_until = case when not r.success then q.locked_until end, completed_at = case when r.success then now() end,
        items_processed = coalesce(case when r.success then r.items_processed end, q.items_processed),
        items_total = coalesce(case when r.success then r.items_total end, q.items_total),
        checkpoint = case when not r.success then q.checkpoint end, updated_at = now()
    from unnest(reports) r
    where q.id = r.chunk_id and q.id = any (array(select c.chunk_id from unnest(reports) c)) -- so written, no others are read
      and q.claim_token = r.claim_token and q.completed_at is null
    returning row(
      r.place, q.parent_sync_job_id, q.id, q.chunk_index, r.success, q.has_failed,
      coalesce(q.items_processed, 0) - coalesce(q.items_counted, 0), r.next_chunks is not null, r.items_total, r.next_state is not null
    )::chunk_private.accepted_report as report
  )
  select array_agg(e.report) into accepted from ended e;
  return accepted;
end
$$;
comment on function chunk_private.accept_reports is 'The fence of a bulk report: completes or locks the chunks whose claims hold, and returns what was accepted.';

create or replace function chunk_private.count_reports(
  accepted chunk_private.accepted_report[], reports chunk_private.report[], out outcomes text[], out changing uuid[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job record;
  item record;
  begun bigint;
  open_here bigint;
begin
  for job in
    select j.id, j.stripes, bool_or(not a.success) as fails, bool_or(a.appends or a.success and a.items_total is not null or a.stages) as changes
    from unnest(accepted) a
    cross join lateral (select j.id, j.stripes from public.sync_jobs j where j.id = a.job_id limit 1) j
    group by j.id, j.stripes
    order by j.id
  loop
    perform 1 from chunk_private.job_counters c
    where c.ctid = any (array(
      select n.place from chunk_private.newest_counters n
      where n.job_id = job.id
        and n.stripe = any (array(select a.chunk_index % job.stripes from unnest(accepted) a where a.job_id = job.id))
    ))
    order by c.stripe for no key update;
    if job.fails then
      for item in
        select a.place, q as chunk, r.error, r.retryable, r.retry_after_seconds, r.throttled_seconds
        from unnest(accepted) a
        join unnest(reports) r on r.place = a.place
        join public.chunk_processing_queue q on q.id = a.chunk_id
        where a.job_id = job.id and not a.success
      loop
        outcomes[item.place] := case
          when item.throttled_seconds is not null then
            chunk_private.throttle_attempt(item.chunk, coalesce(item.error, 'throttled'), item.throttled_seconds)
          else chunk_private.end_attempt(
            item.chunk, 'error', coalesce(item.error, 'the worker gave no error text'), item.retryable, item.retry_after_seconds
          )
        end;
      end loop;
    end if;
    with newest as materialized (
      select n.place, n.stripe, n.generation, n.changes, max(n.generation) over () as newest, min(n.generation) over () as oldest
      from chunk_private.newest_counters n where n.job_id = job.id
    ),
    counted as (
      update chunk_private.job_counters c
      set open_chunks = c.open_chunks - d.done,
          completed_chunks = c.completed_chunks + d.done,
          retrying_chunks = c.retrying_chunks - d.retried,
          items_processed = least(greatest(c.items_processed + d.items, 0), chunk_private.most_items()),
          slots_from = case when d.done > 8 or d.joins > d.newest then (select chunk_private.lowest_place(job.id)) else c.slots_from end,
          fresh_from = case when d.done > 8 or d.joins > d.newest then (select chunk_private.lowest_generation(job.id)) else c.fresh_from end,
          changes = case when d.joins > c.generation then 0 else c.changes + 1 end, generation = d.joins, last_activity_at = now()
      from (
        select n.place, n.newest, n.oldest, a.done, a.retried, a.items,
          case when n.generation < n.newest then n.newest else n.generation + (n.changes + 1 >= chunk_private.changes_a_generation())::int end as joins
        from (
          select a.chunk_index % job.stripes as stripe, count(*) as done, count(*) filter (where a.had_failed) as retried, sum(a.items)::bigint as items
          from unnest(accepted) a
          where a.job_id = job.id and a.success
          group by 1
        ) a
        join newest n on n.stripe = a.stripe
      ) d
      where c.ctid = d.place
      returning c.open_chunks, case when d.joins > greatest(d.newest, d.oldest + 2) then d.joins end as begun
    )
    select min(n.open_chunks), max(n.begun) into open_here, begun from counted n;
    if begun is not null then
      perform chunk_private.bring_along(job.id, begun);
    end if;
    if job.fails then
      open_here := (select min(c.open_chunks) from chunk_private.newest_counters c where c.job_id = job.id);
    end if;
    if job.changes or open_here = 0 then
      changing := changing || job.id;
    end if;
  end loop;
end
$$;
comment on function chunk_private.count_reports is
  'Counts what was accepted, and ends the attempts that failed: their outcomes, by place, and the jobs whose rows change next.';

create or replace function chunk_private.change_jobs(
  changing uuid[], accepted chunk_private.accepted_report[], reports chunk_private.report[]
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job record;
begin
  for job in
    select a.job_id as id, bool_or(a.appends) as appends, bool_or(a.stages) as stages,
      coalesce(sum(a.items_total) filter (where a.success and not a.appends), 0)::bigint as items_total
    from unnest(accepted) a
    where a.job_id = any (changing)
    group by a.job_id
    order by a.job_id
  loop
    if job.appends then
      perform chunk_private.add_chunks(job.id, r.next_chunks, r.items_total)
      from unnest(accepted) a
      join unnest(reports) r on r.place = a.place
      where a.job_id = job.id and a.appends;
    end if;
    if job.items_total > 0 then
      perform chunk_private.add_items(job.id, job.items_total);
    end if;
    if job.stages then
      perform chunk_private.stage_state(job.id, r.next_state)
      from unnest(accepted) a
      join unnest(reports) r on r.place = a.place
      where a.job_id = job.id and a.stages
      order by a.place;
    end if;
    perform chunk_private.finish_if_done(job.id);
  end loop;
end
$$;
comment on function chunk_private.change_jobs is 'Gives jobs the chunks, items and state that reports have brought, and ends those that are done.';

create or replace function public.complete_chunk_jobs_safe(completions jsonb)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  reports chunk_private.report[];
  accepted chunk_private.accepted_report[];
  answers jsonb[];
  counted record;
  item record;
  job record;
  limited uuid[];
begin
  -- Arguments, and the level
  perform chunk_private.check_isolation('complete_chunk_jobs_safe');
  if jsonb_typeof(completions) is distinct from 'array' then
    raise exception using errcode = 'SC003', detail = 'completions', message = 'completions must be a JSON array of objects';
  end if;
  perform chunk_private.check_length('completions', completions, 1000);
  begin
    answers := array_fill(null::jsonb, array[jsonb_array_length(completions)]);
    reports := chunk_private.read_reports(completions, 1);
  exception when sqlstate 'SC003' or sqlstate 'SC004' or data_exception then -- one is bad: only it is refused
    select r.reports, r.refusals into reports, answers from chunk_private.read_reports_apart(completions) r;
  end;

  -- All gates, all chunks, all counters, all jobs, before the first slot is passed on.
  perform chunk_private.enter_gates(reports);
  accepted := chunk_private.accept_reports(reports);
  counted := chunk_private.count_reports(accepted, reports);
  perform chunk_private.change_jobs(counted.changing, accepted, reports);

  -- Slots, and the answers of what was accepted
  for job in
    select j.row, d.freed, d.appends,
      (select sum(c.open_chunks) from chunk_private.newest_counters c where c.job_id = d.job_id)::bigint as remaining
    from (
      select a.job_id, array_agg(a.chunk_index) as freed, bool_or(a.appends) as appends
      from unnest(accepted) a group by a.job_id
    ) d
    cross join lateral (select j as row from public.sync_jobs j where j.id = d.job_id limit 1) j
    order by d.job_id
  loop
    for item in
      select a.place, jsonb_build_object(
        'chunk_id', a.chunk_id, 'outcome', o.outcome, 'job_status', (job.row).status, 'next', null, 'remaining', job.remaining,
        'chunk_status', case when o.outcome in ('retrying', 'throttled') then 'pending' else o.outcome end
      ) as answer
      from unnest(accepted) a
      cross join lateral (select coalesce(counted.outcomes[a.place], 'completed') as outcome) o
      where a.job_id = (job.row).id
    loop
      answers[item.place] := item.answer;
    end loop;
    perform chunk_private.pass_slots_on(job.row, job.freed, null);
    if job.appends then
      perform chunk_private.fill_slots((job.row).id);
    end if;
    if (job.row).limit_key is not null then
      limited := limited || (job.row).id;
    end if;
  end loop;
  if limited is not null then
    perform chunk_private.settle_reports(limited, accepted, reports, counted.outcomes);
  end if;

  -- The answers of what was not: repeated, outdated, or of no chunk
  for item in select r.place, r.chunk_id, r.claim_token from unnest(reports) r where answers[r.place] is null loop
    answers[item.place] := coalesce(chunk_private.answer_again(item.chunk_id, item.claim_token), jsonb_build_object(
      'chunk_id', item.chunk_id, 'outcome', 'error', 'code', 'SC001', 'message', format('there is no chunk %s', item.chunk_id)
    ));
  end loop;
  return to_jsonb(answers);
end
$$;
comment on function public.complete_chunk_jobs_safe is
  'Reports many chunks (at most 1,000) at once: an array of objects with the arguments of complete_chunk_job_safe (but claim_next), answered in order. A bad item is answered with outcome error, code and message; the others go through.';

-- 54_lease.sql

-- Heartbeats, checkpoints and giving back.

create or replace function chunk_private.check_leases(leases jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  if jsonb_typeof(leases) is distinct from 'array' then
    raise exception using errcode = 'SC003', detail = 'leases',
      message = 'leases must be a JSON array of objects with chunk_id and claim_token';
  end if;
  perform chunk_private.check_length('leases', leases, 1000);
  begin
    perform max(r.chunk_id), max(r.claim_token::text), max(r.items_processed)
    from jsonb_array_elements(leases) l (item)
    cross join lateral jsonb_to_record(l.item) r (chunk_id bigint, claim_token uuid, items_processed bigint);
  exception when data_exception then
    raise exception using errcode = 'SC003', detail = 'leases', message = 'leases must be objects with chunk_id and claim_token: ' || sqlerrm;
  end;
  perform chunk_private.check_items('items_processed', (l.item ->> 'items_processed')::bigint)
  from jsonb_array_elements(leases) l (item) where l.item ->> 'items_processed' is not null;
  perform chunk_private.check_object('checkpoint', l.item -> 'checkpoint', 8192)
  from jsonb_array_elements(leases) l (item) where l.item ->> 'checkpoint' is not null;
end
$$;
comment on function chunk_private.check_leases is 'SC003 or SC004 unless they are what extend_chunk_leases takes.';

create or replace function public.extend_chunk_leases(leases jsonb, lease_seconds int default null)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  answers jsonb;
  most record;
begin
  perform chunk_private.check_isolation('extend_chunk_leases');
  perform chunk_private.check_leases(leases);
  perform chunk_private.check_range('lease_seconds', lease_seconds, 1, 86400);
  perform chunk_private.enter_shared(g.job_id)
  from (
    select distinct q.parent_sync_job_id as job_id
    from jsonb_array_elements(leases) l (item)
    cross join lateral (
      select q.parent_sync_job_id from public.chunk_processing_queue q where q.id = (l.item ->> 'chunk_id')::bigint limit 1
    ) q
    order by 1
  ) g;
  select s.max_checkpoints as checkpoints into most from chunk_private.settings s;
  with wanted as (
    select l.place, r.chunk_id, r.claim_token, r.items_processed, nullif(r.checkpoint, 'null') as checkpoint
    from jsonb_array_elements(leases) with ordinality l (item, place)
    cross join lateral jsonb_to_record(l.item) r (chunk_id bigint, claim_token uuid, items_processed bigint, checkpoint jsonb)
  ),
  locked as (
    select q.id, q.status, q.claim_token, q.checkpoint, q.checkpoints, q.locked_until - q.updated_at as lease_length
    from public.chunk_processing_queue q
    where q.id = any (array(select w.chunk_id from wanted w)) and q.claim_token = any (array(select w.claim_token from wanted w))
    order by q.id
    for no key update
  ),
  extended as (
    update public.chunk_processing_queue q
    set locked_until = now() + coalesce(make_interval(secs => lease_seconds), l.lease_length),
        items_processed = coalesce(w.items_processed, q.items_processed),
        checkpoint = coalesce(w.checkpoint, q.checkpoint),
        checkpoint_items = case when w.checkpoint is null then q.checkpoint_items else coalesce(w.items_processed, q.items_processed) end,
        -- A new checkpoint is progress: the attempts count anew.
        attempts = case when p.progress then 1 else q.attempts end,
        given_back = case when p.progress then 0 else q.given_back end,
        throttled = case when not p.progress then q.throttled end,
        checkpoint_at = case when p.progress then now() else q.checkpoint_at end,
        checkpoints = coalesce(q.checkpoints, 0) + p.progress::int,
        updated_at = now()
    from locked l
    join wanted w on w.chunk_id = l.id and w.claim_token = l.claim_token
    cross join lateral (
      select w.checkpoint is not null and w.checkpoint is distinct from l.checkpoint and coalesce(l.checkpoints, 0) < most.checkpoints as progress
    ) p
    where q.id = l.id and l.status = 'processing' and q.id = any (array(select o.id from locked o))
    returning q.id, q.claim_token, q.locked_until
  )
  select coalesce(jsonb_agg(jsonb_build_object(
    'chunk_id', w.chunk_id,
    'ok', e.id is not null,
    'cancel_requested', coalesce(l.status = 'cancelled' and l.claim_token = w.claim_token, false),
    'locked_until', e.locked_until
  ) order by w.place), '[]') into answers
  from wanted w
  left join locked l on l.id = w.chunk_id
  left join extended e on e.id = w.chunk_id and e.claim_token = w.claim_token;
  return answers;
end
$$;
comment on function public.extend_chunk_leases is
  'The heartbeat of many claims (at most 1,000): an array of {chunk_id, claim_token, items_processed?, checkpoint?}. Each is answered with ok (the claim still holds), cancel_requested and locked_until. lease_seconds null keeps each claim''s own length. A checkpoint (an object of at most 8 KB) is stored when ok is true; a new one is progress, so that the attempts count anew.';

create or replace function public.extend_chunk_lease(
  chunk_id bigint, claim_token uuid, lease_seconds int default null, items_processed bigint default null,
  checkpoint jsonb default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
as $$
  select public.extend_chunk_leases(
    jsonb_build_array(jsonb_build_object('chunk_id', $1, 'claim_token', $2, 'items_processed', $4, 'checkpoint', $5)), $3
  ) -> 0;
$$;
comment on function public.extend_chunk_lease is
  'The heartbeat of one claim: ok (it still holds), cancel_requested (the job was cancelled) and locked_until. items_processed is shown in progress, and counted by the completion only. checkpoint: where a later attempt goes on.';

create or replace function public.release_chunk_job(
  chunk_id bigint, claim_token uuid, reason text default null, checkpoint jsonb default null, items_processed bigint default null
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
  chunk public.chunk_processing_queue;
  job public.sync_jobs;
  progress boolean;
  held bigint;
  explanation constant text := coalesce(reason, 'given back by its worker');
begin
  perform chunk_private.check_isolation('release_chunk_job');
  perform chunk_private.enter_shared(q.parent_sync_job_id) from public.chunk_processing_queue q where q.id = chunk_id;
  if not found then
    raise exception using errcode = 'SC001', message = format('there is no chunk %s', chunk_id);
  end if;
  if num_nonnulls(checkpoint, items_processed) > 0 then
    perform public.extend_chunk_lease(chunk_id, claim_token, null, items_processed, checkpoint);
  end if;
  select q.* into chunk from public.chunk_processing_queue q
  where q.id = chunk_id and q.claim_token = release_chunk_job.claim_token and q.completed_at is null
  for no key update;
  if not found then
    return chunk_private.answer_again_or_refuse(chunk_id, claim_token) || coalesce((
      select jsonb_build_object('outcome', 'released') from chunk_private.chunk_attempts a
      where a.chunk_id = release_chunk_job.chunk_id and a.claim_token = release_chunk_job.claim_token and a.outcome = 'released'
    ), '{}');
  end if;
  progress := coalesce(chunk.checkpoint_at >= chunk.started_at, false);
  if not progress and chunk.given_back >= (select s.max_given_back from chunk_private.settings s) then
    return public.complete_chunk_job_safe(chunk_id, claim_token, success => false, error => explanation || ' (too often: counted as an attempt)');
  end if;

  insert into chunk_private.chunk_attempts (job_id, chunk_id, attempt, outcome, error, worker_id, claim_token, claimed_at)
  values (chunk.parent_sync_job_id, chunk.id, chunk.attempts, 'released', explanation, chunk.worker_id, chunk.claim_token, chunk.started_at);
  update public.chunk_processing_queue q
  set status = 'pending', attempts = q.attempts - 1, given_back = q.given_back + (not progress)::int, claim_token = null,
      locked_until = null, items_processed = q.checkpoint_items, items_counted = q.checkpoint_items, updated_at = now()
  where q.id = chunk.id;
  select j.* into job from public.sync_jobs j where j.id = chunk.parent_sync_job_id;
  if chunk.checkpoint_items is distinct from chunk.items_counted then
    held := chunk_private.hold_counter(job.id, chunk.chunk_index % job.stripes);
    update chunk_private.job_counters c
    set items_processed = least(greatest(c.items_processed + coalesce(chunk.checkpoint_items, 0) - coalesce(chunk.items_counted, 0), 0), chunk_private.most_items()),
        changes = c.changes + 1
    where c.job_id = job.id and c.stripe = chunk.chunk_index % job.stripes and c.generation = held;
  end if;
  -- It keeps its slot, unless the job was paused meanwhile.
  delete from chunk_private.slots s where s.job_id = job.id and s.chunk_index = chunk.chunk_index;
  if job.status = 'paused' then
    insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index) values (job.id, now(), chunk.chunk_index);
  else
    perform chunk_private.hand_out(job, array[chunk.chunk_index], array[now()], null, now() + interval '25 seconds');
  end if;
  perform chunk_private.settle_limits(array[job.limit_key]);
  return jsonb_build_object('chunk_id', chunk_id, 'outcome', 'released', 'chunk_status', 'pending', 'job_status', job.status);
end
$$;
comment on function public.release_chunk_job is
  'Gives a claimed chunk back unfinished, for a worker that must stop, or that has used its time: the attempt is not counted, without limit when a new checkpoint was saved in it, else up to ten times.';

-- 55_throttled.sql

-- Being throttled is no failure: the chunk goes back without an attempt, and its limit key is blocked for as long.

create or replace function chunk_private.throttle_attempt(chunk public.chunk_processing_queue, reason text, seconds int)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  delay constant interval := make_interval(secs => seconds);
  stripe bigint;
  held bigint;
begin
  if coalesce(chunk.throttled, 0) >= (select s.max_throttled from chunk_private.settings s) then
    return chunk_private.end_attempt(chunk, 'error', reason || ' (throttled too often: counted as an attempt)', true, seconds);
  end if;
  insert into chunk_private.chunk_attempts (job_id, chunk_id, attempt, outcome, error, worker_id, claim_token, claimed_at)
  values (chunk.parent_sync_job_id, chunk.id, chunk.attempts, 'throttled', reason, chunk.worker_id, chunk.claim_token, chunk.started_at);
  update public.chunk_processing_queue q
  set status = 'pending', attempts = q.attempts - 1, throttled = coalesce(q.throttled, 0) + 1, ready_at = now() + delay,
      claim_token = null, locked_until = null, items_processed = q.checkpoint_items, items_counted = q.checkpoint_items, updated_at = now()
  where q.id = chunk.id;
  insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
  values (chunk.parent_sync_job_id, now() + delay, chunk.chunk_index);
  stripe := chunk.chunk_index % (select j.stripes from public.sync_jobs j where j.id = chunk.parent_sync_job_id);
  held := chunk_private.hold_counter(chunk.parent_sync_job_id, stripe);
  update chunk_private.job_counters c
  set items_processed = least(greatest(c.items_processed + coalesce(chunk.checkpoint_items, 0) - coalesce(chunk.items_counted, 0), 0), chunk_private.most_items()),
      last_activity_at = now(), changes = c.changes + 1
  where c.job_id = chunk.parent_sync_job_id and c.stripe = stripe and c.generation = held;
  return 'throttled';
end
$$;
comment on function chunk_private.throttle_attempt is
  'Gives a locked, processing chunk back for so many seconds, without an attempt: throttled. After settings.max_throttled times without progress it counts: what end_attempt returns.';

-- What is awake is parked again: settle_limit wakes as many as there is room for, from the new time on.
create or replace function chunk_private.block_limit(limit_key text, until timestamptz, reason text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  before constant timestamptz := (select l.blocked_until from public.sync_limits l where l.key = limit_key);
begin
  if until is null then
    update public.sync_limits l set blocked_until = null, blocked_reason = null, updated_at = now() where l.key = limit_key;
  else
    insert into public.sync_limits (key, blocked_until, blocked_reason) values (limit_key, until, reason)
    on conflict on constraint sync_limits_pkey do update
    set blocked_until = excluded.blocked_until, blocked_reason = excluded.blocked_reason, updated_at = now();
  end if;
  with awake as materialized (
    select s.job_id, s.chunk_index from chunk_private.slots s
    where s.limit_key = limit_key and s.claimed < true and not s.parked -- so written, it is not read by the claim index
      and (s.ready_at <= now() or s.ready_at = before)
    for update skip locked
  )
  update chunk_private.slots s
  set parked = true, ready_at = least(s.ready_at, now())
  from awake a
  where s.job_id = a.job_id and s.chunk_index = a.chunk_index;
end
$$;
comment on function chunk_private.block_limit is
  'Blocks a limit key until then, or with null no longer. The caller has its lock, and settles it next.';

create or replace function chunk_private.settle_report(
  job_id uuid, limit_key text, throttled_seconds int, reason text, next_claim_id uuid, worker text, handler text, lease_seconds int
)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  until constant timestamptz := now() + make_interval(secs => least(throttled_seconds, 3600));
  to_claim bigint;
  following jsonb;
begin
  if not chunk_private.wait_for_limit(limit_key) then
    return null;
  end if;
  if throttled_seconds > 0 and until > (chunk_private.limit_of(limit_key)).opens_at then
    perform chunk_private.block_limit(limit_key, until, reason);
  end if;
  if next_claim_id is not null then
    to_claim := chunk_private.claim_in_turn(limit_key, job_id, next_claim_id);
    if to_claim is not null then
      following := to_jsonb(chunk_private.start_attempt(job_id, to_claim, worker, handler, lease_seconds, false));
    end if;
  end if;
  perform chunk_private.settle_limit(limit_key);
  return following;
end
$$;
comment on function chunk_private.settle_report is
  'What a report does last whose job has a limit key: blocks the key when the chunk was throttled, claims the job''s next chunk if it is its turn, and settles. Returns that chunk.';

create or replace function chunk_private.settle_reports(
  job_ids uuid[], accepted chunk_private.accepted_report[], reports chunk_private.report[], outcomes text[]
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  shared record;
begin
  for shared in
    select j.limit_key, (array_agg(j.id))[1] as job_id, max(t.seconds) as seconds, (array_agg(t.error order by t.seconds desc nulls last))[1] as reason
    from public.sync_jobs j
    left join lateral (
      select r.throttled_seconds as seconds, r.error
      from unnest(accepted) a
      join unnest(reports) r on r.place = a.place
      where a.job_id = j.id and outcomes[a.place] = 'throttled'
      order by r.throttled_seconds desc limit 1
    ) t on true
    where j.id = any (job_ids)
    group by j.limit_key
    order by j.limit_key
  loop
    perform chunk_private.settle_report(shared.job_id, shared.limit_key, shared.seconds, shared.reason, null, null, null, null);
  end loop;
end
$$;
comment on function chunk_private.settle_reports is 'What settle_report does, for the jobs of a bulk report that have limit keys.';

-- 56_state.sql

-- State between jobs: what the next sync of the same thing (kind, owner, job_key) starts from.

create or replace function chunk_private.next_job_no()
returns bigint
language sql
security definer -- no role may use a sequence of ours
set search_path = pg_catalog, pg_temp
as $$ select nextval('chunk_private.job_numbers'); $$;
comment on function chunk_private.next_job_no is 'The next number in the order of jobs with a job_key, and of states saved by hand.';

create or replace function chunk_private.stage_state(job_id uuid, more jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  staged jsonb;
begin
  update public.sync_jobs j
  set next_state = coalesce(j.next_state, '{}') || more
  where j.id = job_id and j.job_key is not null
  returning j.next_state into staged;
  perform chunk_private.check_object('next_state', staged, 65536);
end
$$;
comment on function chunk_private.stage_state is
  'Merges into what a job leaves for the next one, key by key; SC004 when that is too large. A job without job_key leaves nothing.';

-- Within the transaction that completes the job, after its row.
create or replace function chunk_private.promote_state(job_id uuid)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into public.sync_states as s (kind, owner_id, job_key, state, job_no)
  select j.kind, j.owner_id, j.job_key, j.next_state, j.job_no from public.sync_jobs j where j.id = $1
  on conflict on constraint sync_states_one_per_key do update
  set state = excluded.state, job_no = excluded.job_no, updated_at = now()
  where s.job_no < excluded.job_no;
$$;
comment on function chunk_private.promote_state is 'Makes what a completed job leaves the state, unless a later job or call has left one.';

create or replace function public.get_sync_state(kind text, job_key text, owner_id uuid default null)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
  select s.state from public.sync_states s where s.kind = $1 and s.job_key = $2 and s.owner_id is not distinct from $3;
$$;
comment on function public.get_sync_state is 'What the last completed sync of that kind, key and owner has left, or null.';

create or replace function public.save_sync_state(kind text, job_key text, state jsonb, owner_id uuid default null)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
begin
  if not exists (select from public.sync_kinds k where k.kind = save_sync_state.kind) then
    raise exception using errcode = 'SC002', detail = 'kind', message = format('no sync kind is named %L', kind),
      hint = 'save_sync_kind() adds one.';
  elsif (length(job_key) between 1 and 500) is not true then
    raise exception using errcode = 'SC003', detail = 'job_key', message = 'job_key must be a text of 1 to 500 characters';
  end if;
  state := nullif(state, 'null');
  perform chunk_private.check_object('state', state, 65536);
  -- A state that is forgotten keeps its row, so that a job which is under way does not bring the old one back.
  insert into public.sync_states (kind, owner_id, job_key, state, job_no)
  values (save_sync_state.kind, save_sync_state.owner_id, save_sync_state.job_key, save_sync_state.state, chunk_private.next_job_no())
  on conflict on constraint sync_states_one_per_key do update
  set state = excluded.state, job_no = excluded.job_no, updated_at = now();
  return state;
end
$$;
comment on function public.save_sync_state is
  'Sets what the next sync of that kind, key and owner starts from; null forgets it. Jobs that are under way do not replace it when they complete.';

-- 59_limits_seen.sql

-- What is seen of limits: by whoever sees a job, what it waits for; by the service, all keys.

create or replace function chunk_private.waiting_for(job_id uuid)
returns jsonb
language plpgsql
stable
security definer -- users see no limits and no jobs of others, but what their own jobs wait for
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  by_service constant boolean := chunk_private.is_service();
  limit_key constant text := (
    select j.limit_key from public.sync_jobs j where j.id = job_id and (by_service or j.owner_id = auth.uid())
  );
  blocked record;
begin
  if limit_key is null then
    return null;
  end if;
  select l.blocked_until as until, l.blocked_reason as reason into blocked from public.sync_limits l where l.key = limit_key and l.blocked_until > now();
  -- It waits for room while it has parked slots and none that a claim could take.
  if blocked.until is null and (
    not exists (select from chunk_private.slots s where s.job_id = job_id and s.parked)
    or exists (select from chunk_private.slots s where s.job_id = job_id and (s.claimed or s.parked) is false and s.ready_at <= now())
  ) then
    return null;
  end if;
  return jsonb_build_object('key', limit_key, 'until', blocked.until) || case when by_service then jsonb_build_object(
    'reason', blocked.reason, 'processing', chunk_private.limit_used(limit_key),
    'max_concurrency', (select r.most from chunk_private.limit_of(limit_key) r)
  ) else '{}' end;
end
$$;
comment on function chunk_private.waiting_for is
  'Which limit key a job waits for, and until when it is blocked (null: for room); for the service also why, and how many chunks of the key are processing. Null: it waits for none.';

create or replace function public.list_sync_limits(key text default null)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
begin
  return (
    with recursive used (limit_key) as (
      (select s.limit_key from chunk_private.slots s where s.limit_key is not null order by s.limit_key limit 1)
      union all
      select n.limit_key from used u
      cross join lateral (
        select s.limit_key from chunk_private.slots s where s.limit_key > u.limit_key order by s.limit_key limit 1
      ) n
    ),
    named (limit_key) as (
      (select u.limit_key from used u where key is null limit 1000)
      union
      select l.key from public.sync_limits l where key is null
      union
      select key where key is not null
    )
    select coalesce(jsonb_agg(jsonb_build_object(
      'key', n.limit_key,
      'max_concurrency', r.most,
      'rate', l.rate,
      'per_seconds', case when l.rate is not null then l.per_seconds end,
      'blocked_until', case when l.blocked_until > now() then l.blocked_until end,
      'blocked_reason', case when l.blocked_until > now() then l.blocked_reason end,
      'processing', chunk_private.limit_used(n.limit_key),
      'waiting', (select count(*) from chunk_private.slots s where s.limit_key = n.limit_key and not s.claimed),
      'jobs', (select count(*) from public.sync_jobs j where j.limit_key = n.limit_key and j.status in ('pending', 'running', 'paused'))
    ) order by n.limit_key), '[]')
    from named n
    cross join lateral chunk_private.limit_of(n.limit_key) r
    left join public.sync_limits l on l.key = n.limit_key
  );
end
$$;
comment on function public.list_sync_limits is
  'The limit keys that have limits, are blocked, or have chunks in slots (up to 1,000 of these); or the one named. Each with its limits, how many of its chunks are processing and wait in slots, and its active jobs.';

-- 60_progress.sql

-- Progress: one definition of every figure, the view; the function gives one row of it as JSON.
--
-- One statement, so that all figures are of one moment. Nothing here grows with the number of chunks: up to 16 counters,
-- and the slots in use with the chunks in them (bounded by max_concurrency).

create view chunk_private.wanted_view
with (security_invoker = true)
as
select
  j.id,
  j.id as parent_sync_job_id,
  j.kind,
  j.status,
  j.total_chunks,
  n.open_chunks - p.processing_chunks as pending_chunks,
  p.processing_chunks,
  n.completed_chunks,
  n.failed_chunks,
  n.cancelled_chunks,
  n.retrying_chunks,
  j.items_total,
  n.items_processed + p.items_processed as items_processed,
  case
    when j.total_chunks > 0 then trunc(100.0 * (n.completed_chunks + n.failed_chunks) / j.total_chunks, 1)
    when j.status = 'completed' then 100.0
    else 0.0
  end as percent_complete,
  case
    when j.status = 'running' and n.completed_chunks + n.failed_chunks > 0 then
      ceil(extract(epoch from now() - j.started_at) * n.open_chunks / (n.completed_chunks + n.failed_chunks))::bigint
  end as eta_seconds,
  w.stalled_reason is not null as stalled,
  w.stalled_reason,
  case
    when j.limit_key is not null and j.status in ('pending', 'running') and p.processing_chunks = 0 and n.open_chunks > 0
    then chunk_private.waiting_for(j.id)
  end as waiting_for,
  j.created_at,
  j.started_at,
  j.completed_at,
  greatest(n.last_activity_at, p.last_activity_at, j.completed_at) as last_activity_at,
  n.last_error,
  j.job_key,
  j.payload,
  j.owner_id,
  j.priority,
  j.sealed
from public.sync_jobs j
cross join lateral (
  select
    coalesce(sum(c.open_chunks), 0)::bigint as open_chunks,
    coalesce(sum(c.completed_chunks), 0)::bigint as completed_chunks,
    coalesce(sum(c.failed_chunks), 0)::bigint as failed_chunks,
    coalesce(sum(c.cancelled_chunks), 0)::bigint as cancelled_chunks,
    coalesce(sum(c.retrying_chunks), 0)::bigint as retrying_chunks,
    coalesce(sum(c.items_processed), 0)::bigint as items_processed,
    max(c.last_activity_at) as last_activity_at,
    (array_agg(c.last_error order by c.failed_chunks > 0 desc, c.last_error_at desc nulls last))[1] as last_error,
    coalesce(max(c.slots_from), 0) as slots_from
  from chunk_private.newest_counters c
  where c.job_id = j.id
) n
cross join lateral (
  select
    count(q.id) as processing_chunks,
    coalesce(sum(q.items_processed - coalesce(q.items_counted, 0)), 0)::bigint as items_processed,
    max(q.updated_at) as last_activity_at,
    count(*) filter (where q.locked_until < now() - interval '1 minute') as overdue_chunks,
    min(s.ready_at) filter (where not s.claimed and not s.parked and s.ready_at <= now()) as waiting_since
  from chunk_private.slots s
  left join lateral ( -- of a slot that waits none: null is found at once
    select q.id, q.items_processed, q.items_counted, q.updated_at, q.locked_until from public.chunk_processing_queue q
    where q.parent_sync_job_id = case when s.claimed then s.job_id end and q.chunk_index = s.chunk_index
    limit 1
  ) q on true
  where s.job_id = j.id and s.chunk_index >= n.slots_from
) p
left join lateral (
  select case
    when n.open_chunks = 0 and not j.sealed and coalesce(n.last_activity_at, j.created_at) < now() - interval '1 minute' then
      'waiting for more chunks: append them, or seal the job'
    when p.processing_chunks > 0 and p.overdue_chunks = p.processing_chunks then
      'lost workers: every lease has run out; is the watchdog running?'
    when p.processing_chunks = 0 and k.handler is not null and p.waiting_since is not null and d.error is not null then
      'webhook failed: ' || d.error
    when p.processing_chunks = 0 and p.waiting_since < now() - interval '1 minute' and k.handler is null then
      format('no worker has claimed a chunk of kind %s for %s s', j.kind, ceil(extract(epoch from now() - p.waiting_since)))
    when p.processing_chunks = 0 and p.waiting_since < now() - interval '1 minute' then
      format('no webhook has led to a claim for %s s', ceil(extract(epoch from now() - p.waiting_since)))
  end as stalled_reason
  from public.sync_kinds k
  left join lateral (
    select d.error from chunk_private.dispatches d
    where d.job_id = j.id and (d.error is not null or d.answered_at is not null)
    order by d.id desc limit 1
  ) d on true
  where k.kind = j.kind
) w on j.status in ('pending', 'running');

select chunk_private.replace_view('public.chunk_processing_status');

comment on view public.chunk_processing_status is 'One row a job: counts, progress, and whether it stands still, exact at every commit.';
comment on column public.chunk_processing_status.parent_sync_job_id is 'The same as id, named as in chunk_processing_queue.';
comment on column public.chunk_processing_status.pending_chunks is 'Waiting: for a claim, for the end of a backoff, or for a slot.';
comment on column public.chunk_processing_status.retrying_chunks is 'Of the pending and processing ones, those that have failed at least once.';
comment on column public.chunk_processing_status.items_processed is 'Items of completed chunks, and of running ones as their last heartbeat said.';
comment on column public.chunk_processing_status.percent_complete is 'Completed and failed chunks of all known so far, rounded down: 100 only when nothing is open.';
comment on column public.chunk_processing_status.eta_seconds is 'Seconds to the end at the pace so far; null before the first chunk has ended.';
comment on column public.chunk_processing_status.stalled is 'Whether a running job stands still; why: stalled_reason.';
comment on column public.chunk_processing_status.waiting_for is
  'The limit key that it waits for, as {key, until}: until its block ends, or with null for room. It is not stalled then. The service also sees the reason and counts.';
comment on column public.chunk_processing_status.last_error is 'The last error of a chunk that failed for good; while there is none, of an attempt.';
comment on column public.chunk_processing_status.last_activity_at is 'The last claim, heartbeat, report or append.';

create or replace function public.get_sync_job_progress_safe(parent_sync_job_id uuid)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- which would read what an old snapshot keeps of the slots
set jit = off
as $$
#variable_conflict use_variable
declare
  progress jsonb;
begin
  select to_jsonb(s) into progress from public.chunk_processing_status s where s.id = get_sync_job_progress_safe.parent_sync_job_id;
  if progress is null then
    raise exception using errcode = 'SC001', message = format('there is no sync job %s', coalesce(parent_sync_job_id::text, '(null)')),
      hint = 'Or it belongs to another user.';
  end if;
  return progress;
end
$$;
comment on function public.get_sync_job_progress_safe is 'A job''s row of chunk_processing_status as JSON. SC001 when there is none, or it is another user''s.';

-- 61_attempts.sql

-- What went before: the attempts of a job's chunks that did not complete.

create or replace function public.list_chunk_attempts(parent_sync_job_id uuid, after_id bigint default 0)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
  select coalesce(jsonb_agg(to_jsonb(p) order by p.id), '[]')
  from (
    select a.id, a.chunk_id, q.chunk_index, a.attempt, a.outcome, a.error, a.worker_id,
      a.claimed_at as started_at, a.ended_at
    from chunk_private.chunk_attempts a
    cross join lateral (select q.chunk_index from public.chunk_processing_queue q where q.id = a.chunk_id limit 1) q
    where a.job_id = $1 and a.id > $2
    order by a.id
    limit 1000
  ) p;
$$;
comment on function public.list_chunk_attempts is
  'The attempts of a job''s chunks that did not complete, in the order of their ends, at most 1,000 after an id: which chunk, which attempt, when, who, and why. Users see their own.';

-- 70_start.sql

-- Starting jobs. Users may call what is here and in the next two files for their own jobs, and write no table themselves:
-- hence each is a definer function in chunk_private, which checks who calls, behind an invoker wrapper in public.

create or replace function chunk_private.count_first_chunks(chunks jsonb, total_items bigint, chunk_size int, most_bytes int)
returns bigint
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  total bigint;
begin
  perform chunk_private.check_items('total_items', total_items);
  perform chunk_private.check_range('chunk_size', chunk_size, 1, 2147483647);
  if chunks is not null then
    if chunk_size is not null then
      raise exception using errcode = 'SC003', detail = 'chunk_size', message = 'chunk_size goes with total_items, not with chunks';
    end if;
    perform chunk_private.check_chunks('chunks', chunks, most_bytes);
    return jsonb_array_length(chunks);
  elsif total_items is null and chunk_size is null then
    return 1;
  elsif total_items is null or chunk_size is null then
    raise exception using errcode = 'SC003', detail = case when chunk_size is null then 'chunk_size' else 'total_items' end,
      message = 'total_items and chunk_size go together, unless chunks are given';
  end if;
  total := (total_items + chunk_size - 1) / chunk_size;
  if total > 100000 then
    raise exception using errcode = 'SC004', detail = 'chunk_size',
      message = format('%s items with a chunk_size of %s are %s chunks; one call may make 100000', total_items, chunk_size, total);
  end if;
  return total;
end
$$;
comment on function chunk_private.count_first_chunks is
  'How many chunks a start makes, of chunks given or total_items in pieces of chunk_size; raises SC003 or SC004, naming the argument.';

create or replace function chunk_private.check_user_start(job public.sync_jobs, rules public.sync_kinds)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  limits constant chunk_private.settings := (select s from chunk_private.settings s);
begin
  if job.total_chunks > limits.user_max_chunks then
    raise exception using errcode = 'SC004', detail = 'chunks',
      message = format('a user''s job may have %s chunks, not %s', limits.user_max_chunks, job.total_chunks);
  elsif job.max_concurrency > rules.max_concurrency then
    raise exception using errcode = 'SC004', detail = 'max_concurrency', message = format(
      'a user''s job of kind %s may have max_concurrency %s, not %s', job.kind, rules.max_concurrency, job.max_concurrency
    );
  elsif job.max_retries > rules.max_retries then
    raise exception using errcode = 'SC004', detail = 'max_retries',
      message = format('a user''s job of kind %s may have max_retries %s, not %s', job.kind, rules.max_retries, job.max_retries);
  elsif job.priority > 0 then
    raise exception using errcode = 'SC004', detail = 'priority', message = 'a user''s job may not have a priority above 0';
  end if;
end
$$;
comment on function chunk_private.check_user_start is 'Raises SC004, naming the argument, for a job that a user may not start.';

create or replace function chunk_private.find_started(job public.sync_jobs)
returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  found_id uuid;
begin
  select j.id into found_id from public.sync_jobs j
  where j.owner_id is not distinct from job.owner_id and j.id = any (array(
    select m.id from public.sync_jobs m where m.request_id = job.request_id
    union all
    select r.job_id from chunk_private.answered_requests r where r.request_id = job.request_id and r.call = 'start'
  ));
  if found_id is null then
    select j.id into found_id from public.sync_jobs j
    where j.kind = job.kind and j.job_key = job.job_key and j.owner_id is not distinct from job.owner_id
      and j.status in ('pending', 'running', 'paused');
    if found and job.request_id is not null then
      perform chunk_private.remember_request(found_id, job.request_id, 'start');
    end if;
  end if;
  return found_id;
end
$$;
comment on function chunk_private.find_started is
  'The job that the same request has started or was given, else the active one with the same key, or null.';

create or replace function chunk_private.make_first_chunks(job public.sync_jobs, chunks jsonb, chunk_size int)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  insert into public.chunk_processing_queue (parent_sync_job_id, kind, owner_id, chunk_index, max_retries, payload, items_total)
  select job.id, job.kind, job.owner_id, c.place - 1, job.max_retries, c.payload, c.items
  from (
    select l.place, l.payload, null::bigint as items
    from jsonb_array_elements(chunks) with ordinality l (payload, place) where chunks is not null
    union all
    select s.place, jsonb_build_object('offset', s.first, 'limit', s.items), s.items
    from (
      select g.place, (g.place - 1) * chunk_size as first, least(chunk_size, job.items_total - (g.place - 1) * chunk_size) as items
      from generate_series(1, job.total_chunks) g (place)
    ) s where chunks is null and chunk_size is not null
    union all
    select 1, null, null where chunks is null and chunk_size is null -- it reads the job's, which is stored once
  ) c;
  perform chunk_private.line_up(job, 0, job.total_chunks);
  perform chunk_private.make_lane(job.kind, job.priority);
  perform chunk_private.fill_slots(job.id);
end
$$;
comment on function chunk_private.make_first_chunks is 'Makes the chunks of a new job, and hands out its first slots.';

create or replace function chunk_private.start_sync_job(
  kind text, chunks jsonb, total_items bigint, chunk_size int, payload jsonb, job_key text, request_id uuid, priority int,
  max_concurrency int, max_retries int, owner_id uuid, sealed boolean, limit_key text
)
returns jsonb
language plpgsql
security definer -- users may start jobs and write no table
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  by_service constant boolean := chunk_private.is_service();
  limits constant chunk_private.settings := (select s from chunk_private.settings s);
  rules public.sync_kinds;
  job public.sync_jobs;
  found_id uuid;
begin
  perform chunk_private.check_isolation('start_sync_job');
  -- Arguments
  select k.* into rules from public.sync_kinds k where k.kind = start_sync_job.kind and (by_service or k.user_startable);
  if not found then
    raise exception using errcode = 'SC002', detail = 'kind',
      message = format('no sync kind is named %L%s', kind, case when by_service then '' else ' that users may start' end),
      hint = 'save_sync_kind() adds one, or lets users start it.';
  elsif jsonb_typeof(payload) is distinct from 'object' then
    raise exception using errcode = 'SC003', detail = 'payload', message = 'payload must be a JSON object';
  elsif length(job_key) not between 1 and 500 then
    raise exception using errcode = 'SC003', detail = 'job_key', message = 'job_key must be a text of 1 to 500 characters, or null';
  end if;
  perform chunk_private.check_object('payload', payload, case when by_service then limits.max_payload_bytes else limits.user_max_payload_bytes end);
  perform chunk_private.check_range('priority', priority, -3, 3);
  perform chunk_private.check_range('max_concurrency', max_concurrency, 1, 1000);
  perform chunk_private.check_range('max_retries', max_retries, 0, 100);
  job.total_chunks := chunk_private.count_first_chunks(
    chunks, total_items, chunk_size, case when by_service then limits.max_payload_bytes else limits.user_max_chunk_bytes end
  );
  job.kind := kind;
  job.owner_id := chunk_private.owner_meant(owner_id);
  job.payload := payload;
  job.job_key := job_key;
  job.request_id := request_id;
  job.priority := coalesce(priority, 0);
  job.max_concurrency := coalesce(max_concurrency, rules.max_concurrency);
  job.max_retries := coalesce(max_retries, rules.max_retries);
  job.sealed := coalesce(sealed, true);
  job.stripes := least(16, job.max_concurrency);
  job.limit_key := chunk_private.limit_key_meant(limit_key, job, rules.limit_by);
  job.items_total := total_items;
  job.job_no := case when job_key is not null then chunk_private.next_job_no() end;
  if not by_service then
    perform chunk_private.check_user_start(job, rules);
    perform chunk_private.lock_user(job.owner_id);
  end if;

  -- The job, or the one that the same request or the same key has made before. `on conflict do nothing` waits for a
  -- concurrent start of the same key; what it met may have ended before we look, hence the loop.
  for round in 1..20 loop
    found_id := chunk_private.find_started(job);
    if found_id is not null then
      return public.get_sync_job_progress_safe(found_id) || '{"created": false}';
    end if;
    if not by_service then
      perform chunk_private.check_active_jobs(job.owner_id);
      perform chunk_private.check_kept_chunks(job.owner_id, greatest(job.total_chunks, 1));
      perform chunk_private.check_webhooks(job.owner_id);
    end if;
    insert into public.sync_jobs (kind, owner_id, status, payload, job_key, request_id, priority, max_concurrency, max_retries, sealed,
      total_chunks, items_total, job_no, limit_key, stripes, completed_at)
    select job.kind, job.owner_id, case when e.empty then 'completed' else 'pending' end, job.payload, job.job_key, job.request_id,
      job.priority, job.max_concurrency, job.max_retries, job.sealed, job.total_chunks, job.items_total, job.job_no,
      job.limit_key, job.stripes, case when e.empty then now() end
    from (select job.total_chunks = 0 and job.sealed as empty) e
    on conflict do nothing
    returning sync_jobs.id into found_id;
    if found then
      job := (select j from public.sync_jobs j where j.id = found_id);
      perform chunk_private.make_first_chunks(job, chunks, chunk_size);
      perform chunk_private.settle_limits(array[job.limit_key]);
      return public.get_sync_job_progress_safe(job.id) || '{"created": true}';
    end if;
  end loop;
  raise exception using errcode = 'SC005', message = format('jobs with the key %L start and end faster than this call can see', job_key);
end
$$;
comment on function chunk_private.start_sync_job is 'The body of start_sync_job.';

create or replace function public.start_sync_job(
  kind text, chunks jsonb default null, total_items bigint default null, chunk_size int default null, payload jsonb default '{}',
  job_key text default null, request_id uuid default null, priority int default 0, max_concurrency int default null,
  max_retries int default null, owner_id uuid default null, sealed boolean default true, limit_key text default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set statement_timeout = '60s'
set enable_seqscan = off
set jit = off
as $$ select chunk_private.start_sync_job($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13); $$;
comment on function public.start_sync_job is
  'Starts a sync: its chunks given as a JSON array of objects, or as total_items in pieces of chunk_size (payloads {offset, limit}), or by neither as one chunk with the job''s payload. Returns the job''s progress and whether it was created: with a job_key that is active, or a request_id seen before, the earlier job is returned. limit_key (of the service only): what it shares limits by with other jobs, instead of what its kind says.';

-- 71_append.sql

-- Appending chunks to a job.

create or replace function chunk_private.add_items(job_id uuid, more bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  update public.sync_jobs j
  set items_total = least(coalesce(j.items_total, 0) + more, chunk_private.most_items())
  where j.id = job_id and more is not null;
end
$$;
comment on function chunk_private.add_items is
  'Adds to the number of items that a job has announced; null adds nothing. The sum stops at 2^53 - 1, where a report must not fail any more.';

create or replace function chunk_private.add_chunks(job_id uuid, chunks jsonb, more_items bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job constant public.sync_jobs := (select j from public.sync_jobs j where j.id = job_id);
  total constant bigint := job.total_chunks + jsonb_array_length(chunks);
begin
  insert into public.chunk_processing_queue (parent_sync_job_id, kind, owner_id, chunk_index, max_retries, payload)
  select job.id, job.kind, job.owner_id, job.total_chunks + c.place - 1, job.max_retries, c.payload
  from jsonb_array_elements(chunks) with ordinality c (payload, place);
  perform chunk_private.line_up(job, job.total_chunks, total);
  update public.sync_jobs j set total_chunks = total where j.id = job.id;
  perform chunk_private.add_items(job.id, more_items);
end
$$;
comment on function chunk_private.add_chunks is 'Appends checked chunks to the end of an active job, and counts them; the caller is alone in its gate.';

create or replace function chunk_private.append_sync_chunks(
  parent_sync_job_id uuid, chunks jsonb, request_id uuid, seal boolean, items_total bigint, settles boolean
)
returns jsonb
language plpgsql
security definer -- users may append to their own jobs and write no table
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  by_service constant boolean := chunk_private.is_service();
  limits constant chunk_private.settings := (select s from chunk_private.settings s);
  job public.sync_jobs;
begin
  chunks := coalesce(chunks, '[]');
  perform chunk_private.check_chunks('chunks', chunks, case when by_service then limits.max_payload_bytes else limits.user_max_chunk_bytes end);
  perform chunk_private.check_items('items_total', items_total);
  job := chunk_private.enter_own_job(parent_sync_job_id, 'append_sync_chunks');
  if request_id is not null and exists (
    select from chunk_private.answered_requests r
    where r.request_id = append_sync_chunks.request_id and r.job_id = job.id and r.call = 'append'
  ) then
    return public.get_sync_job_progress_safe(job.id);
  end if;
  if job.status not in ('pending', 'running', 'paused') then
    perform chunk_private.refuse(job, 'appended to');
  end if;
  if not by_service then
    if job.sealed then
      raise exception using errcode = 'SC005', message = format('the sync job %s is sealed: only an unsealed job can be appended to', job.id);
    end if;
    if job.total_chunks + jsonb_array_length(chunks) > limits.user_max_chunks then
      raise exception using errcode = 'SC004', detail = 'chunks',
        message = format('a user''s job may have %s chunks (user_max_chunks)', limits.user_max_chunks);
    end if;
    perform chunk_private.lock_user(job.owner_id);
    perform chunk_private.check_kept_chunks(job.owner_id, jsonb_array_length(chunks));
    perform chunk_private.check_webhooks(job.owner_id);
  end if;
  if request_id is not null then
    perform chunk_private.remember_request(job.id, request_id, 'append');
  end if;
  perform chunk_private.add_chunks(job.id, chunks, items_total);
  if seal and not job.sealed then
    update public.sync_jobs j set sealed = true where j.id = job.id;
    perform chunk_private.finish_if_done(job.id);
  end if;
  perform chunk_private.fill_slots(job.id);
  if settles then
    perform chunk_private.settle_limits(array[job.limit_key]);
  end if;
  return public.get_sync_job_progress_safe(job.id);
end
$$;
comment on function chunk_private.append_sync_chunks is 'The body of append_sync_chunks. settles: whether no other append follows in this call, and the limit key is settled.';

create or replace function public.append_sync_chunks(
  parent_sync_job_id uuid, chunks jsonb, request_id uuid default null, seal boolean default false, items_total bigint default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set statement_timeout = '60s'
set enable_seqscan = off
set jit = off
as $$ select chunk_private.append_sync_chunks($1, $2, $3, $4, $5, true); $$;
comment on function public.append_sync_chunks is
  'Appends chunks (a JSON array of objects) to an active job; for users: to an unsealed job of their own. The same request_id again adds nothing. seal => true says that these were the last.';

-- All gates before the first append: that takes a user's lock, for which others wait in a gate.
create or replace function chunk_private.enter_own_jobs(job_ids uuid[])
returns void
language plpgsql
security definer -- users may append to their own jobs, and call no gate
set search_path = pg_catalog, pg_temp
as $$
begin
  perform chunk_private.enter_own_job(i.id, 'enqueue_chunks_from_rows')
  from (select distinct u.id from unnest(job_ids) u (id) order by 1) i;
end
$$;
comment on function chunk_private.enter_own_jobs is 'Enters the gates of jobs that the caller may steer, alone and in their order; SC001 when there is another.';

-- After the last append: whoever has a limit key waits for nothing else.
create or replace function chunk_private.settle_jobs(job_ids uuid[])
returns void
language plpgsql
security definer -- users may append to their own jobs, and write no slots
set search_path = pg_catalog, pg_temp
as $$
begin
  perform chunk_private.settle_limits(array(select j.limit_key from public.sync_jobs j where j.id = any (job_ids)));
end
$$;
comment on function chunk_private.settle_jobs is 'Settles the limit keys of jobs, which does no more than anybody''s next call would.';

create or replace function public.enqueue_chunks_from_rows()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  job_column constant text := coalesce(tg_argv[0], 'parent_sync_job_id');
  job_ids uuid[];
  page record;
begin
  if exists (select from new_rows r where to_jsonb(r) ->> job_column is null) then
    raise exception using errcode = 'SC003', detail = job_column,
      message = format('each row of %s must name its sync job in the column %s', tg_relid::regclass, job_column);
  end if;
  job_ids := array(select distinct (to_jsonb(r) ->> job_column)::uuid from new_rows r);
  if cardinality(job_ids) > 1000 then -- each gate is an entry in the server's table of locks
    raise exception using errcode = 'SC004', detail = job_column,
      message = format('the rows for %s name %s sync jobs in the column %s; one statement may name 1000', tg_relid::regclass, cardinality(job_ids), job_column);
  end if;
  perform chunk_private.enter_own_jobs(job_ids);
  for page in
    select (to_jsonb(r) ->> job_column)::uuid as job_id, jsonb_agg(to_jsonb(r)) as chunks
    from new_rows r
    group by 1
    order by 1
  loop
    perform chunk_private.append_sync_chunks(page.job_id, page.chunks, null, false, null, false);
  end loop;
  perform chunk_private.settle_jobs(job_ids);
  return null;
end
$$;
comment on function public.enqueue_chunks_from_rows is
  'A trigger for your own table of chunks: each row inserted becomes a chunk (its payload is the row) of the job that the column parent_sync_job_id, or the one named as the trigger''s argument, gives. Attach it with: create trigger … after insert on … referencing new table as new_rows for each statement execute function enqueue_chunks_from_rows().';

-- 72_steer.sql

-- Cancel, pause, resume, retry.

create or replace function chunk_private.cancel_sync_job(parent_sync_job_id uuid)
returns jsonb
language plpgsql
security definer -- users may cancel their own jobs and write no table
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job constant public.sync_jobs := chunk_private.enter_own_job(parent_sync_job_id, 'cancel_sync_job');
begin
  if job.status in ('completed', 'failed') then
    perform chunk_private.refuse(job, 'cancelled');
  elsif job.status <> 'cancelled' then
    -- The slots first: this waits for claims that are under way, and leaves nothing to later ones.
    delete from chunk_private.slots s where s.job_id = job.id;
    delete from chunk_private.returned_chunks r where r.job_id = job.id;
    delete from chunk_private.fresh_stripes f where f.job_id = job.id;
    with ended as (
      update public.chunk_processing_queue q
      set status = 'cancelled', locked_until = null, completed_at = now(), updated_at = now()
      where q.parent_sync_job_id = job.id and q.status in ('pending', 'processing')
      returning q.id, q.attempts, q.worker_id, q.claim_token, q.started_at, q.chunk_index,
        coalesce(q.items_processed, 0) - coalesce(q.items_counted, 0) as items
    ),
    recorded as (
      insert into chunk_private.chunk_attempts (job_id, chunk_id, attempt, outcome, worker_id, claim_token, claimed_at)
      select job.id, e.id, e.attempts, 'cancelled', e.worker_id, e.claim_token, e.started_at from ended e where e.claim_token is not null
    )
    update chunk_private.job_counters c
    set open_chunks = 0, retrying_chunks = 0, cancelled_chunks = c.cancelled_chunks + c.open_chunks, last_activity_at = now(),
        items_processed = least(greatest(c.items_processed + coalesce((
          select sum(e.items) from ended e where e.chunk_index % job.stripes = c.stripe and e.claim_token is not null
        ), 0), 0), chunk_private.most_items())::bigint
    where c.job_id = job.id;
    update public.sync_jobs j
    set status = 'cancelled', completed_at = now()
    where j.id = job.id;
  end if;
  perform chunk_private.settle_limits(array[job.limit_key]);
  return public.get_sync_job_progress_safe(job.id);
end
$$;
comment on function chunk_private.cancel_sync_job is 'The body of cancel_sync_job.';

create or replace function chunk_private.pause_sync_job(parent_sync_job_id uuid)
returns jsonb
language plpgsql
security definer -- users may pause their own jobs and write no table
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job constant public.sync_jobs := chunk_private.enter_own_job(parent_sync_job_id, 'pause_sync_job');
begin
  if job.status in ('completed', 'failed', 'cancelled') then
    perform chunk_private.refuse(job, 'paused');
  elsif job.status <> 'paused' then
    with taken_back as (
      delete from chunk_private.slots s where s.job_id = job.id and not s.claimed returning s.ready_at, s.chunk_index
    )
    insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
    select job.id, t.ready_at, t.chunk_index from taken_back t;
    update public.sync_jobs j set status = 'paused' where j.id = job.id;
  end if;
  perform chunk_private.settle_limits(array[job.limit_key]);
  return public.get_sync_job_progress_safe(job.id);
end
$$;
comment on function chunk_private.pause_sync_job is 'The body of pause_sync_job.';

create or replace function chunk_private.resume_sync_job(parent_sync_job_id uuid)
returns jsonb
language plpgsql
security definer -- users may resume their own jobs and write no table
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job constant public.sync_jobs := chunk_private.enter_own_job(parent_sync_job_id, 'resume_sync_job');
begin
  if job.status in ('completed', 'failed', 'cancelled') then
    perform chunk_private.refuse(job, 'resumed');
  elsif job.status = 'paused' then
    if not chunk_private.is_service() then
      perform chunk_private.lock_user(job.owner_id);
      perform chunk_private.check_webhooks(job.owner_id);
    end if;
    update public.sync_jobs j
    set status = case when j.started_at is null then 'pending' else 'running' end
    where j.id = job.id;
    perform chunk_private.fill_slots(job.id);
  end if;
  perform chunk_private.settle_limits(array[job.limit_key]);
  return public.get_sync_job_progress_safe(job.id);
end
$$;
comment on function chunk_private.resume_sync_job is 'The body of resume_sync_job.';

create or replace function chunk_private.retry_failed_chunks(parent_sync_job_id uuid, from_start boolean)
returns jsonb
language plpgsql
security definer -- users may retry their own jobs and write no table
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job constant public.sync_jobs := chunk_private.enter_own_job(parent_sync_job_id, 'retry_failed_chunks');
  reopened bigint;
begin
  if job.status in ('completed', 'cancelled') then
    perform chunk_private.refuse(job, 'retried');
  elsif not chunk_private.is_service() then
    perform chunk_private.lock_user(job.owner_id);
    perform chunk_private.check_webhooks(job.owner_id);
    if job.status = 'failed' then
      perform chunk_private.check_active_jobs(job.owner_id);
    end if;
  end if;
  if from_start then
    update chunk_private.job_counters c
    set items_processed = greatest(c.items_processed - f.items, 0), changes = c.changes + 1
    from (
      select q.chunk_index % job.stripes as stripe, sum(q.items_counted)::bigint as items
      from public.chunk_processing_queue q
      where q.parent_sync_job_id = job.id and q.status = 'failed' and q.items_counted is not null
      group by 1
    ) f
    where c.job_id = job.id and c.stripe = f.stripe;
  end if;
  with chunk as (
    update public.chunk_processing_queue q
    set status = 'pending', attempts = 0, given_back = 0, throttled = null, has_failed = false, claim_token = null, completed_at = null, updated_at = now(),
        items_processed = case when not from_start then q.checkpoint_items end,
        items_counted = case when not from_start then q.items_counted end, checkpoint = case when not from_start then q.checkpoint end,
        checkpoint_items = case when not from_start then q.checkpoint_items end, checkpoint_at = null, checkpoints = null
    where q.parent_sync_job_id = job.id and q.status = 'failed'
    returning q.chunk_index
  )
  insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
  select job.id, now(), c.chunk_index from chunk c;
  get diagnostics reopened = row_count;
  if reopened <> (select coalesce(sum(c.failed_chunks), 0) from chunk_private.newest_counters c where c.job_id = job.id) then
    perform chunk_private.refuse(job, 'retried any more: purge_sync_jobs() has begun to delete its chunks');
  end if;
  update chunk_private.job_counters c
  set open_chunks = c.open_chunks + c.failed_chunks, failed_chunks = 0, slots_from = 0, changes = c.changes + 1, last_activity_at = now()
  where c.job_id = job.id;
  if job.status = 'failed' then
    begin
      update public.sync_jobs j set status = 'running', completed_at = null where j.id = job.id;
    exception when unique_violation then
      raise exception using errcode = 'SC005',
        message = format('the sync job %s cannot be retried: another job with the key %L is active', job.id, job.job_key);
    end;
  end if;
  perform chunk_private.fill_slots(job.id);
  perform chunk_private.settle_limits(array[job.limit_key]);
  return public.get_sync_job_progress_safe(job.id);
end
$$;
comment on function chunk_private.retry_failed_chunks is 'The body of retry_failed_chunks.';

create or replace function public.cancel_sync_job(parent_sync_job_id uuid)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set statement_timeout = '60s'
set enable_seqscan = off
set jit = off
as $$ select chunk_private.cancel_sync_job($1); $$;
comment on function public.cancel_sync_job is
  'Ends a job and all its open chunks at once; a worker hears of it at its next heartbeat, and its late report answers cancelled. SC005 when the job has completed or failed.';

create or replace function public.pause_sync_job(parent_sync_job_id uuid)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set statement_timeout = '60s'
set enable_seqscan = off
set jit = off
as $$ select chunk_private.pause_sync_job($1); $$;
comment on function public.pause_sync_job is 'Stops handing out a job''s chunks; those that are processing go on. SC005 when the job has ended.';

create or replace function public.resume_sync_job(parent_sync_job_id uuid)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set statement_timeout = '60s'
set enable_seqscan = off
set jit = off
as $$ select chunk_private.resume_sync_job($1); $$;
comment on function public.resume_sync_job is 'Goes on with a paused job. SC005 when the job has ended.';

create or replace function public.retry_failed_chunks(parent_sync_job_id uuid, from_start boolean default false)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set statement_timeout = '60s'
set enable_seqscan = off
set jit = off
as $$ select chunk_private.retry_failed_chunks($1, $2); $$;
comment on function public.retry_failed_chunks is
  'Reopens the failed chunks of a job with all their attempts; the others stay as they are. They go on from their checkpoints, or with from_start from their beginning. SC005 when the job has completed, was cancelled or is being purged; SC004 when a user has as many active jobs as allowed.';

-- 80_dispatch.sql

-- Dispatch: the webhooks that ask the processor to claim, and what became of them.

-- Vault and pg_net may be used by the owner of the migrations only, hence a definer. A webhook must never break the write
-- that asks for it: every failure ends in the table of dispatches, and the chunk stays claimable.
create or replace function chunk_private.dispatch(job public.sync_jobs, chunk_indexes bigint[], more boolean default false)
returns int
language plpgsql
security definer -- reads the Vault and calls pg_net, which service_role may not
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  chunk_ids constant bigint[] := array(
    select q.id from public.chunk_processing_queue q
    where q.parent_sync_job_id = job.id and q.chunk_index = any (chunk_indexes) order by q.chunk_index
  );
  base_url text;
  processor_key text;
  chunk_id bigint;
  problem text;
  wait_seconds int;
  request_ids bigint[] := array[]::bigint[];
  problems text[] := array[]::text[];
  request_id bigint;
begin
  begin
    select max(s.decrypted_secret) filter (where s.name = 'project_url'),
      max(s.decrypted_secret) filter (where s.name = 'chunk_processor_key')
    into base_url, processor_key
    from vault.decrypted_secrets s where s.name in ('project_url', 'chunk_processor_key');
    if base_url is null or processor_key is null then
      problem := 'not configured: call configure_chunk_processing() with the project''s URL and a secret key';
    end if;
  exception when others then
    problem := 'the Vault cannot be read: ' || sqlerrm;
  end;
  foreach chunk_id in array chunk_ids loop
    request_id := null;
    if problem is null then
      wait_seconds := (
        select ceil(extract(epoch from w.ready_at - now()))::int
        from (
          select greatest(q.ready_at, case when job.limit_key is not null then
            (select l.blocked_until from public.sync_limits l where l.key = job.limit_key) end) as ready_at
          from public.chunk_processing_queue q where q.id = chunk_id
        ) w where w.ready_at > now()
      );
      begin
        request_id := net.http_post(
          url => base_url || '/functions/v1/background-sync-processor',
          body => jsonb_strip_nulls(jsonb_build_object(
            'parent_sync_job_id', job.id, 'chunk_id', chunk_id, 'wait_seconds', wait_seconds, 'more', case when more then true end
          )),
          headers => jsonb_build_object('Content-Type', 'application/json', 'apikey', processor_key),
          timeout_milliseconds => 10000
        );
      exception
        when undefined_function or invalid_schema_name then
          problem := 'the extension pg_net is not installed';
        when others then
          problem := 'pg_net refused the request: ' || sqlerrm;
      end;
    end if;
    request_ids := request_ids || request_id;
    problems := problems || problem;
  end loop;
  insert into chunk_private.dispatches (job_id, owner_id, chunk_id, request_id, error, by_user)
  select job.id, job.owner_id, d.chunk_id, d.request_id, d.problem,
    not chunk_private.is_service() and coalesce(job.owner_id = auth.uid(), false) -- a limit key wakes others' chunks too
  from unnest(chunk_ids, request_ids, problems) d (chunk_id, request_id, problem);
  return cardinality(array_remove(request_ids, null));
end
$$;
comment on function chunk_private.dispatch is
  'Asks pg_net for one webhook a chunk, sent after commit; returns how many it took. URL and key come from the Vault at each call. wait_seconds in it: the chunk''s retry is due then. more: further webhooks are held back until this one has arrived.';

-- pg_net keeps its answers for six hours, and its index is by time: only those are read that can be to an open question.
-- Its tables are unlogged: after a crash they are empty and its ids begin again. So the first pass on a server that has
-- started anew lets nothing that was asked before take an answer from after the start, and of two questions with one id only
-- the later can be answered.
create or replace function chunk_private.collect_dispatch_outcomes()
returns int
language plpgsql
security definer -- reads pg_net's answers, which service_role may not
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  server_began constant timestamptz := pg_postmaster_start_time();
  restarted constant boolean := exists (select from chunk_private.watchdog w where w.server_began is distinct from server_began);
  open_since constant timestamptz := (
    select min(d.created_at) from chunk_private.dispatches d where d.answered_at is null and d.request_id is not null
  );
  collected int;
begin
  if open_since is null or to_regclass('net._http_response') is null then
    return 0;
  end if;
  update chunk_private.dispatches d
  set answered_at = now(), error = 'pg_net kept no answer'
  where d.answered_at is null and d.request_id is not null and exists (
    select from chunk_private.dispatches n where n.request_id = d.request_id and n.answered_at is null and n.id > d.id
  );
  update chunk_private.dispatches d
  set status_code = r.status_code,
      answered_at = r.created,
      error = case
        when r.timed_out then coalesce(r.error_msg, 'no answer in time')
        when r.error_msg is not null then r.error_msg
        when r.status_code >= 300 then left(format('HTTP %s: %s', r.status_code, r.content), 300)
      end
  from net._http_response r
  where r.created >= open_since and r.id = d.request_id and d.answered_at is null and d.request_id is not null
    and r.created >= d.created_at and not (restarted and d.created_at < server_began and r.created >= server_began);
  get diagnostics collected = row_count;
  update chunk_private.dispatches d
  set answered_at = now(), error = 'pg_net kept no answer'
  where d.answered_at is null and d.request_id is not null
    and d.created_at < greatest(now() - interval '5 minutes', case when restarted then server_began end)
    and not exists (select from net.http_request_queue w where w.id = d.request_id);
  return collected;
end
$$;
comment on function chunk_private.collect_dispatch_outcomes is 'Copies the answers that pg_net has got to the dispatches; returns how many.';

create or replace function chunk_private.unsent_webhooks(out webhooks int, out oldest_at timestamptz)
language plpgsql
stable
security definer -- reads pg_net's queue, which service_role may not
set search_path = pg_catalog, pg_temp
as $$
begin
  if to_regclass('net.http_request_queue') is null then
    webhooks := 0;
    return;
  end if;
  select count(*), min(d.created_at) into webhooks, oldest_at
  from chunk_private.dispatches d
  join net.http_request_queue r on r.id = d.request_id
  where d.answered_at is null and d.request_id is not null;
exception when others then
  webhooks := 0; -- a pg_net that cannot be looked into; what cannot be sent says so itself
end
$$;
comment on function chunk_private.unsent_webhooks is 'How many of our webhooks pg_net has not sent yet, and since when the oldest waits.';

-- 81_dispatch_waiting.sql

-- Webhooks for chunks that wait: which, and how many at once.

-- Under way is a webhook until somebody has claimed its chunk, or pg_net has got an answer, or could have: it gives up after
-- ten seconds. Those that pg_net has not even sent by then count too, for more would only lengthen its queue.
create or replace function chunk_private.webhooks_under_way()
returns int
language plpgsql -- these two keep their plans; as SQL they would be planned in each pass
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select count(*)::int + greatest(0, (select u.webhooks from chunk_private.unsent_webhooks() u where u.oldest_at < now() - interval '12 seconds'))
    from chunk_private.dispatches d
    join public.chunk_processing_queue q on q.id = d.chunk_id
    join chunk_private.slots s on s.job_id = q.parent_sync_job_id and s.chunk_index = q.chunk_index
    where d.created_at > now() - interval '12 seconds' and d.answered_at is null and d.request_id is not null and not s.claimed
  );
end
$$;
comment on function chunk_private.webhooks_under_way is 'How many webhooks may still lead to a claim, or wait in a pg_net that does not send.';

-- Each webhook that led to no claim doubles the wait for the next: 30 s, 1 min, 2 min … about an hour. One that is known to
-- have failed is sent again sooner: at once, then after 5 s, 15 s, 35 s … 5 min, and as soon as another has gone well, for
-- then what stood in the way is gone. A claim says so before pg_net has the answer.
create or replace function chunk_private.waiting_slots(parent_sync_job_id uuid, overdue_only boolean)
returns setof chunk_private.slots
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  return query
  with well as (
    select greatest(
      (select d.created_at from chunk_private.dispatches d
        where d.answered_at is not null and d.error is null
        order by d.created_at desc limit 1),
      (select max(c.dispatched_at) from chunk_private.slots c
        where c.claimed and c.dispatched_at is not null
          and not exists (select from chunk_private.dispatches d where d.created_at = c.dispatched_at and d.error is not null))
    ) as sent_at
  )
  select s.* from chunk_private.slots s
  join chunk_private.lanes l on l.id = s.lane
  join public.sync_kinds k on k.kind = l.kind
  where not s.claimed and not s.parked and s.ready_at <= now() and k.handler is not null and (parent_sync_job_id is null or s.job_id = parent_sync_job_id)
    and (not overdue_only or s.dispatched_at is null
      or s.dispatched_at < now() - interval '28 seconds' * 2 ^ least(greatest(s.dispatch_count - 1, 0), 7)
      or s.dispatched_at < greatest((select w.sent_at from well w), now() - interval '5 seconds' * (2 ^ least(s.dispatch_count - 1, 6) - 1))
        and exists (
          select from public.chunk_processing_queue q
          join chunk_private.dispatches d on d.created_at = s.dispatched_at and d.chunk_id = q.id
          where q.parent_sync_job_id = s.job_id and q.chunk_index = s.chunk_index and d.error is not null
        ));
end
$$;
comment on function chunk_private.waiting_slots is
  'The slots of claimable chunks that Edge Functions work on, of a job or of all; or only those whose last webhook has led to nothing.';

-- Sends webhooks for chunks that wait to be claimed, as long as fewer than 32 are under way. Breadth first: a job gets a
-- second one when every other has one, or somebody at work; each invocation goes on to whatever waits. The first ones say
-- when more are held back, and the invocations that they lead to call for them (cleanup_stuck_chunks).
create or replace function chunk_private.dispatch_waiting(parent_sync_job_id uuid, overdue_only boolean, under_way int default null)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  budget int;
  page record;
  sent int := 0;
begin
  -- One at a time, or each would send as many. Nothing waits after it.
  if overdue_only then
    if not pg_try_advisory_xact_lock(hashtextextended('supabase-chunks: webhooks', 3)) then
      return 0;
    end if;
  else
    perform pg_advisory_xact_lock(hashtextextended('supabase-chunks: webhooks', 3));
  end if;
  budget := 32 - coalesce(under_way, chunk_private.webhooks_under_way());
  if budget <= 0 then
    return 0;
  end if;
  for page in
    with candidates as materialized (
      select w.job_id, w.chunk_index, w.dispatched_at,
        row_number() over (order by l.priority desc, w.place, w.ready_at, w.chunk_index) as turn
      from (
        select s.job_id, s.chunk_index, s.lane, s.ready_at, s.dispatched_at,
          coalesce(busy.slots, 0) + row_number() over (partition by s.job_id order by s.ready_at, s.chunk_index) as place
        from chunk_private.waiting_slots(parent_sync_job_id, overdue_only) s
        left join (
          select o.job_id, count(*) as slots from chunk_private.slots o
          where o.claimed or o.dispatched_at > now() - interval '12 seconds'
          group by o.job_id
        ) busy on busy.job_id = s.job_id
      ) w
      join chunk_private.lanes l on l.id = w.lane
      order by turn limit budget + 1
    ),
    held as (
      select s.job_id, s.chunk_index from candidates c
      join chunk_private.slots s on s.job_id = c.job_id and s.chunk_index = c.chunk_index
      where c.turn <= budget and not s.claimed and s.dispatched_at is not distinct from c.dispatched_at
      for no key update of s skip locked
    ),
    marked as (
      update chunk_private.slots s
      set dispatched_at = now(), dispatch_count = s.dispatch_count + 1
      from held h
      where s.job_id = h.job_id and s.chunk_index = h.chunk_index
      returning s.job_id, s.chunk_index
    )
    select j as job, array_agg(m.chunk_index order by m.chunk_index) as chunk_indexes,
      row_number() over () <= 4 and (select count(*) > budget from candidates) as more
    from marked m
    join public.sync_jobs j on j.id = m.job_id
    group by j.id
  loop
    sent := sent + chunk_private.dispatch(page.job, page.chunk_indexes, page.more);
  end loop;
  return sent;
end
$$;
comment on function chunk_private.dispatch_waiting is
  'Sends webhooks for claimable chunks, or only for those whose last webhook has led to nothing; returns how many. under_way: how many count as such, when the caller knows better.';

create or replace function public.trigger_next_chunk_processing(parent_sync_job_id uuid default null)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
begin
  perform chunk_private.check_isolation('trigger_next_chunk_processing');
  if parent_sync_job_id is not null and not exists (select from public.sync_jobs j where j.id = parent_sync_job_id) then
    raise exception using errcode = 'SC001', message = format('there is no sync job %s', parent_sync_job_id);
  end if;
  -- By hand, those count that wait in pg_net: of the others the caller thinks that they are lost.
  return chunk_private.dispatch_waiting(parent_sync_job_id, false, (select u.webhooks from chunk_private.unsent_webhooks() u));
end
$$;
comment on function public.trigger_next_chunk_processing is
  'Sends webhooks now for the chunks of a job, or of all, that wait to be claimed; returns how many were sent.';

-- 81_heal.sql

-- Healing: what should not be, and is all the same: after changes by hand, a restored backup, a fault of ours.
--
-- The truth is the chunks: their status says where each must stand and what the counters must say.

create or replace function chunk_private.longest_wait()
returns interval
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$ select interval '8 days'; $$;
comment on function chunk_private.longest_wait is 'Longer than any function makes a chunk wait, which is a week.';

create or replace function chunk_private.longest_lease()
returns interval
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$ select interval '25 hours'; $$;
comment on function chunk_private.longest_lease is 'Longer than any lease, which is a day.';

create or replace function chunk_private.heal_waits(job public.sync_jobs)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  never constant timestamptz := now() + chunk_private.longest_wait();
  wrong text[] := array[]::text[];
  times bigint;
begin
  -- Slots where no claim of the kind looks
  update chunk_private.slots s
  set lane = l.id
  from chunk_private.lanes l
  where s.job_id = job.id and l.kind = job.kind and l.priority = job.priority and s.lane <> l.id;
  get diagnostics times = row_count;
  wrong := wrong || chunk_private.times_wrong(times, 'slots in the lane of another kind or priority');

  -- What would never be due
  update chunk_private.slots s set ready_at = now() where s.job_id = job.id and not s.claimed and s.ready_at > never;
  get diagnostics times = row_count;
  wrong := wrong || chunk_private.times_wrong(times, 'slots that would never be due');
  update chunk_private.returned_chunks r set ready_at = now() where r.job_id = job.id and r.ready_at > never;
  get diagnostics times = row_count;
  return wrong || chunk_private.times_wrong(times, 'retries that would never be due');
end
$$;
comment on function chunk_private.heal_waits is 'Puts the slots of a job where claims look, and makes due what never would be. Returns what was wrong.';

-- Only alone in the gate, beside claims. A claim takes a slot and its chunk in one transaction: who reads both in one
-- statement sees both or neither. One body with headings: each step relies on the one before.
create or replace function chunk_private.heal_places(job public.sync_jobs)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  never constant timestamptz := now() + chunk_private.longest_wait();
  wrong text[] := chunk_private.heal_waits(job);
  times bigint;
begin
  -- Slots whose chunk is not in their state, or gone
  delete from chunk_private.slots s
  where s.job_id = job.id and (s.limit_key is distinct from job.limit_key or s.parked and (s.claimed or s.limit_key is null) or not exists (
    select from public.chunk_processing_queue q
    where q.parent_sync_job_id = job.id and q.chunk_index = s.chunk_index and q.status = case when s.claimed then 'processing' else 'pending' end
  ));
  get diagnostics times = row_count;
  wrong := wrong || chunk_private.times_wrong(times, 'slots without their chunk');

  -- Chunks at work without a slot: it gets one, so that its report or the end of its lease is seen
  insert into chunk_private.slots (job_id, chunk_index, lane, ready_at, claimed, limit_key)
  select job.id, q.chunk_index, l.id, now(), true, job.limit_key
  from public.chunk_processing_queue q
  join chunk_private.lanes l on l.kind = job.kind and l.priority = job.priority
  where q.parent_sync_job_id = job.id and q.status = 'processing'
    and not exists (select from chunk_private.slots s where s.job_id = job.id and s.chunk_index = q.chunk_index)
  on conflict do nothing;
  get diagnostics times = row_count;
  wrong := wrong || chunk_private.times_wrong(times, 'processing chunks without a slot');

  -- Stripes that would hand out what is not fresh: what is pending in them stands among the returned instead
  update chunk_private.fresh_stripes f
  set next_index = f.next_index + (f.end_index - f.next_index + job.stripes - 1) / job.stripes * job.stripes
  where f.job_id = job.id and f.next_index < f.end_index and exists (
    select from generate_series(f.next_index, f.end_index - 1, job.stripes) c (chunk_index)
    left join public.chunk_processing_queue q on q.parent_sync_job_id = job.id and q.chunk_index = c.chunk_index
    where q.status is distinct from 'pending'
      or exists (select from chunk_private.slots s where s.job_id = job.id and s.chunk_index = c.chunk_index)
      or exists (select from chunk_private.returned_chunks r where r.job_id = job.id and r.chunk_index = c.chunk_index)
  );
  get diagnostics times = row_count;
  wrong := wrong || chunk_private.times_wrong(times, 'stripes with chunks that are not fresh');

  -- Returned chunks that are not pending, or stand elsewhere too
  delete from chunk_private.returned_chunks r
  where r.job_id = job.id and (
    exists (select from chunk_private.slots s where s.job_id = job.id and s.chunk_index = r.chunk_index)
    or exists (select from chunk_private.returned_chunks o where o.job_id = job.id and o.chunk_index = r.chunk_index and o.ready_at < r.ready_at)
    or not exists (
      select from public.chunk_processing_queue q
      where q.parent_sync_job_id = job.id and q.chunk_index = r.chunk_index and q.status = 'pending'
    )
  );
  get diagnostics times = row_count;
  wrong := wrong || chunk_private.times_wrong(times, 'returned chunks that are not, or twice');

  -- Pending chunks that stand nowhere
  insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
  select job.id, case when q.ready_at between now() and never then q.ready_at else now() end, q.chunk_index
  from public.chunk_processing_queue q
  where q.parent_sync_job_id = job.id and q.status = 'pending'
    and not exists (select from chunk_private.slots s where s.job_id = job.id and s.chunk_index = q.chunk_index)
    and not exists (select from chunk_private.returned_chunks r where r.job_id = job.id and r.chunk_index = q.chunk_index)
    and not exists (
      select from chunk_private.fresh_stripes f
      where f.job_id = job.id and f.stripe = q.chunk_index % job.stripes and q.chunk_index >= f.next_index and q.chunk_index < f.end_index
    );
  get diagnostics times = row_count;
  wrong := wrong || chunk_private.times_wrong(times, 'pending chunks that stood nowhere');

  -- More slots than the job may have
  with surplus as materialized (
    select s.chunk_index from chunk_private.slots s
    where s.job_id = job.id and not s.claimed
    order by s.ready_at desc, s.chunk_index desc
    limit greatest(0, (select count(*) from chunk_private.slots o where o.job_id = job.id)
      - case job.status when 'paused' then (select count(*) from chunk_private.slots o where o.job_id = job.id and o.claimed) else job.max_concurrency end)
    for update skip locked
  ),
  taken_back as (
    delete from chunk_private.slots s using surplus u
    where s.job_id = job.id and s.chunk_index = u.chunk_index
    returning s.ready_at, s.chunk_index
  )
  insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
  select job.id, t.ready_at, t.chunk_index from taken_back t;
  get diagnostics times = row_count;
  return wrong || chunk_private.times_wrong(times, 'slots too many');
end
$$;
comment on function chunk_private.heal_places is 'Puts every chunk of a job where its status belongs: into a slot, among the fresh or returned ones, or nowhere. Returns what was wrong.';

create or replace function chunk_private.times_wrong(times bigint, what text)
returns text[]
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$ select case when $1 > 0 then array[$1 || ' ' || $2] else array[]::text[] end; $$;
comment on function chunk_private.times_wrong is 'A finding, as a list of one, or of none when it came up no times.';

create or replace function chunk_private.heal_chunks(job public.sync_jobs)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  wrong text[];
  times bigint;
begin
  -- At work without a token, or with no attempt counted: nobody could report them, nor the watchdog take them back
  update public.chunk_processing_queue q
  set claim_token = coalesce(q.claim_token, gen_random_uuid()), attempts = greatest(q.attempts, 1)
  where q.parent_sync_job_id = job.id and q.status = 'processing' and (q.claim_token is null or q.attempts < 1);
  get diagnostics times = row_count;
  wrong := chunk_private.times_wrong(times, 'processing chunks without a claim');

  -- A heartbeat keeps a lease's length
  update public.chunk_processing_queue q
  set locked_until = now() + make_interval(secs => k.lease_seconds), updated_at = now()
  from public.sync_kinds k
  where q.parent_sync_job_id = job.id and q.status = 'processing' and q.locked_until > now() + chunk_private.longest_lease() and k.kind = job.kind;
  get diagnostics times = row_count;
  wrong := wrong || chunk_private.times_wrong(times, 'leases that would not end');

  if job.status = 'cancelled' then
    update public.chunk_processing_queue q
    set status = 'cancelled', locked_until = null, completed_at = now(), updated_at = now()
    where q.parent_sync_job_id = job.id and q.status = any ('{pending,processing}');
    get diagnostics times = row_count;
    wrong := wrong || chunk_private.times_wrong(times, 'open chunks of a cancelled job');
  end if;
  return wrong;
end
$$;
comment on function chunk_private.heal_chunks is 'Puts chunks right that no report could end. Returns what was wrong.';

create or replace function chunk_private.heal_counters(job public.sync_jobs)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  times bigint;
begin
  -- Before they are counted: chunks may have been given slots that stood nowhere
  update chunk_private.job_counters c set slots_from = 0, fresh_from = 0 where c.job_id = job.id and (c.slots_from > 0 or c.fresh_from > 0);
  with counted as materialized (
    select t.stripe, count(q.id) as total, count(q.id) filter (where q.completed_at is null) as open,
      count(q.id) filter (where q.status = 'completed') as completed, count(q.id) filter (where q.status = 'failed') as failed,
      count(q.id) filter (where q.status = 'cancelled') as cancelled,
      count(q.id) filter (where q.completed_at is null and q.has_failed) as retrying,
      least(chunk_private.most_items(), coalesce(sum(case when q.status = 'completed' or q.status = 'cancelled' and q.claim_token is not null
        then q.items_processed else q.items_counted end), 0))::bigint as items
    from generate_series(0, job.stripes - 1) t (stripe)
    left join public.chunk_processing_queue q on q.parent_sync_job_id = job.id and q.chunk_index % job.stripes = t.stripe
    group by t.stripe
  ),
  corrected as (
    update chunk_private.job_counters c
    set open_chunks = n.open, completed_chunks = n.completed, failed_chunks = n.failed, cancelled_chunks = n.cancelled,
        retrying_chunks = n.retrying, items_processed = n.items, changes = c.changes + 1
    from counted n
    where c.job_id = job.id and c.stripe = n.stripe
      and (c.open_chunks, c.completed_chunks, c.failed_chunks, c.cancelled_chunks, c.retrying_chunks, c.items_processed)
        is distinct from (n.open, n.completed, n.failed, n.cancelled, n.retrying, n.items)
    returning c.stripe
  ),
  missing as (
    insert into chunk_private.job_counters
      (job_id, stripe, owner_id, open_chunks, completed_chunks, failed_chunks, cancelled_chunks, retrying_chunks, items_processed)
    select job.id, n.stripe, job.owner_id, n.open, n.completed, n.failed, n.cancelled, n.retrying, n.items from counted n
    where n.total > 0 and not exists (select from chunk_private.job_counters o where o.job_id = job.id and o.stripe = n.stripe)
    returning stripe
  )
  select (select count(*) from corrected) + (select count(*) from missing) into times;
  return chunk_private.times_wrong(times, 'counters that were wrong');
end
$$;
comment on function chunk_private.heal_counters is 'Counts a job''s chunks anew. Returns what was wrong.';

-- 81_heal_jobs.sql

-- Healing: which jobs are looked at, and one whole job.

create or replace function chunk_private.heal_job(job_id uuid)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job public.sync_jobs;
  wrong text[] := array[]::text[];
  chunks bigint;
  open_chunks bigint;
begin
  select j.* into job from public.sync_jobs j where j.id = job_id;
  -- To look at every chunk of a large job takes seconds: only when there is nothing to hand out.
  if job.total_chunks > 100000 and chunk_private.fill_slots(job_id) > 0 then
    return null;
  end if;
  perform chunk_private.make_lane(job.kind, job.priority);
  wrong := wrong || chunk_private.heal_chunks(job) || chunk_private.heal_places(job) || chunk_private.heal_counters(job);
  select count(*), count(*) filter (where q.completed_at is null) into chunks, open_chunks
  from public.chunk_processing_queue q where q.parent_sync_job_id = job_id;
  if job.status in ('completed', 'failed') and open_chunks > 0 then
    update public.sync_jobs j set status = 'running', completed_at = null where j.id = job_id;
    wrong := wrong || format('%s open chunks of a job that had %s', open_chunks, job.status);
  end if;
  if chunks <> job.total_chunks and chunks = (select max(q.chunk_index) + 1 from public.chunk_processing_queue q where q.parent_sync_job_id = job_id) then
    update public.sync_jobs j set total_chunks = chunks where j.id = job_id;
    wrong := wrong || format('total_chunks was %s', job.total_chunks);
  end if;
  perform chunk_private.finish_if_done(job_id);
  perform chunk_private.fill_slots(job_id);
  if cardinality(wrong) = 0 then
    return null;
  end if;
  insert into chunk_private.healings (job_id, what) values (job_id, array_to_string(wrong, ', '));
  return array_to_string(wrong, ', ');
end
$$;
comment on function chunk_private.heal_job is
  'Puts right what is wrong with a job, whose gate the caller has alone. Returns what it was; null: nothing.';

-- Cheap when all is well: it reads the active jobs' counters and the slots in use, and no chunk that has none. What does not show
-- in them shows at the latest when the job has nothing left to hand out.
create or replace function chunk_private.doubtful_jobs()
returns setof uuid
language plpgsql -- which keeps its plan; as SQL it would be planned in each pass
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with held as materialized (
    select s.job_id, count(*) as slots, count(*) filter (where not s.claimed) as waiting, count(*) filter (where q.has_failed) as failed_before,
      bool_or(q.status is distinct from case when s.claimed then 'processing' else 'pending' end
        or s.claimed and (q.claim_token is null or q.attempts < 1 or q.locked_until > now() + chunk_private.longest_lease())
        or not s.claimed and s.ready_at > now() + chunk_private.longest_wait()
        or s.limit_key is distinct from j.limit_key or s.parked and (s.claimed or s.limit_key is null)
        or (l.kind, l.priority) is distinct from (j.kind, j.priority)) as contradict
    from chunk_private.slots s
    left join public.sync_jobs j on j.id = s.job_id
    left join chunk_private.lanes l on l.id = s.lane
    left join public.chunk_processing_queue q on q.parent_sync_job_id = s.job_id and q.chunk_index = s.chunk_index
    group by s.job_id
  ),
  counted as materialized (
    select c.job_id, sum(c.open_chunks) as open_chunks, sum(c.retrying_chunks) as retrying_chunks, max(c.last_activity_at) as last_activity_at,
      sum(c.open_chunks + c.completed_chunks + c.failed_chunks + c.cancelled_chunks) as total_chunks
    from public.sync_jobs a
    join chunk_private.newest_counters c on c.job_id = a.id
    where a.status in ('pending', 'running', 'paused')
    group by c.job_id
  )
  select j.id
  from public.sync_jobs j
  left join counted n on n.job_id = j.id
  left join held h on h.job_id = j.id
  cross join lateral (
    select coalesce(h.slots, 0) as slots, least(coalesce(n.open_chunks, 0), j.max_concurrency) as most,
      case when j.limit_key is not null then (chunk_private.limit_of(j.limit_key)).most end as shared
  ) w
  where j.status in ('pending', 'running', 'paused') and (
    coalesce(n.total_chunks, 0) <> j.total_chunks
    or h.contradict or h.failed_before > n.retrying_chunks
    or w.slots > w.most
    or case when j.status = 'paused' then h.waiting > 0 else w.slots < least(w.most, w.shared) end
    -- its end was missed
    or coalesce(n.open_chunks, 0) = 0 and j.sealed and coalesce(n.last_activity_at, j.created_at) < now() - interval '1 minute'
  )
  union
  select h.job_id
  from held h
  left join public.sync_jobs j on j.id = h.job_id
  where j.completed_at is not null
  union
  -- Ended since the last pass, and not all of it has
  select j.id
  from public.sync_jobs j
  where j.completed_at > (select greatest(w.last_pass_at - interval '30 seconds', now() - interval '1 hour') from chunk_private.watchdog w)
    and exists (select from public.chunk_processing_queue q where q.parent_sync_job_id = j.id and q.completed_at is null);
end
$$;
comment on function chunk_private.doubtful_jobs is 'The jobs whose slots, counters and chunks do not go together.';

-- Gates are only tried for, since the pass holds others.
create or replace function chunk_private.heal_jobs(troubled uuid[])
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  until constant timestamptz := clock_timestamp() + interval '5 seconds';
  job record;
  what text;
  healed int := 0;
begin
  for job in
    select t.id from unnest(troubled) t (id) union select d.id from chunk_private.doubtful_jobs() d (id) limit 1000
  loop
    exit when clock_timestamp() > until;
    begin
      if chunk_private.try_alone(job.id) then
        what := chunk_private.heal_job(job.id);
        if what is not null then
          healed := healed + 1;
          raise warning 'supabase-chunks: job % was put right: %', job.id, what;
        end if;
      end if;
    exception when others then
      raise warning 'supabase-chunks: job % could not be put right: %', job.id, sqlerrm;
    end;
  end loop;
  return healed;
end
$$;
comment on function chunk_private.heal_jobs is
  'Settles doubtful jobs, and those named: ends those that are done, fills free slots, and puts right what is wrong. Returns how many were.';

-- 81_recover.sql

-- Recovery: chunks are taken back from workers that are gone.

-- A chunk's end and its slot's go together, or neither: a slot that stays claimed without a processing chunk would be lost.
create or replace function chunk_private.recover_chunk(chunk_id bigint, stuck_after interval)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  chunk public.chunk_processing_queue;
begin
  -- Locked by somebody else: a heartbeat or a report, so its worker lives.
  select q.* into chunk from public.chunk_processing_queue q where q.id = chunk_id for no key update skip locked;
  if chunk.status = 'processing' and (chunk.locked_until < now() or chunk.updated_at <= now() - stuck_after) then
    perform chunk_private.end_attempt(chunk, 'lost',
      format('worker lost: %s gave no sign of life since %s', chunk.worker_id, to_char(chunk.updated_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')),
      true, 0);
    delete from chunk_private.slots s where s.job_id = chunk.parent_sync_job_id and s.chunk_index = chunk.chunk_index;
    return true;
  end if;
  return false;
end
$$;
comment on function chunk_private.recover_chunk is 'Takes one chunk, and its slot, back from a worker that is gone; says whether it did.';

-- All gates first; a job that is being steered is left to the next pass, so that a transaction left open there holds up nobody
-- else. Then the locks in their order, all of the chunks' before the first of the jobs': a pass is one transaction for many
-- jobs. Each chunk and each job in a block of its own, so that one bad row stops nothing but itself: a job that then misses a
-- slot, or its end, is healed.
create or replace function chunk_private.recover_lost(stuck_after interval, out recovered int, out troubled uuid[])
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  gated uuid[];
  chunk record;
  job record;
  freed_of uuid[] := array[]::uuid[];
  freed bigint[] := array[]::bigint[];
begin
  troubled := array[]::uuid[];
  gated := array(
    select g.job_id
    from (
      select distinct s.job_id
      from chunk_private.slots s
      join public.chunk_processing_queue q on q.parent_sync_job_id = s.job_id and q.chunk_index = s.chunk_index
      where s.claimed and q.status = 'processing' and (q.locked_until < now() or q.updated_at <= now() - stuck_after)
      limit 1000
    ) g
    where chunk_private.try_shared(g.job_id)
  );

  -- Chunks, in the order of their counters
  for chunk in
    select q.id, q.parent_sync_job_id as job_id, q.chunk_index
    from unnest(gated) g (job_id)
    join public.sync_jobs j on j.id = g.job_id
    join chunk_private.slots s on s.job_id = g.job_id and s.claimed
    join public.chunk_processing_queue q on q.parent_sync_job_id = s.job_id and q.chunk_index = s.chunk_index
    where q.status = 'processing' and (q.locked_until < now() or q.updated_at <= now() - stuck_after)
    order by j.id, q.chunk_index % j.stripes, q.id
    limit 1000
  loop
    begin
      if chunk_private.recover_chunk(chunk.id, stuck_after) then
        freed_of := freed_of || chunk.job_id;
        freed := freed || chunk.chunk_index;
      end if;
    exception when others then
      troubled := troubled || chunk.job_id;
      raise warning 'supabase-chunks: chunk % could not be recovered: %', chunk.id, sqlerrm;
    end;
  end loop;
  recovered := cardinality(freed);

  -- Jobs
  for job in select distinct f.id from unnest(freed_of) f (id) order by f.id loop
    begin
      if exists (select from chunk_private.newest_counters c where c.job_id = job.id and c.open_chunks = 0) then
        perform chunk_private.finish_if_done(job.id);
      end if;
    exception when others then
      raise warning 'supabase-chunks: job % could not be finished: %', job.id, sqlerrm;
    end;
  end loop;

  -- What the freed slots go to
  for job in
    select j as row, array_agg(f.chunk_index) as freed
    from unnest(freed_of, freed) f (id, chunk_index)
    join public.sync_jobs j on j.id = f.id
    group by j.id
    order by j.id
  loop
    begin
      perform chunk_private.pass_slots_on(job.row, job.freed, null);
    exception when others then
      raise warning 'supabase-chunks: the slots of job % could not be passed on: %', (job.row).id, sqlerrm;
    end;
  end loop;
end
$$;
comment on function chunk_private.recover_lost is
  'Takes back chunks whose lease has run out, or that gave no sign of life for stuck_after: how many, and the jobs of those that it could not take back.';

-- 81_watchdog.sql

-- The watchdog: one pass, its schedule, and the trimming of logs.

create or replace function public.cleanup_stuck_chunks(stuck_after interval default null)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  lost record;
begin
  perform chunk_private.check_isolation('cleanup_stuck_chunks');
  if stuck_after < interval '0' then
    raise exception using errcode = 'SC003', detail = 'stuck_after', message = format('stuck_after must not be negative, not %s', stuck_after);
  end if;
  begin
    perform chunk_private.collect_dispatch_outcomes();
  exception when others then
    raise warning 'supabase-chunks: the outcomes of webhooks could not be read: %', sqlerrm;
  end;
  lost := chunk_private.recover_lost(stuck_after);
  begin
    perform chunk_private.heal_jobs(lost.troubled);
  exception when others then
    raise warning 'supabase-chunks: jobs could not be looked through: %', sqlerrm;
  end;
  begin
    perform chunk_private.settle_waiting();
  exception when others then
    raise warning 'supabase-chunks: limits could not be settled: %', sqlerrm;
  end;
  begin
    perform chunk_private.dispatch_waiting(null, true);
  exception when others then
    raise warning 'supabase-chunks: webhooks could not be sent: %', sqlerrm;
  end;
  -- In no block: a database that is read-only (25006) shows as a pass that failed, not as one that found nothing to do.
  update chunk_private.watchdog w set last_pass_at = now(), server_began = pg_postmaster_start_time()
  where w.only_row = any (array(select o.only_row from chunk_private.watchdog o for no key update skip locked));
  return lost.recovered;
end
$$;
comment on function public.cleanup_stuck_chunks is
  'One pass of the watchdog: takes back chunks whose lease has run out (or, with stuck_after, those without claim or heartbeat for that long), ends jobs and fills slots where that was missed, heals what should not be, sends lost webhooks again. Returns how many chunks were taken back.';

create or replace function chunk_private.trim_logs()
returns int
language plpgsql
security definer -- trims pg_cron's own log too
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  trimmed int;
begin
  delete from chunk_private.limit_paces p where p.free_at < now() - interval '1 day';
  delete from public.sync_limits l
  where l.max_concurrency is null and l.rate is null and l.blocked_until < now() - interval '1 day' and chunk_private.try_limit(l.key);
  delete from chunk_private.healings h where h.healed_at < now() - interval '90 days';
  delete from chunk_private.dispatches d
  where d.ctid = any (array(select o.ctid from chunk_private.dispatches o where o.created_at < now() - interval '7 days' limit 10000));
  get diagnostics trimmed = row_count;
  begin
    -- By number: a run that a crash cut off has no end, and may have no beginning.
    delete from cron.job_run_details r
    where r.command ~ 'select (public\.cleanup_stuck_chunks|chunk_private\.trim_logs)\(\)$'
      and r.runid <= (select max(o.runid) from cron.job_run_details o where o.start_time < now() - interval '1 day');
  exception when others then
    null; -- not ours to delete, or pg_cron is absent
  end;
  return trimmed;
end
$$;
comment on function chunk_private.trim_logs is
  'Forgets dispatches after a week, the watchdog''s runs after a day, what was healed after ninety days, and keys that were only blocked a day after.';

create or replace function chunk_private.schedule_watchdog()
returns text
language plpgsql
security definer -- pg_cron runs a job as the role that scheduled it
set search_path = pg_catalog, pg_temp
as $$
declare
  watchdog constant text := 'supabase-chunks-watchdog';
  -- As the API begins its transactions, whatever the database's defaults are.
  beginning constant text := 'set transaction isolation level read committed, read write; ';
  pass constant text := beginning || 'select public.cleanup_stuck_chunks()';
begin
  if to_regprocedure('cron.schedule(text,text,text)') is null then
    return null;
  end if;
  if not exists (select from cron.job j where j.jobname = watchdog) then
    insert into chunk_private.watchdog as w (only_row, scheduled_at) values (true, now())
    on conflict on constraint watchdog_pkey do update set scheduled_at = now();
  end if;
  begin
    perform cron.schedule(watchdog, '30 seconds', pass);
  exception when others then
    -- pg_cron before 1.5 knows no seconds
    perform cron.schedule(watchdog, '* * * * *', pass);
  end;
  perform cron.schedule('supabase-chunks-trim', '17 * * * *', beginning || 'select chunk_private.trim_logs()');
  return (select j.schedule from cron.job j where j.jobname = watchdog limit 1);
end
$$;
comment on function chunk_private.schedule_watchdog is 'Schedules the watchdog where pg_cron is installed; again is harmless. Returns the schedule, or null.';

-- 82_limits.sql

-- What the service does with limits: set them, block a key, ask for the pace. And what the watchdog does.

create or replace function chunk_private.check_limit_key(key text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if (length(key) between 1 and 500) is not true then
    raise exception using errcode = 'SC003', detail = 'key', message = 'key must be a text of 1 to 500 characters';
  end if;
end
$$;
comment on function chunk_private.check_limit_key is 'Raises SC003 for what cannot be a limit key.';

create or replace function chunk_private.lock_limit_or_refuse(limit_key text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform chunk_private.check_limit_key(limit_key);
  if not chunk_private.wait_for_limit(limit_key) then
    raise exception using errcode = 'SC005', message = format('the limit key %L is held by a transaction that somebody has left open', limit_key),
      hint = 'Find it in pg_stat_activity, and try again when it has ended.';
  end if;
end
$$;
comment on function chunk_private.lock_limit_or_refuse is 'Locks a limit key; SC003 for what cannot be one, SC005 when somebody has it for long.';

-- A job has at most as many slots as may be processing of its key: those that run get more when there are more. Gates are only tried for;
-- whoever is alone in one waits for nobody in fill_slots.
create or replace function public.save_sync_limit(key text, max_concurrency int default null, rate int default null, per_seconds int default 1)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
begin
  perform chunk_private.check_isolation('save_sync_limit');
  perform chunk_private.check_range('max_concurrency', max_concurrency, 1, 10000);
  perform chunk_private.check_range('rate', rate, 1, 1000000);
  perform chunk_private.check_range('per_seconds', coalesce(per_seconds, 0), 1, 86400);
  perform chunk_private.lock_limit_or_refuse(key);
  if num_nonnulls(max_concurrency, rate) = 0 then
    delete from public.sync_limits l where l.key = key and (l.blocked_until > now()) is not true;
  end if;
  insert into public.sync_limits as l (key, max_concurrency, rate, per_seconds)
  select key, max_concurrency, rate, per_seconds
  where num_nonnulls(max_concurrency, rate) > 0 or exists (select from public.sync_limits o where o.key = key)
  on conflict on constraint sync_limits_pkey do update
  set max_concurrency = excluded.max_concurrency, rate = excluded.rate, per_seconds = excluded.per_seconds, updated_at = now();
  perform chunk_private.fill_slots(j.id)
  from (
    select o.id from public.sync_jobs o
    where o.limit_key = key and o.status in ('pending', 'running') order by o.id limit 500
  ) j
  where chunk_private.try_alone(j.id);
  perform chunk_private.settle_limit(key);
  return public.list_sync_limits(key) -> 0;
end
$$;
comment on function public.save_sync_limit is
  'Sets what jobs with a limit_key share: at most max_concurrency chunks processing at once, at most rate requests within per_seconds; null is no such limit, and both null remove the key. Returns it as list_sync_limits does.';

create or replace function public.block_sync_limit(key text, seconds int, reason text default null)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
begin
  perform chunk_private.check_isolation('block_sync_limit');
  perform chunk_private.check_range('seconds', coalesce(seconds, -1), 0, 604800);
  perform chunk_private.lock_limit_or_refuse(key);
  perform chunk_private.block_limit(key, case when seconds > 0 then now() + make_interval(secs => seconds) end, left(reason, 1000));
  perform chunk_private.settle_limit(key);
  return public.list_sync_limits(key) -> 0;
end
$$;
comment on function public.block_sync_limit is
  'Hands out no chunk of a limit key for so many seconds (a week at most); 0 ends a block. Chunks that are processing go on. Returns the key as list_sync_limits does.';

-- One timestamp a key: until when the requests so far have used up the rate. n requests at once go when the room for all of them
-- is there (n - 1 intervals late), and use it up afterwards: so no window of per_seconds, wherever it begins, has more than rate.
create or replace function public.pace_sync_limit(key text, n int default 1)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  rules record;
  spacing interval;
  free_at timestamptz;
begin
  perform chunk_private.check_limit_key(key);
  select l.rate, l.blocked_until, make_interval(secs => ceil(1e6 * l.per_seconds / l.rate) / 1e6) as spacing into rules
  from public.sync_limits l where l.key = key;
  perform chunk_private.check_range('n', coalesce(n, 0), 1, coalesce(rules.rate, 1000000));
  if rules.rate is not null then
    spacing := rules.spacing;
    insert into chunk_private.limit_paces as p (limit_key, free_at) values (key, greatest(clock_timestamp(), rules.blocked_until) + n * spacing)
    on conflict on constraint limit_paces_pkey do update
    set free_at = greatest(clock_timestamp(), p.free_at + (n - 1) * spacing, rules.blocked_until) + n * spacing
    returning p.free_at into free_at;
  end if;
  return ceil(greatest(0, 1000 * extract(epoch from greatest(free_at - n * spacing, rules.blocked_until) - clock_timestamp())))::int;
end
$$;
comment on function public.pace_sync_limit is
  'Asks for room for n requests at once (at most rate): how many milliseconds to wait before making them. Exact for all who ask. 0 when the key has no rate and is not blocked.';

-- Only tries: it has gates of other jobs. What somebody has now, they settle, or a later pass does.
create or replace function chunk_private.settle_waiting()
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  until constant timestamptz := clock_timestamp() + interval '5 seconds';
  limit_key text := '';
  settled int := 0;
begin
  loop
    limit_key := (
      select s.limit_key from chunk_private.slots s
      where s.limit_key > limit_key and not s.claimed and s.parked order by s.limit_key limit 1
    );
    exit when limit_key is null or settled >= 1000 or clock_timestamp() > until;
    if exists (select from chunk_private.slots_to_wake(limit_key)) and chunk_private.try_limit(limit_key) then
      perform chunk_private.settle_limit(limit_key);
      settled := settled + 1;
    end if;
  end loop;
  delete from chunk_private.limit_seekers k
  where k.asked_at < now() - interval '1 hour' and chunk_private.try_limit(k.limit_key);
  return settled;
end
$$;
comment on function chunk_private.settle_waiting is
  'Settles the limit keys of which too few slots are awake: after a job was deleted, a limit changed, a lock was held for too long. Returns how many.';

-- 82_operate.sql

-- Kinds and configuration.

create or replace function chunk_private.version()
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$ select '0.1.0'; $$;
comment on function chunk_private.version is 'The release of supabase-chunks whose migrations are installed.';

create or replace function public.save_sync_kind(
  kind text, handler text default null, max_concurrency int default null, max_retries int default null, lease_seconds int default null,
  retry_delay_seconds int default null, user_startable boolean default null, limit_by text default null, limit_each int default null
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
  saved public.sync_kinds;
begin
  if kind is null or kind !~ '^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$' then
    raise exception using errcode = 'SC003', detail = 'kind',
      message = 'kind must be 1 to 100 letters, digits or _ . : -, beginning with a letter or digit';
  end if;
  if handler !~ '^[A-Za-z0-9_-]{0,100}$' then
    raise exception using errcode = 'SC003', detail = 'handler',
      message = 'handler must be the name of an Edge Function (letters, digits, _ and -), empty for Python workers, or null';
  end if;
  if length(limit_by) > 100 then
    raise exception using errcode = 'SC003', detail = 'limit_by',
      message = 'limit_by must be owner_id or the name of a field of the payload, of at most 100 characters, empty for none, or null';
  end if;
  perform chunk_private.check_range('limit_each', limit_each, 0, 10000);
  perform chunk_private.check_range('max_concurrency', max_concurrency, 1, 1000);
  perform chunk_private.check_range('max_retries', max_retries, 0, 100);
  perform chunk_private.check_range('lease_seconds', lease_seconds, 1, 86400);
  perform chunk_private.check_range('retry_delay_seconds', retry_delay_seconds, 0, 86400);
  insert into public.sync_kinds as k
    (kind, handler, max_concurrency, max_retries, lease_seconds, retry_delay_seconds, user_startable, limit_by, limit_each)
  values (kind, nullif(handler, ''), coalesce(max_concurrency, 1), coalesce(max_retries, 3), coalesce(lease_seconds, 600),
    coalesce(retry_delay_seconds, 10), coalesce(user_startable, false), nullif(limit_by, ''), nullif(limit_each, 0))
  on conflict on constraint sync_kinds_pkey do update
  set handler = nullif(coalesce(save_sync_kind.handler, k.handler), ''),
      max_concurrency = coalesce(save_sync_kind.max_concurrency, k.max_concurrency),
      max_retries = coalesce(save_sync_kind.max_retries, k.max_retries),
      lease_seconds = coalesce(save_sync_kind.lease_seconds, k.lease_seconds),
      retry_delay_seconds = coalesce(save_sync_kind.retry_delay_seconds, k.retry_delay_seconds),
      user_startable = coalesce(save_sync_kind.user_startable, k.user_startable),
      limit_by = nullif(coalesce(save_sync_kind.limit_by, k.limit_by), ''),
      limit_each = nullif(coalesce(save_sync_kind.limit_each, k.limit_each), 0),
      updated_at = now()
  returning k.* into saved;
  return to_jsonb(saved);
end
$$;
comment on function public.save_sync_kind is
  'Adds a kind of sync, or changes one: what is null stays as it is, and is for a new kind no handler, 1, 3, 600, 10 and false. An empty handler is none. limit_by (owner_id, or a field of the payload; empty: none) makes jobs share limits, limit_each (0: none) says how many of their chunks may be processing at once. Jobs that run already keep their max_concurrency and max_retries.';

create or replace function public.remove_sync_kind(kind text)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
begin
  delete from public.sync_kinds k where k.kind = kind;
  return found;
exception when foreign_key_violation then
  raise exception using errcode = 'SC005', message = format('the kind %L has jobs: it cannot be removed', kind),
    hint = 'Cancel those that run, and purge_sync_jobs() when they are no longer wanted.';
end
$$;
comment on function public.remove_sync_kind is 'Removes a kind of sync that has no jobs; says whether there was one. SC005 while jobs of it exist.';

create or replace function chunk_private.save_secret(name text, secret text, description text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  secret_id uuid;
begin
  select s.id into secret_id from vault.secrets s where s.name = name;
  if secret_id is null then
    perform vault.create_secret(secret, name, description);
  else
    perform vault.update_secret(secret_id, secret, name, description);
  end if;
end
$$;
comment on function chunk_private.save_secret is 'Writes a Vault entry by name. For use in definer functions: the Vault is the owner''s.';

create or replace function chunk_private.configure_chunk_processing(project_url text, processor_key text)
returns jsonb
language plpgsql
security definer -- writes the Vault
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  perform chunk_private.check_isolation('configure_chunk_processing');
  if project_url is null or project_url !~ '^https?://[^/?#@[:space:]]+/?$' then
    raise exception using errcode = 'SC003', detail = 'project_url',
      message = 'project_url must be the base URL of the project as the database reaches it, such as https://abc.supabase.co';
  end if;
  if processor_key is null or length(processor_key) < 8 or processor_key ~ '[[:space:]]|://' or processor_key like 'sb\_publishable\_%' then
    raise exception using errcode = 'SC003', detail = 'processor_key',
      message = 'processor_key must be a secret key (sb_secret_…) or the legacy service_role key';
  end if;
  if to_regproc('vault.create_secret') is null then
    raise exception using errcode = 'SC006', message = 'the extension supabase_vault is not installed',
      hint = 'create extension supabase_vault with schema vault cascade;';
  end if;
  perform chunk_private.save_secret('project_url', rtrim(project_url, '/'), 'supabase-chunks: where the Edge Functions are');
  perform chunk_private.save_secret('chunk_processor_key', processor_key, 'supabase-chunks: the key that webhooks carry');
  perform chunk_private.schedule_watchdog();
  -- What waited for this goes on now. What is under way has the address and the key of before.
  perform chunk_private.dispatch_waiting(null, false, 0);
  return public.chunk_system_health();
end
$$;
comment on function chunk_private.configure_chunk_processing is 'The body of configure_chunk_processing.';

create or replace function public.configure_chunk_processing(project_url text, processor_key text)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
as $$ select chunk_private.configure_chunk_processing($1, $2); $$;
comment on function public.configure_chunk_processing is
  'Writes into the Vault where webhooks go (the project''s URL as the database reaches it) and which key they carry; schedules the watchdog. Returns chunk_system_health(), never the key.';

-- 82_settings.sql

-- Settings: the limits, which the service may change.

create or replace function chunk_private.check_setting(name text, value jsonb, present jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  wanted constant text := case jsonb_typeof(present)
    when 'number' then 'a whole number from 0 to 2147483647'
    when 'boolean' then 'true or false'
    else 'an array of at most 20 ports from 1 to 65535'
  end;
begin
  if jsonb_typeof(value) is distinct from jsonb_typeof(present)
    or (case jsonb_typeof(value)
      when 'number' then value::numeric not between 0 and 2147483647 or value::numeric <> trunc(value::numeric)
      when 'array' then jsonb_array_length(value) > 20
        or jsonb_path_exists(value, 'strict $[*] ? (!(@.type() == "number" && @ >= 1 && @ <= 65535 && @ == @.floor()))')
      else false
    end)
  then
    raise exception using errcode = 'SC003', detail = name, message = format('%s must be %s, or null for the default', name, wanted);
  end if;
end
$$;
comment on function chunk_private.check_setting is 'Raises SC003, naming it, for a value that a setting cannot have: of another type than the present one, or out of range.';

create or replace function public.save_chunk_settings(settings jsonb)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
as $$
#variable_conflict use_variable
declare
  present jsonb;
  defaults jsonb;
  allowed text;
  unknown text;
begin
  perform chunk_private.check_isolation('save_chunk_settings');
  if jsonb_typeof(settings) is distinct from 'object' then
    raise exception using errcode = 'SC003', detail = 'settings', message = 'settings must be a JSON object';
  end if;
  -- Of two calls the second begins when the first has ended, or it would undo what that one has saved.
  perform chunk_private.lock_settings();
  select to_jsonb(s) - 'only_row' into present from chunk_private.settings s;
  select min(n.name) into unknown from jsonb_object_keys(settings) n (name) where not present ? n.name;
  if unknown is not null then
    select string_agg(n.name, ', ' order by n.name) into allowed from jsonb_object_keys(present) n (name);
    raise exception using errcode = 'SC003', detail = 'settings',
      message = format('settings has no %s; there are %s', quote_ident(left(unknown, 100)), allowed);
  end if;
  perform chunk_private.check_setting(n.key, n.value, present -> n.key) from jsonb_each(settings) n where n.value <> 'null';
  -- The defaults are those of the table.
  delete from chunk_private.settings;
  insert into chunk_private.settings as s (only_row) values (true) returning to_jsonb(s) into defaults;
  delete from chunk_private.settings;
  insert into chunk_private.settings
  select (jsonb_populate_record(null::chunk_private.settings, defaults || (present - array(
    select n.key from jsonb_each(settings) n where n.value = 'null'
  )) || jsonb_strip_nulls(settings))).*;
  return (select to_jsonb(s) - 'only_row' from chunk_private.settings s);
end
$$;
comment on function public.save_chunk_settings is
  'Changes the settings that are named, null meaning the default, and returns all: the columns of chunk_private.settings, whose comments say what each is. {} only reads.';

-- 83_health.sql

-- Health: what an operator wants to know.

-- A schedule in cron.job says little: pg_cron may look at another database, or have died. So passes leave a mark of their own,
-- and one is expected within a minute of the last, of the schedule's making and of the server's start.
create or replace function chunk_private.watchdog_health()
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  passes constant jsonb := (
    select jsonb_build_object('last_pass_at', max(w.last_pass_at), 'seconds_without_pass',
      floor(extract(epoch from now() - greatest(max(w.last_pass_at), max(w.scheduled_at), pg_postmaster_start_time()))))
    from chunk_private.watchdog w
  );
  watchdog jsonb;
begin
  select jsonb_build_object('scheduled', true, 'schedule', j.schedule, 'active', j.active, 'last_run', (
    select jsonb_build_object('status', r.status, 'at', r.start_time, 'message', left(r.return_message, 200), 'running_seconds',
      case when r.status not in ('succeeded', 'failed') then floor(extract(epoch from now() - r.start_time)) end)
    from cron.job_run_details r where r.jobid = j.jobid order by r.runid desc limit 1
  )) into watchdog
  from cron.job j where j.jobname = 'supabase-chunks-watchdog' limit 1;
  return passes || coalesce(watchdog, '{"scheduled": false}');
exception when others then
  return passes || jsonb_build_object('scheduled', false, 'error', sqlerrm);
end
$$;
comment on function chunk_private.watchdog_health is 'Whether and how the watchdog is scheduled, and how it last ran.';

create or replace function chunk_private.vault_health()
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select jsonb_build_object('project_url', coalesce(bool_or(s.name = 'project_url'), false),
      'processor_key', coalesce(bool_or(s.name = 'chunk_processor_key'), false))
    from vault.secrets s where s.name in ('project_url', 'chunk_processor_key')
  );
exception when others then
  return jsonb_build_object('project_url', false, 'processor_key', false, 'error', sqlerrm);
end
$$;
comment on function chunk_private.vault_health is 'Whether the Vault has the URL and the key; never their values.';

-- Enough for a caller who knows the right URL to see whether it is this one: a restored copy of a project wakes the original.
create or replace function chunk_private.webhook_target()
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  host text;
  target jsonb;
begin
  select substring(s.decrypted_secret from '^https?://([^/:]+|\[[^]]*\])'),
    jsonb_build_object('sha256', encode(sha256(convert_to(rtrim(lower(s.decrypted_secret), '/'), 'UTF8')), 'hex'), 'since', s.updated_at)
  into host, target
  from vault.decrypted_secrets s where s.name = 'project_url';
  return target || jsonb_build_object('place', case
    when host ~* '^(localhost|127\.[0-9.]+|\[::1\])$' then 'loopback'
    when host !~ '\.' or host ~* '\.(internal|local|localhost|lan)$' or host ~ '^(10\.|192\.168\.|172\.(1[6-9]|2[0-9]|3[01])\.)' then 'internal'
    else 'public'
  end);
exception when others then
  return null; -- vault_health() says why
end
$$;
comment on function chunk_private.webhook_target is
  'Where webhooks go, without saying it: the SHA-256 of the URL, since when, and whether that is this machine, an inner network or a public address.';

-- A failure is forgotten once it is of no use to know: its job has ended or its chunk was claimed, the configuration has
-- changed since, or a later webhook went well.
create or replace function chunk_private.webhook_failure()
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  forgotten_until constant timestamptz := greatest(
    (chunk_private.webhook_target() ->> 'since')::timestamptz,
    (select d.created_at from chunk_private.dispatches d where d.answered_at is not null and d.error is null order by d.created_at desc limit 1)
  );
begin
  return (
    select jsonb_build_object('job_id', d.job_id, 'chunk_id', d.chunk_id, 'sent_at', d.created_at, 'status_code', d.status_code, 'error', d.error)
    from chunk_private.dispatches d
    join public.sync_jobs j on j.id = d.job_id and j.status in ('pending', 'running')
    join public.chunk_processing_queue q on q.id = d.chunk_id
    join chunk_private.slots s on s.job_id = d.job_id and s.chunk_index = q.chunk_index and not s.claimed
    where d.error is not null and d.created_at > coalesce(forgotten_until, '-infinity')
      and (q.started_at is null or q.started_at < d.created_at)
    order by d.created_at desc limit 1
  );
end
$$;
comment on function chunk_private.webhook_failure is 'The newest webhook that failed and whose chunk waits for that reason still; null: none.';

-- Not of this call alone: the API reads in a transaction that may not write anyway.
create or replace function chunk_private.is_read_only()
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select pg_is_in_recovery() or current_setting('default_transaction_read_only')::boolean or exists (
    select from pg_db_role_setting s
    cross join unnest(s.setconfig) c (setting)
    where (s.setdatabase = 0 or s.setdatabase = (select d.oid from pg_database d where d.datname = current_database()))
      and (s.setrole = 0 or pg_get_userbyid(s.setrole) in ('postgres', 'authenticator', 'service_role'))
      and c.setting ~* '^default_transaction_read_only=(on|true|yes|1)$'
  );
$$;
comment on function chunk_private.is_read_only is 'Whether the database takes no writes, as Supabase sets it when the disk is full.';

create or replace function chunk_private.chunk_system_health()
returns jsonb
language sql
stable
security definer -- reads the Vault, pg_cron and the statistics
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'version', chunk_private.version(),
    'postgres', current_setting('server_version'),
    'server_address', host(inet_server_addr()), -- as its API reaches it; null: by a socket, on the same machine
    'extensions', jsonb_build_object(
      'pg_net', coalesce((select e.extversion from pg_extension e where e.extname = 'pg_net'),
        case when to_regproc('net.http_post') is not null then 'built in' end),
      'pg_cron', coalesce((select e.extversion from pg_extension e where e.extname = 'pg_cron'),
        case when to_regproc('cron.unschedule') is not null or to_regprocedure('cron.schedule(text,text,text)') is not null then 'built in' end),
      'supabase_vault', coalesce((select e.extversion from pg_extension e where e.extname = 'supabase_vault'),
        case when to_regproc('vault.create_secret') is not null then 'built in' end)
    ),
    'configured', chunk_private.vault_health(),
    'watchdog', chunk_private.watchdog_health(),
    'read_only', chunk_private.is_read_only(),
    'healed', (
      select jsonb_build_object('times', count(*), 'last_at', max(h.healed_at),
        'last', (array_agg(format('job %s: %s', h.job_id, h.what) order by h.id desc))[1])
      from chunk_private.healings h),
    'fullest_user', (
      select jsonb_build_object('owner_id', f.owner_id, 'chunks', f.chunks, 'most', s.user_max_kept_chunks)
      from (
        select j.owner_id, sum(greatest(j.total_chunks, 1)) as chunks from public.sync_jobs j
        where j.owner_id is not null and j.created_at > now() - interval '30 days'
        group by j.owner_id order by 2 desc limit 1
      ) f, chunk_private.settings s),
    'webhooks_go_to', chunk_private.webhook_target(),
    'webhooks_waiting', u.webhooks,
    'oldest_webhook_seconds', floor(extract(epoch from now() - u.oldest_at)),
    'webhook_failure', chunk_private.webhook_failure(),
    'last_dispatches', coalesce((
      select jsonb_agg(jsonb_build_object('job_id', d.job_id, 'chunk_id', d.chunk_id, 'sent_at', d.created_at,
        'status_code', d.status_code, 'error', d.error) order by d.id desc)
      from (
        select x.id, x.job_id, x.chunk_id, x.created_at, x.status_code, x.error from chunk_private.dispatches x order by x.created_at desc, x.id desc limit 10
      ) d), '[]'),
    'active_jobs', (select count(*) from public.sync_jobs j where j.status in ('pending', 'running', 'paused')),
    'stalled_jobs', coalesce((
      select jsonb_agg(jsonb_build_object('id', s.parent_sync_job_id, 'kind', s.kind, 'reason', s.stalled_reason))
      from (
        select v.parent_sync_job_id, v.kind, v.stalled_reason from public.chunk_processing_status v
        where v.status in ('pending', 'running') and v.stalled limit 20
      ) s), '[]'),
    'blocked_limits', coalesce((
      select jsonb_agg(jsonb_build_object('key', b.key, 'until', b.blocked_until, 'reason', b.blocked_reason) order by b.blocked_until desc)
      from (
        select l.key, l.blocked_until, l.blocked_reason from public.sync_limits l
        where l.blocked_until > now() order by l.blocked_until desc limit 20
      ) b), '[]'),
    'chunks_waiting_for_limits', (select count(*) from chunk_private.slots s where s.limit_key is not null and not s.claimed and s.parked),
    'oldest_pending_seconds', (
      select floor(extract(epoch from now() - min(f.ready_at)))
      from chunk_private.lanes l
      cross join lateral (
        select s.ready_at from chunk_private.slots s
        where s.lane = l.id and not s.claimed and not s.parked and s.ready_at <= now()
        order by s.ready_at limit 1
      ) f),
    'dead_tuples', (select t.n_dead_tup from pg_stat_all_tables t
      where t.relid = 'public.chunk_processing_queue'::regclass),
    'oldest_xmin_age', (select max(age(a.backend_xmin)) from pg_stat_activity a where a.backend_xmin is not null),
    'oldest_transaction_seconds', (
      select floor(extract(epoch from max(clock_timestamp() - a.xact_start)))
      from pg_stat_activity a where a.pid <> pg_backend_pid() and a.xact_start is not null and a.backend_type = 'client backend')
  )
  from chunk_private.unsent_webhooks() u;
$$;
comment on function chunk_private.chunk_system_health is 'The body of chunk_system_health.';

create or replace function public.chunk_system_health()
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$ select chunk_private.chunk_system_health(); $$;
comment on function public.chunk_system_health is
  'What an operator wants to know: extensions, URL and key present, the watchdog, last webhooks and their outcome, stalled jobs, the oldest chunk waiting, dead rows, and the age of the oldest snapshot and transaction.';

-- 84_purge.sql

-- Purge.

-- Each gate is an entry in the server's table of locks, which has room for some thousands in all: hence the bound of jobs.
create or replace function chunk_private.enter_ended(older_than interval, most_jobs int, most_chunks int)
returns uuid[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  return array(
    select g.id
    from (
      select o.id, o.completed_at, sum(o.total_chunks) over (order by o.completed_at, o.id) - o.total_chunks as chunks_before
      from (
        select j.id, j.completed_at, j.total_chunks from public.sync_jobs j
        where j.completed_at <= now() - older_than
        order by j.completed_at, j.id limit most_jobs
      ) o
    ) g
    -- Somebody may be reopening it; then it is not purged now.
    where g.chunks_before < most_chunks and chunk_private.try_alone(g.id)
    order by g.completed_at, g.id
  );
end
$$;
comment on function chunk_private.enter_ended is
  'Enters the oldest ended jobs exclusively, as many as one call may purge, and returns them in order.';

create or replace function public.purge_sync_jobs(older_than interval default '30 days', batch_size int default 10000)
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
  entered uuid[];
  jobs int;
  chunks int;
begin
  perform chunk_private.check_isolation('purge_sync_jobs');
  if older_than is null or older_than < interval '0' then
    raise exception using errcode = 'SC003', detail = 'older_than', message = 'older_than must be an interval that is not negative';
  end if;
  perform chunk_private.check_range('batch_size', coalesce(batch_size, 0), 1, 1000000);
  entered := chunk_private.enter_ended(older_than, least(batch_size, 500), batch_size);
  -- They are read again: one may have been reopened just before its gate was entered.
  entered := array(
    select e.id from unnest(entered) with ordinality e (id, place)
    join public.sync_jobs j on j.id = e.id and j.completed_at <= now() - older_than
    order by e.place
  );
  delete from public.chunk_processing_queue q
  where q.id = any (array(
    select c.id from unnest(entered) with ordinality e (id, place)
    join public.chunk_processing_queue c on c.parent_sync_job_id = e.id
    order by e.place, c.chunk_index limit batch_size
  ));
  get diagnostics chunks = row_count;
  delete from public.sync_jobs j
  where j.id = any (entered)
    and not exists (select from public.chunk_processing_queue q where q.parent_sync_job_id = j.id);
  get diagnostics jobs = row_count;
  return jsonb_build_object('jobs', jobs, 'chunks', chunks, 'more', exists (
    select from public.sync_jobs j where j.completed_at <= now() - older_than
  ));
end
$$;
comment on function public.purge_sync_jobs is
  'Deletes jobs that ended longer ago than older_than, with their chunks: at most batch_size chunks of at most 500 jobs a call. Returns {jobs, chunks, more}: call again while more is true.';

-- 90_access.sql

-- Access: who may do what, in one place. A new Supabase project grants nothing by default, an older one everything, so
-- each right is first taken and then given.
--
--   anon            nothing
--   authenticated   the functions for users, and reading of the own rows
--   service_role    everything listed, and the tables behind it

-- Tables and view
revoke all on public.sync_kinds, public.sync_jobs, public.chunk_processing_queue, public.sync_states, public.sync_limits,
  public.chunk_processing_status
  from public, anon, authenticated, service_role;
grant select on public.sync_kinds, public.sync_jobs, public.chunk_processing_queue, public.sync_states, public.chunk_processing_status
  to authenticated;
grant select, insert, update, delete on public.sync_kinds, public.sync_jobs, public.chunk_processing_queue, public.sync_states,
  public.sync_limits
  to service_role;
grant select on public.chunk_processing_status to service_role;

revoke all on schema chunk_private from public, anon;
grant usage on schema chunk_private to authenticated, service_role;
revoke all on all tables in schema chunk_private from public, anon, authenticated, service_role;
grant select on chunk_private.job_counters, chunk_private.newest_counters, chunk_private.slots, chunk_private.dispatches to authenticated; -- what the view reads
-- What list_chunk_attempts reads: all but the tokens.
grant select (id, job_id, chunk_id, attempt, outcome, error, worker_id, claimed_at, ended_at) on chunk_private.chunk_attempts to authenticated;
grant select, insert, update, delete on all tables in schema chunk_private to service_role;
revoke insert, update, delete on chunk_private.claim_lanes, chunk_private.newest_counters, chunk_private.newest_stripes from service_role;

-- Sequences of identity columns need no grant to insert.
revoke all on all sequences in schema chunk_private from public, anon, authenticated, service_role;
revoke all on sequence public.chunk_processing_queue_id_seq, public.sync_states_id_seq from public, anon, authenticated, service_role;

-- Rows
select chunk_private.set_reading_policy('public.sync_kinds', 'Users see the kinds', 'true');
select chunk_private.set_reading_policy('public.sync_jobs', 'Users see their own jobs', 'owner_id = (select auth.uid() as uid)');
select chunk_private.set_reading_policy('public.chunk_processing_queue', 'Users see their own chunks',
  'owner_id = (select auth.uid() as uid)');
select chunk_private.set_reading_policy('public.sync_states', 'Users see their own states', 'owner_id = (select auth.uid() as uid)');
select chunk_private.set_reading_policy('chunk_private.job_counters', 'Users see their own counters',
  'owner_id = (select auth.uid() as uid)');
select chunk_private.set_reading_policy('chunk_private.slots', 'Users see the slots of their own jobs',
  'exists (select from public.sync_jobs j where j.id = slots.job_id and j.owner_id = (select auth.uid() as uid))');
select chunk_private.set_reading_policy('chunk_private.dispatches', 'Users see their own dispatches',
  'owner_id = (select auth.uid() as uid)');

select chunk_private.set_reading_policy('chunk_private.chunk_attempts', 'Users see the attempts of their own chunks',
  'exists (select from public.chunk_processing_queue q where q.id = chunk_attempts.chunk_id and q.owner_id = (select auth.uid() as uid))');

-- What only the service reads. A policy that lets nobody in says so; without one it would look forgotten.
select chunk_private.set_reading_policy('chunk_private.settings', 'No user sees these', 'false');
select chunk_private.set_reading_policy('chunk_private.lanes', 'No user sees these', 'false');
select chunk_private.set_reading_policy('chunk_private.fresh_stripes', 'No user sees these', 'false');
select chunk_private.set_reading_policy('chunk_private.returned_chunks', 'No user sees these', 'false');
select chunk_private.set_reading_policy('chunk_private.answered_requests', 'No user sees these', 'false');
select chunk_private.set_reading_policy('chunk_private.healings', 'No user sees these', 'false');
select chunk_private.set_reading_policy('chunk_private.watchdog', 'No user sees these', 'false');
select chunk_private.set_reading_policy('public.sync_limits', 'No user sees these', 'false');
select chunk_private.set_reading_policy('chunk_private.limit_paces', 'No user sees these', 'false');
select chunk_private.set_reading_policy('chunk_private.limit_seekers', 'No user sees these', 'false');

-- Functions
revoke execute on all functions in schema chunk_private from public, anon, authenticated, service_role;
revoke execute on function
  public.save_sync_kind, public.remove_sync_kind, public.save_chunk_settings, public.configure_chunk_processing, public.start_sync_job, public.append_sync_chunks,
  public.claim_next_chunk_job_safe, public.claim_chunk_jobs_safe, public.complete_chunk_job_safe, public.complete_chunk_jobs_safe,
  public.extend_chunk_lease, public.extend_chunk_leases, public.release_chunk_job, public.get_sync_state, public.save_sync_state, public.trigger_next_chunk_processing,
  public.cleanup_stuck_chunks, public.get_sync_job_progress_safe, public.list_chunk_attempts, public.cancel_sync_job, public.pause_sync_job,
  public.resume_sync_job, public.retry_failed_chunks, public.purge_sync_jobs, public.chunk_system_health,
  public.save_sync_limit, public.block_sync_limit, public.pace_sync_limit, public.list_sync_limits,
  public.enqueue_chunks_from_rows
from public, anon, authenticated, service_role;

grant execute on function
  public.start_sync_job, public.append_sync_chunks, public.get_sync_job_progress_safe, public.list_chunk_attempts,
  public.cancel_sync_job, public.pause_sync_job, public.resume_sync_job, public.retry_failed_chunks, public.enqueue_chunks_from_rows
to authenticated;
-- What the view of progress says of limits; it checks who calls.
grant execute on function chunk_private.waiting_for to authenticated;
-- The bodies of the above, which check who calls.
grant execute on function
  chunk_private.start_sync_job, chunk_private.append_sync_chunks, chunk_private.enter_own_jobs, chunk_private.cancel_sync_job, chunk_private.pause_sync_job,
  chunk_private.resume_sync_job, chunk_private.retry_failed_chunks, chunk_private.settle_jobs
to authenticated;

grant execute on function
  public.save_sync_kind, public.remove_sync_kind, public.save_chunk_settings, public.configure_chunk_processing, public.start_sync_job, public.append_sync_chunks,
  public.claim_next_chunk_job_safe, public.claim_chunk_jobs_safe, public.complete_chunk_job_safe, public.complete_chunk_jobs_safe,
  public.extend_chunk_lease, public.extend_chunk_leases, public.release_chunk_job, public.get_sync_state, public.save_sync_state, public.trigger_next_chunk_processing,
  public.cleanup_stuck_chunks, public.get_sync_job_progress_safe, public.list_chunk_attempts, public.cancel_sync_job, public.pause_sync_job,
  public.resume_sync_job, public.retry_failed_chunks, public.purge_sync_jobs, public.chunk_system_health,
  public.save_sync_limit, public.block_sync_limit, public.pace_sync_limit, public.list_sync_limits,
  public.enqueue_chunks_from_rows
to service_role;
grant execute on all functions in schema chunk_private to service_role;
-- Writes a Vault entry of any name: for the owner's definer functions only. And what is for migrations only.
revoke execute on function chunk_private.save_secret, chunk_private.replace_view, chunk_private.set_reading_policy from service_role;

-- 99_install.sql

-- What an installation sets going.

-- pg_cron and pg_net come with Supabase, and may be absent elsewhere: Python workers need neither. The CLI swallows
-- notices, so what is missing is shown by chunk_system_health().
do $$
begin
  begin
    create schema if not exists extensions;
    create extension if not exists pg_net with schema extensions;
  exception when others then
    raise notice 'supabase-chunks: pg_net is not available: %', sqlerrm;
  end;
  begin
    create extension if not exists pg_cron with schema pg_catalog;
  exception when others then
    raise notice 'supabase-chunks: pg_cron is not available: %', sqlerrm;
  end;
end
$$;
select chunk_private.schedule_watchdog();

notify pgrst, 'reload schema';
