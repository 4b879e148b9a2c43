-- Claim: take released chunks, with a fencing token and a lease.
--
-- In the bodies of this project a bare name is always an argument or a variable, a column is always qualified
-- (`#variable_conflict use_variable`): the arguments are public names and equal to many columns.
--
-- Order of locks, for every function of this project, so that no two of them wait for each other in a circle:
--   1. gates by job id: pg_advisory_xact_lock[_shared](uuid_hash_extended(job, 0)). Shared: complete, extend, give back,
--      recovery. Exclusive: cancel, pause, resume, retry, append, seal, settle, and a completion with next_chunks
--   2. slots of claimable chunks   3. chunks by id   4. counters by (job, shard)   5. jobs by id
--   6. what a freed slot goes to: returned chunks and stripes; nothing waits after them
-- A claim enters no gate: it takes slots with SKIP LOCKED, and then writes chunks that nobody else writes.

-- Enters a job exclusively: nobody completes, gives back or recovers its chunks until the transaction's end.
create or replace function chunk_private.enter_job(job_id uuid)
returns public.sync_jobs
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  job public.sync_jobs;
begin
  select j.* into job from public.sync_jobs j where j.id = job_id;
  if found and (chunk_private.is_service() or job.owner_id is not distinct from chunk_private.signed_in_user()) then
    perform pg_advisory_xact_lock(uuid_hash_extended(job_id, 0));
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
comment on function chunk_private.enter_job is 'Takes the exclusive gate of a job that the caller may steer, and returns the job; SC001 otherwise.';
