-- Appending chunks to a job.

-- Adds chunks to an active job, under its exclusive gate.
create or replace function chunk_private.add_chunks(job_id uuid, chunks jsonb, items_total bigint)
returns void
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  job record;
  added constant bigint := jsonb_array_length(chunks);
begin
  select j.kind, j.owner_id, j.priority, j.max_retries, j.total_chunks, j.counter_shards into job
  from public.sync_jobs j where j.id = job_id;
  insert into public.chunk_processing_queue
    (parent_sync_job_id, kind, owner_id, chunk_index, priority, max_retries, payload)
  select job_id, job.kind, job.owner_id, job.total_chunks + c.place - 1, job.priority, job.max_retries, c.payload
  from jsonb_array_elements(chunks) with ordinality c (payload, place);
  perform chunk_private.count_fresh(job_id, job.owner_id, job.counter_shards, job.total_chunks, job.total_chunks + added);
  update public.sync_jobs j
  set total_chunks = j.total_chunks + added,
      items_total = case when items_total is null then j.items_total else coalesce(j.items_total, 0) + items_total end
  where j.id = job_id;
end
$$;
comment on function chunk_private.add_chunks is 'Appends checked chunks to a job''s end, and counts them.';

create or replace function chunk_private.append_sync_chunks(
  parent_sync_job_id uuid, chunks jsonb, request_id uuid, seal boolean, items_total bigint
)
returns jsonb
language plpgsql
security definer -- users may append to their own jobs and write no table
set search_path = ''
as $$
#variable_conflict use_variable
declare
  job public.sync_jobs;
  most bigint;
begin
  chunks := coalesce(chunks, '[]');
  perform chunk_private.check_chunks('chunks', chunks);
  perform chunk_private.check_range('items_total', items_total, 0, 9007199254740991) where items_total is not null;
  job := chunk_private.enter_job(parent_sync_job_id);
  if request_id is not null and exists (
    select from chunk_private.appended_pages p where p.job_id = parent_sync_job_id and p.request_id = request_id
  ) then
    return public.get_sync_job_progress_safe(job.id);
  end if;
  if job.status not in ('pending', 'running', 'paused') then
    perform chunk_private.refuse(job, 'appended to');
  end if;
  if not chunk_private.is_service() then
    if job.sealed then
      raise exception using errcode = 'SC005', message = format('the sync job %s is sealed: only an unsealed job can be appended to', job.id);
    end if;
    select s.user_max_chunks into most from chunk_private.settings s;
    if job.total_chunks + jsonb_array_length(chunks) > most then
      raise exception using errcode = 'SC004', detail = 'chunks', message = format('a user''s job may have %s chunks', most);
    end if;
  end if;
  if request_id is not null then
    insert into chunk_private.appended_pages (job_id, request_id) values (job.id, request_id);
  end if;
  perform chunk_private.add_chunks(job.id, chunks, items_total);
  if seal and not job.sealed then
    update public.sync_jobs j set sealed = true where j.id = job.id;
    perform chunk_private.finish_if_done(job.id);
  end if;
  perform chunk_private.fill_slots(job.id);
  return public.get_sync_job_progress_safe(job.id);
end
$$;
comment on function chunk_private.append_sync_chunks is 'The body of append_sync_chunks.';

create or replace function public.append_sync_chunks(
  parent_sync_job_id uuid, chunks jsonb, request_id uuid default null, seal boolean default false, items_total bigint default null
)
returns jsonb
language sql
set search_path = ''
set statement_timeout = '60s'
as $$ select chunk_private.append_sync_chunks($1, $2, $3, $4, $5); $$;
comment on function public.append_sync_chunks is
  'Appends chunks (a JSON array of objects) to an active job; for users: to an unsealed job of their own. The same request_id again adds nothing. seal => true says that these were the last.';

create or replace function public.enqueue_chunks_from_rows()
returns trigger
language plpgsql
set search_path = ''
as $$
declare
  job_column constant text := coalesce(tg_argv[0], 'parent_sync_job_id');
  page record;
begin
  for page in
    select to_jsonb(r) ->> job_column as job_id, jsonb_agg(to_jsonb(r)) as chunks
    from new_rows r
    group by 1
    order by 1
  loop
    if page.job_id is null then
      raise exception using errcode = 'SC003', detail = job_column,
        message = format('each row of %s must name its sync job in the column %s', tg_relid::regclass, job_column);
    end if;
    perform public.append_sync_chunks(page.job_id::uuid, page.chunks);
  end loop;
  return null;
end
$$;
comment on function public.enqueue_chunks_from_rows is
  'A trigger for your own table of chunks: each row inserted becomes a chunk (its payload is the row) of the job that the column parent_sync_job_id, or the one named as the trigger''s argument, gives. Attach it with: create trigger … after insert on … referencing new table as new_rows for each statement execute function enqueue_chunks_from_rows().';
