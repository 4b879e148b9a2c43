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
