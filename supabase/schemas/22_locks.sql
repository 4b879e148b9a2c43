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
