-- Purge.

create or replace function public.purge_sync_jobs(older_than interval default '30 days', batch_size int default 10000)
returns jsonb
language plpgsql
set search_path = ''
set statement_timeout = '60s'
as $$
#variable_conflict use_variable
declare
  job record;
  budget int := batch_size;
  deleted int;
  jobs int := 0;
  chunks int := 0;
begin
  if older_than is null or older_than < interval '0' then
    raise exception using errcode = 'SC003', detail = 'older_than', message = 'older_than must be an interval that is not negative';
  end if;
  perform chunk_private.check_range('batch_size', coalesce(batch_size, 0), 1, 1000000);
  for job in
    select j.id from public.sync_jobs j
    where j.completed_at <= now() - older_than
    order by j.completed_at, j.id
  loop
    exit when budget <= 0;
    -- Somebody may be reopening it; then it is not purged now.
    continue when not pg_try_advisory_xact_lock(uuid_hash_extended(job.id, 0));
    continue when not exists (select from public.sync_jobs j where j.id = job.id and j.completed_at <= now() - older_than);
    delete from public.chunk_processing_queue q
    where q.id = any (array(
      select c.id from public.chunk_processing_queue c where c.parent_sync_job_id = job.id order by c.chunk_index limit budget
    ));
    get diagnostics deleted = row_count;
    chunks := chunks + deleted;
    budget := budget - deleted;
    if not exists (select from public.chunk_processing_queue q where q.parent_sync_job_id = job.id) then
      delete from public.sync_jobs j where j.id = job.id;
      jobs := jobs + 1;
      budget := budget - (deleted = 0)::int; -- an empty job is work too
    end if;
  end loop;
  return jsonb_build_object('jobs', jobs, 'chunks', chunks, 'more', exists (
    select from public.sync_jobs j where j.completed_at <= now() - older_than
  ));
end
$$;
comment on function public.purge_sync_jobs is
  'Deletes jobs that ended longer ago than older_than, with their chunks; about batch_size chunks a call. Returns {jobs, chunks, more}: call again while more is true.';
