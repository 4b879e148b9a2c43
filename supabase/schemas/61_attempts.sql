-- What went before: the attempts of a job's chunks that did not complete.

create or replace function public.list_chunk_attempts(parent_sync_job_id uuid, after_id bigint default 0)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
  select coalesce(jsonb_agg(to_jsonb(p) order by p.id), '[]')
  from (
    select a.id, a.chunk_id, q.chunk_index, a.attempt, a.outcome, a.error, a.worker_id,
      a.claimed_at as started_at, a.ended_at
    from chunk_private.chunk_attempts a
    cross join lateral (select q.chunk_index from public.chunk_processing_queue q where q.id = a.chunk_id limit 1) q
    where a.job_id = $1 and a.id > $2
    order by a.id
    limit 1000
  ) p;
$$;
comment on function public.list_chunk_attempts is
  'The attempts of a job''s chunks that did not complete, in the order of their ends, at most 1,000 after an id: which chunk, which attempt, when, who, and why. Users see their own.';
