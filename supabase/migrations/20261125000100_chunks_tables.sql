-- The tables of the chunk queue, and the state machine as named constraints.
--
-- public         what people query by name: sync_kinds, sync_jobs, chunk_processing_queue
-- chunk_private  what the Data API does not expose: settings, lanes, counters, attempts, dispatches, helper functions

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
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint sync_kinds_kind_is_a_name check (kind ~ '^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$'),
  constraint sync_kinds_handler_is_a_name check (handler ~ '^[A-Za-z0-9_-]{1,100}$'),
  constraint sync_kinds_max_concurrency_range check (max_concurrency between 1 and 1000),
  constraint sync_kinds_max_retries_range check (max_retries between 0 and 100),
  constraint sync_kinds_lease_range check (lease_seconds between 1 and 86400),
  constraint sync_kinds_retry_delay_range check (retry_delay_seconds between 0 and 86400)
);
comment on table public.sync_kinds is 'What sorts of sync there are: who does their chunks, and within which limits. Change it with save_sync_kind().';
comment on column public.sync_kinds.handler is 'The Edge Function that does a chunk''s work; null: Python workers do this kind.';
comment on column public.sync_kinds.max_concurrency is 'How many chunks of one job may be released or processing at once, unless the job says otherwise.';
comment on column public.sync_kinds.max_retries is 'Retries after the first attempt; a chunk has at most 1 + max_retries attempts.';
comment on column public.sync_kinds.lease_seconds is 'How long a claim lasts without a heartbeat, in seconds.';
comment on column public.sync_kinds.retry_delay_seconds is 'Backoff before the first retry in seconds; doubles with each further one, up to an hour.';
comment on column public.sync_kinds.user_startable is 'Whether a signed-in user (role authenticated) may start a job of this kind.';

insert into public.sync_kinds (kind, handler, max_concurrency, user_startable)
values ('email', 'sync-emails', 4, true), ('custom', null, 16, false)
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
  counter_shards smallint not null default 1,
  finishes int not null default 0,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  completed_at timestamptz,
  constraint sync_jobs_kind_fkey foreign key (kind) references public.sync_kinds (kind),
  constraint sync_jobs_status_known check (status in ('pending', 'running', 'paused', 'completed', 'failed', 'cancelled')),
  constraint sync_jobs_ended_has_time check ((status in ('completed', 'failed', 'cancelled')) = (completed_at is not null)),
  constraint sync_jobs_completed_is_sealed check (sealed or status not in ('completed', 'failed')),
  constraint sync_jobs_payload_is_object check (jsonb_typeof(payload) = 'object'),
  constraint sync_jobs_job_key_length check (length(job_key) between 1 and 500),
  constraint sync_jobs_priority_range check (priority between -3 and 3),
  constraint sync_jobs_max_concurrency_range check (max_concurrency between 1 and 1000),
  constraint sync_jobs_max_retries_range check (max_retries between 0 and 100),
  constraint sync_jobs_counts_not_negative check (total_chunks >= 0 and items_total >= 0),
  constraint sync_jobs_counter_shards_range check (counter_shards between 1 and 16)
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
comment on column public.sync_jobs.counter_shards is 'Over how many rows of chunk_private.job_counters the counts are spread.';
comment on column public.sync_jobs.finishes is 'How often the job came to completed, failed or cancelled: once, and once more each time retry_failed_chunks reopens it.';

create unique index if not exists sync_jobs_one_active_per_key on public.sync_jobs (kind, owner_id, job_key)
  nulls not distinct where job_key is not null and status in ('pending', 'running', 'paused');
create unique index if not exists sync_jobs_one_per_request on public.sync_jobs (request_id, owner_id)
  nulls not distinct where request_id is not null;
create index if not exists sync_jobs_owner on public.sync_jobs (owner_id, created_at desc);
create index if not exists sync_jobs_active on public.sync_jobs (kind) where status in ('pending', 'running', 'paused');
create index if not exists sync_jobs_ended on public.sync_jobs (completed_at) where completed_at is not null;

-- Chunks --------------------------------------------------------------------------------------------------------------

create table if not exists public.chunk_processing_queue (
  id bigint generated always as identity primary key,
  parent_sync_job_id uuid not null,
  kind text not null,
  owner_id uuid,
  chunk_index bigint not null,
  status text not null default 'pending',
  priority smallint not null default 0,
  payload jsonb not null default '{}',
  result jsonb,
  error text,
  attempts int not null default 0,
  max_retries int not null default 3,
  given_back int not null default 0,
  items_processed bigint,
  items_total bigint,
  claim_token uuid,
  worker_id text,
  locked_until timestamptz,
  ready_at timestamptz,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  completed_at timestamptz,
  updated_at timestamptz not null default now(),
  constraint chunk_processing_queue_parent_fkey foreign key (parent_sync_job_id) references public.sync_jobs (id) on delete cascade,
  constraint chunk_processing_queue_place_key unique (parent_sync_job_id, chunk_index),
  -- The state machine, in one short constraint, and with an array for `in`: the server reads it anew for each write.
  constraint chunk_processing_queue_state_machine check (
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
comment on column public.chunk_processing_queue.chunk_index is 'Place in the job, from 0.';
comment on column public.chunk_processing_queue.status is 'pending → processing → completed | failed | cancelled; processing → pending on retry, release or recovery.';
comment on column public.chunk_processing_queue.attempts is 'Claims so far that were not given back; counted at the claim, so that a chunk that kills its worker cannot loop for ever.';
comment on column public.chunk_processing_queue.error is 'Why the last attempt failed. All of them: chunk_private.chunk_attempts.';
comment on column public.chunk_processing_queue.given_back is 'How often a worker gave the chunk back unfinished (release_chunk_job); bounded.';
comment on column public.chunk_processing_queue.ready_at is 'When the retry of a chunk that has failed is due; null before the first failure.';
comment on column public.chunk_processing_queue.items_processed is 'Items done, as the last heartbeat or the completion said.';
comment on column public.chunk_processing_queue.items_total is 'Items this chunk was made for, or has found by its completion.';
comment on column public.chunk_processing_queue.claim_token is 'Fencing token of the current, or of an ended chunk the last, claim. Only its holder can report.';
comment on column public.chunk_processing_queue.locked_until is 'End of the lease. A heartbeat moves it; after it the watchdog takes the chunk back.';
comment on column public.chunk_processing_queue.started_at is 'When the current, or of an ended chunk the last, attempt was claimed.';
comment on column public.chunk_processing_queue.updated_at is 'Last claim, heartbeat or report.';

-- The inside ----------------------------------------------------------------------------------------------------------

create table if not exists chunk_private.settings (
  only_row boolean primary key default true,
  user_max_chunks int not null default 10000,
  user_max_active_jobs int not null default 20,
  max_given_back int not null default 10,
  constraint settings_one_row check (only_row),
  constraint settings_limits_positive check (user_max_chunks > 0 and user_max_active_jobs > 0 and max_given_back >= 0)
);
comment on table chunk_private.settings is 'Limits, one row.';
comment on column chunk_private.settings.only_row is 'Keeps it to one row.';
comment on column chunk_private.settings.user_max_chunks is 'Chunks that a signed-in user''s job may have.';
comment on column chunk_private.settings.user_max_active_jobs is 'Jobs that a signed-in user may have active at once.';
comment on column chunk_private.settings.max_given_back is 'How often a chunk can be given back before it costs an attempt.';
insert into chunk_private.settings (only_row) values (true) on conflict on constraint settings_pkey do nothing;

create table if not exists chunk_private.lanes (
  id smallint generated always as identity primary key,
  kind text not null,
  priority smallint not null,
  constraint lanes_kind_fkey foreign key (kind) references public.sync_kinds (kind) on delete cascade,
  constraint lanes_kind_priority_key unique (kind, priority)
);
comment on table chunk_private.lanes is
  'The pairs of kind and priority that were ever used: a claim reads the claim index lane by lane, each as one short range.';

create table if not exists chunk_private.slots (
  job_id uuid not null,
  chunk_index bigint not null,
  lane smallint not null,
  ready_at timestamptz not null,
  claimed boolean not null default false,
  claim_id uuid,
  dispatched_at timestamptz,
  dispatch_count int not null default 0,
  -- No foreign key to the job: its check would lock the job's row at each release. The trigger below does its work.
  primary key (job_id, chunk_index)
)
with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
comment on table chunk_private.slots is
  'The slots in use: a row a chunk that is released or processing. A job has at most max_concurrency of them, so the cap holds without a check at the claim. A finished chunk''s row passes to the job''s next chunk.';
comment on column chunk_private.slots.lane is 'Its job''s kind and priority: chunk_private.lanes.id.';
comment on column chunk_private.slots.ready_at is 'Not claimable before. Claims take the oldest first, so that jobs take turns.';
comment on column chunk_private.slots.claimed is 'Whether its chunk is processing.';
comment on column chunk_private.slots.claim_id is 'The claim''s own id, so that a claim whose reply was lost can be repeated.';
comment on column chunk_private.slots.dispatched_at is 'When a webhook was last sent for the chunk.';
comment on column chunk_private.slots.dispatch_count is 'Webhooks sent since it was released; the watchdog doubles its interval with each.';
create index if not exists slots_claim on chunk_private.slots (lane, ready_at, chunk_index) where not claimed;
create index if not exists slots_claim_id on chunk_private.slots (claim_id) where claim_id is not null;

create or replace function chunk_private.forget_slots()
returns trigger
language plpgsql
security definer -- whoever may delete a job need not have rights on what is inside
set search_path = ''
as $$
begin
  delete from chunk_private.slots s using deleted_jobs d where s.job_id = d.id;
  return null;
end
$$;
comment on function chunk_private.forget_slots is 'Deletes the slots of deleted jobs.';
create or replace trigger sync_jobs_forget_slots after delete on public.sync_jobs
  referencing old table as deleted_jobs for each statement execute function chunk_private.forget_slots();

create table if not exists chunk_private.fresh_stripes (
  job_id uuid not null,
  stripe smallint not null,
  next_index bigint not null,
  end_index bigint not null,
  primary key (job_id, stripe),
  constraint fresh_stripes_job_fkey foreign key (job_id) references public.sync_jobs (id) on delete cascade
)
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
comment on table chunk_private.fresh_stripes is
  'Which chunks of a job were never released: of each stripe (chunk_index modulo the number of counter shards) those from next_index on, below end_index. Several stripes, so that workers do not queue for one row.';
comment on column chunk_private.fresh_stripes.stripe is 'Its chunks have this remainder: chunk_index modulo sync_jobs.counter_shards.';
comment on column chunk_private.fresh_stripes.next_index is 'The first of them that was never released.';
comment on column chunk_private.fresh_stripes.end_index is 'The job''s number of chunks: one above its last chunk_index.';

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

create table if not exists chunk_private.job_counters (
  job_id uuid not null,
  shard smallint not null,
  owner_id uuid,
  open_chunks bigint not null default 0,
  completed_chunks bigint not null default 0,
  failed_chunks bigint not null default 0,
  cancelled_chunks bigint not null default 0,
  retrying_chunks bigint not null default 0,
  items_processed bigint not null default 0,
  last_activity_at timestamptz not null default now(),
  last_error text,
  last_error_at timestamptz,
  primary key (job_id, shard),
  constraint job_counters_job_fkey foreign key (job_id) references public.sync_jobs (id) on delete cascade,
  constraint job_counters_not_negative check (least(open_chunks, completed_chunks, failed_chunks, cancelled_chunks, retrying_chunks) >= 0)
)
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
comment on table chunk_private.job_counters is
  'A job''s counts, spread over up to 16 rows so that workers finishing chunks of one job do not queue for one row. Their sum is exact at every commit.';
comment on column chunk_private.job_counters.open_chunks is 'Pending and processing. The job row is looked at only when this reaches zero.';
comment on column chunk_private.job_counters.retrying_chunks is 'Open chunks that have failed at least once.';
comment on column chunk_private.job_counters.items_processed is 'Items of ended chunks; those of running ones stand in their heartbeats.';

create table if not exists chunk_private.chunk_attempts (
  id bigint generated always as identity primary key,
  chunk_id bigint not null,
  attempt int not null,
  outcome text not null,
  error text,
  worker_id text,
  claim_token uuid not null,
  claimed_at timestamptz,
  ended_at timestamptz not null default now(),
  constraint chunk_attempts_chunk_fkey foreign key (chunk_id) references public.chunk_processing_queue (id) on delete cascade,
  constraint chunk_attempts_outcome_known check (outcome in ('retrying', 'failed', 'lost', 'released', 'cancelled'))
);
comment on table chunk_private.chunk_attempts is 'Every attempt that did not complete: who, when, and why.';
comment on column chunk_private.chunk_attempts.outcome is
  'retrying and failed: the worker reported an error; lost: its lease ran out; released: it gave the chunk back; cancelled: the job was.';
create index if not exists chunk_attempts_chunk on chunk_private.chunk_attempts (chunk_id, claim_token);

create table if not exists chunk_private.dispatches (
  id bigint generated always as identity primary key,
  job_id uuid not null,
  owner_id uuid,
  chunk_id bigint not null,
  request_id bigint,
  status_code int,
  error text,
  created_at timestamptz not null default now(),
  answered_at timestamptz,
  constraint dispatches_job_fkey foreign key (job_id) references public.sync_jobs (id) on delete cascade
);
comment on table chunk_private.dispatches is 'Webhooks asked of pg_net, with their outcome once the watchdog has seen it. A dispatch is a hint, never the truth.';
comment on column chunk_private.dispatches.request_id is 'pg_net''s id of the request; null: it could not even be asked for.';
comment on column chunk_private.dispatches.error is 'Why it failed: an exception of pg_net, no answer, or an HTTP status of 300 and more.';
create index if not exists dispatches_job on chunk_private.dispatches (job_id, id desc);
create index if not exists dispatches_unanswered on chunk_private.dispatches (request_id) where answered_at is null and request_id is not null;
create index if not exists dispatches_age on chunk_private.dispatches (created_at, chunk_id);
