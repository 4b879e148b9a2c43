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
