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
