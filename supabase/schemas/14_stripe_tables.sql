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
