-- Appending chunks to a job.

create or replace function chunk_private.add_items(job_id uuid, more bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  update public.sync_jobs j
  set items_total = least(coalesce(j.items_total, 0) + more, chunk_private.most_items())
  where j.id = job_id and more is not null;
end
$$;
comment on function chunk_private.add_items is
  'Adds to the number of items that a job has announced; null adds nothing. The sum stops at 2^53 - 1, where a report must not fail any more.';

create or replace function chunk_private.add_chunks(job_id uuid, chunks jsonb, more_items bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  job constant public.sync_jobs := (select j from public.sync_jobs j where j.id = job_id);
  total constant bigint := job.total_chunks + jsonb_array_length(chunks);
begin
  insert into public.chunk_processing_queue (parent_sync_job_id, kind, owner_id, chunk_index, max_retries, payload)
  select job.id, job.kind, job.owner_id, job.total_chunks + c.place - 1, job.max_retries, c.payload
  from jsonb_array_elements(chunks) with ordinality c (payload, place);
  perform chunk_private.line_up(job, job.total_chunks, total);
  update public.sync_jobs j set total_chunks = total where j.id = job.id;
  perform chunk_private.add_items(job.id, more_items);
end
$$;
comment on function chunk_private.add_chunks is 'Appends checked chunks to the end of an active job, and counts them; the caller is alone in its gate.';

create or replace function chunk_private.append_sync_chunks(
  parent_sync_job_id uuid, chunks jsonb, request_id uuid, seal boolean, items_total bigint, settles boolean
)
returns jsonb
language plpgsql
security definer -- users may append to their own jobs and write no table
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  by_service constant boolean := chunk_private.is_service();
  limits constant chunk_private.settings := (select s from chunk_private.settings s);
  job public.sync_jobs;
begin
  chunks := coalesce(chunks, '[]');
  perform chunk_private.check_chunks('chunks', chunks, case when by_service then limits.max_payload_bytes else limits.user_max_chunk_bytes end);
  perform chunk_private.check_items('items_total', items_total);
  job := chunk_private.enter_own_job(parent_sync_job_id, 'append_sync_chunks');
  if request_id is not null and exists (
    select from chunk_private.answered_requests r
    where r.request_id = append_sync_chunks.request_id and r.job_id = job.id and r.call = 'append'
  ) then
    return public.get_sync_job_progress_safe(job.id);
  end if;
  if job.status not in ('pending', 'running', 'paused') then
    perform chunk_private.refuse(job, 'appended to');
  end if;
  if not by_service then
    if job.sealed then
      raise exception using errcode = 'SC005', message = format('the sync job %s is sealed: only an unsealed job can be appended to', job.id);
    end if;
    if job.total_chunks + jsonb_array_length(chunks) > limits.user_max_chunks then
      raise exception using errcode = 'SC004', detail = 'chunks',
        message = format('a user''s job may have %s chunks (user_max_chunks)', limits.user_max_chunks);
    end if;
    perform chunk_private.lock_user(job.owner_id);
    perform chunk_private.check_kept_chunks(job.owner_id, jsonb_array_length(chunks));
    perform chunk_private.check_webhooks(job.owner_id);
  end if;
  if request_id is not null then
    perform chunk_private.remember_request(job.id, request_id, 'append');
  end if;
  perform chunk_private.add_chunks(job.id, chunks, items_total);
  if seal and not job.sealed then
    update public.sync_jobs j set sealed = true where j.id = job.id;
    perform chunk_private.finish_if_done(job.id);
  end if;
  perform chunk_private.fill_slots(job.id);
  if settles then
    perform chunk_private.settle_limits(array[job.limit_key]);
  end if;
  return public.get_sync_job_progress_safe(job.id);
end
$$;
comment on function chunk_private.append_sync_chunks is 'The body of append_sync_chunks. settles: whether no other append follows in this call, and the limit key is settled.';

create or replace function public.append_sync_chunks(
  parent_sync_job_id uuid, chunks jsonb, request_id uuid default null, seal boolean default false, items_total bigint default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set statement_timeout = '60s'
set enable_seqscan = off
set jit = off
as $$ select chunk_private.append_sync_chunks($1, $2, $3, $4, $5, true); $$;
comment on function public.append_sync_chunks is
  'Appends chunks (a JSON array of objects) to an active job; for users: to an unsealed job of their own. The same request_id again adds nothing. seal => true says that these were the last.';

-- All gates before the first append: that takes a user's lock, for which others wait in a gate.
create or replace function chunk_private.enter_own_jobs(job_ids uuid[])
returns void
language plpgsql
security definer -- users may append to their own jobs, and call no gate
set search_path = pg_catalog, pg_temp
as $$
begin
  perform chunk_private.enter_own_job(i.id, 'enqueue_chunks_from_rows')
  from (select distinct u.id from unnest(job_ids) u (id) order by 1) i;
end
$$;
comment on function chunk_private.enter_own_jobs is 'Enters the gates of jobs that the caller may steer, alone and in their order; SC001 when there is another.';

-- After the last append: whoever has a limit key waits for nothing else.
create or replace function chunk_private.settle_jobs(job_ids uuid[])
returns void
language plpgsql
security definer -- users may append to their own jobs, and write no slots
set search_path = pg_catalog, pg_temp
as $$
begin
  perform chunk_private.settle_limits(array(select j.limit_key from public.sync_jobs j where j.id = any (job_ids)));
end
$$;
comment on function chunk_private.settle_jobs is 'Settles the limit keys of jobs, which does no more than anybody''s next call would.';

create or replace function public.enqueue_chunks_from_rows()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  job_column constant text := coalesce(tg_argv[0], 'parent_sync_job_id');
  job_ids uuid[];
  page record;
begin
  if exists (select from new_rows r where to_jsonb(r) ->> job_column is null) then
    raise exception using errcode = 'SC003', detail = job_column,
      message = format('each row of %s must name its sync job in the column %s', tg_relid::regclass, job_column);
  end if;
  job_ids := array(select distinct (to_jsonb(r) ->> job_column)::uuid from new_rows r);
  if cardinality(job_ids) > 1000 then -- each gate is an entry in the server's table of locks
    raise exception using errcode = 'SC004', detail = job_column,
      message = format('the rows for %s name %s sync jobs in the column %s; one statement may name 1000', tg_relid::regclass, cardinality(job_ids), job_column);
  end if;
  perform chunk_private.enter_own_jobs(job_ids);
  for page in
    select (to_jsonb(r) ->> job_column)::uuid as job_id, jsonb_agg(to_jsonb(r)) as chunks
    from new_rows r
    group by 1
    order by 1
  loop
    perform chunk_private.append_sync_chunks(page.job_id, page.chunks, null, false, null, false);
  end loop;
  perform chunk_private.settle_jobs(job_ids);
  return null;
end
$$;
comment on function public.enqueue_chunks_from_rows is
  'A trigger for your own table of chunks: each row inserted becomes a chunk (its payload is the row) of the job that the column parent_sync_job_id, or the one named as the trigger''s argument, gives. Attach it with: create trigger … after insert on … referencing new table as new_rows for each statement execute function enqueue_chunks_from_rows().';
