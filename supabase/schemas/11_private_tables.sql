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
