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
