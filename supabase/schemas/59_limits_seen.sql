-- What is seen of limits: by whoever sees a job, what it waits for; by the service, all keys.

create or replace function chunk_private.waiting_for(job_id uuid)
returns jsonb
language plpgsql
stable
security definer -- users see no limits and no jobs of others, but what their own jobs wait for
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  by_service constant boolean := chunk_private.is_service();
  limit_key constant text := (
    select j.limit_key from public.sync_jobs j where j.id = job_id and (by_service or j.owner_id = auth.uid())
  );
  blocked record;
begin
  if limit_key is null then
    return null;
  end if;
  select l.blocked_until as until, l.blocked_reason as reason into blocked from public.sync_limits l where l.key = limit_key and l.blocked_until > now();
  -- It waits for room while it has parked slots and none that a claim could take.
  if blocked.until is null and (
    not exists (select from chunk_private.slots s where s.job_id = job_id and s.parked)
    or exists (select from chunk_private.slots s where s.job_id = job_id and (s.claimed or s.parked) is false and s.ready_at <= now())
  ) then
    return null;
  end if;
  return jsonb_build_object('key', limit_key, 'until', blocked.until) || case when by_service then jsonb_build_object(
    'reason', blocked.reason, 'processing', chunk_private.limit_used(limit_key),
    'max_concurrency', (select r.most from chunk_private.limit_of(limit_key) r)
  ) else '{}' end;
end
$$;
comment on function chunk_private.waiting_for is
  'Which limit key a job waits for, and until when it is blocked (null: for room); for the service also why, and how many chunks of the key are processing. Null: it waits for none.';

create or replace function public.list_sync_limits(key text default null)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
begin
  return (
    with recursive used (limit_key) as (
      (select s.limit_key from chunk_private.slots s where s.limit_key is not null order by s.limit_key limit 1)
      union all
      select n.limit_key from used u
      cross join lateral (
        select s.limit_key from chunk_private.slots s where s.limit_key > u.limit_key order by s.limit_key limit 1
      ) n
    ),
    named (limit_key) as (
      (select u.limit_key from used u where key is null limit 1000)
      union
      select l.key from public.sync_limits l where key is null
      union
      select key where key is not null
    )
    select coalesce(jsonb_agg(jsonb_build_object(
      'key', n.limit_key,
      'max_concurrency', r.most,
      'rate', l.rate,
      'per_seconds', case when l.rate is not null then l.per_seconds end,
      'blocked_until', case when l.blocked_until > now() then l.blocked_until end,
      'blocked_reason', case when l.blocked_until > now() then l.blocked_reason end,
      'processing', chunk_private.limit_used(n.limit_key),
      'waiting', (select count(*) from chunk_private.slots s where s.limit_key = n.limit_key and not s.claimed),
      'jobs', (select count(*) from public.sync_jobs j where j.limit_key = n.limit_key and j.status in ('pending', 'running', 'paused'))
    ) order by n.limit_key), '[]')
    from named n
    cross join lateral chunk_private.limit_of(n.limit_key) r
    left join public.sync_limits l on l.key = n.limit_key
  );
end
$$;
comment on function public.list_sync_limits is
  'The limit keys that have limits, are blocked, or have chunks in slots (up to 1,000 of these); or the one named. Each with its limits, how many of its chunks are processing and wait in slots, and its active jobs.';
