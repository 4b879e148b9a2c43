-- Healing: what should not be, and is all the same: after changes by hand, a restored backup, a fault of ours.
--
-- The truth is the chunks: their status says where each must stand and what the counters must say.

create or replace function chunk_private.longest_wait()
returns interval
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$ select interval '8 days'; $$;
comment on function chunk_private.longest_wait is 'Longer than any function makes a chunk wait, which is a week.';

create or replace function chunk_private.longest_lease()
returns interval
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$ select interval '25 hours'; $$;
comment on function chunk_private.longest_lease is 'Longer than any lease, which is a day.';

create or replace function chunk_private.heal_waits(job public.sync_jobs)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  never constant timestamptz := now() + chunk_private.longest_wait();
  wrong text[] := array[]::text[];
  times bigint;
begin
  -- Slots where no claim of the kind looks
  update chunk_private.slots s
  set lane = l.id
  from chunk_private.lanes l
  where s.job_id = job.id and l.kind = job.kind and l.priority = job.priority and s.lane <> l.id;
  get diagnostics times = row_count;
  wrong := wrong || chunk_private.times_wrong(times, 'slots in the lane of another kind or priority');

  -- What would never be due
  update chunk_private.slots s set ready_at = now() where s.job_id = job.id and not s.claimed and s.ready_at > never;
  get diagnostics times = row_count;
  wrong := wrong || chunk_private.times_wrong(times, 'slots that would never be due');
  update chunk_private.returned_chunks r set ready_at = now() where r.job_id = job.id and r.ready_at > never;
  get diagnostics times = row_count;
  return wrong || chunk_private.times_wrong(times, 'retries that would never be due');
end
$$;
comment on function chunk_private.heal_waits is 'Puts the slots of a job where claims look, and makes due what never would be. Returns what was wrong.';

-- Only alone in the gate, beside claims. A claim takes a slot and its chunk in one transaction: who reads both in one
-- statement sees both or neither. One body with headings: each step relies on the one before.
create or replace function chunk_private.heal_places(job public.sync_jobs)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  never constant timestamptz := now() + chunk_private.longest_wait();
  wrong text[] := chunk_private.heal_waits(job);
  times bigint;
begin
  -- Slots whose chunk is not in their state, or gone
  delete from chunk_private.slots s
  where s.job_id = job.id and (s.limit_key is distinct from job.limit_key or s.parked and (s.claimed or s.limit_key is null) or not exists (
    select from public.chunk_processing_queue q
    where q.parent_sync_job_id = job.id and q.chunk_index = s.chunk_index and q.status = case when s.claimed then 'processing' else 'pending' end
  ));
  get diagnostics times = row_count;
  wrong := wrong || chunk_private.times_wrong(times, 'slots without their chunk');

  -- Chunks at work without a slot: it gets one, so that its report or the end of its lease is seen
  insert into chunk_private.slots (job_id, chunk_index, lane, ready_at, claimed, limit_key)
  select job.id, q.chunk_index, l.id, now(), true, job.limit_key
  from public.chunk_processing_queue q
  join chunk_private.lanes l on l.kind = job.kind and l.priority = job.priority
  where q.parent_sync_job_id = job.id and q.status = 'processing'
    and not exists (select from chunk_private.slots s where s.job_id = job.id and s.chunk_index = q.chunk_index)
  on conflict do nothing;
  get diagnostics times = row_count;
  wrong := wrong || chunk_private.times_wrong(times, 'processing chunks without a slot');

  -- Stripes that would hand out what is not fresh: what is pending in them stands among the returned instead
  update chunk_private.fresh_stripes f
  set next_index = f.next_index + (f.end_index - f.next_index + job.stripes - 1) / job.stripes * job.stripes
  where f.job_id = job.id and f.next_index < f.end_index and exists (
    select from generate_series(f.next_index, f.end_index - 1, job.stripes) c (chunk_index)
    left join public.chunk_processing_queue q on q.parent_sync_job_id = job.id and q.chunk_index = c.chunk_index
    where q.status is distinct from 'pending'
      or exists (select from chunk_private.slots s where s.job_id = job.id and s.chunk_index = c.chunk_index)
      or exists (select from chunk_private.returned_chunks r where r.job_id = job.id and r.chunk_index = c.chunk_index)
  );
  get diagnostics times = row_count;
  wrong := wrong || chunk_private.times_wrong(times, 'stripes with chunks that are not fresh');

  -- Returned chunks that are not pending, or stand elsewhere too
  delete from chunk_private.returned_chunks r
  where r.job_id = job.id and (
    exists (select from chunk_private.slots s where s.job_id = job.id and s.chunk_index = r.chunk_index)
    or exists (select from chunk_private.returned_chunks o where o.job_id = job.id and o.chunk_index = r.chunk_index and o.ready_at < r.ready_at)
    or not exists (
      select from public.chunk_processing_queue q
      where q.parent_sync_job_id = job.id and q.chunk_index = r.chunk_index and q.status = 'pending'
    )
  );
  get diagnostics times = row_count;
  wrong := wrong || chunk_private.times_wrong(times, 'returned chunks that are not, or twice');

  -- Pending chunks that stand nowhere
  insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
  select job.id, case when q.ready_at between now() and never then q.ready_at else now() end, q.chunk_index
  from public.chunk_processing_queue q
  where q.parent_sync_job_id = job.id and q.status = 'pending'
    and not exists (select from chunk_private.slots s where s.job_id = job.id and s.chunk_index = q.chunk_index)
    and not exists (select from chunk_private.returned_chunks r where r.job_id = job.id and r.chunk_index = q.chunk_index)
    and not exists (
      select from chunk_private.fresh_stripes f
      where f.job_id = job.id and f.stripe = q.chunk_index % job.stripes and q.chunk_index >= f.next_index and q.chunk_index < f.end_index
    );
  get diagnostics times = row_count;
  wrong := wrong || chunk_private.times_wrong(times, 'pending chunks that stood nowhere');

  -- More slots than the job may have
  with surplus as materialized (
    select s.chunk_index from chunk_private.slots s
    where s.job_id = job.id and not s.claimed
    order by s.ready_at desc, s.chunk_index desc
    limit greatest(0, (select count(*) from chunk_private.slots o where o.job_id = job.id)
      - case job.status when 'paused' then (select count(*) from chunk_private.slots o where o.job_id = job.id and o.claimed) else job.max_concurrency end)
    for update skip locked
  ),
  taken_back as (
    delete from chunk_private.slots s using surplus u
    where s.job_id = job.id and s.chunk_index = u.chunk_index
    returning s.ready_at, s.chunk_index
  )
  insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
  select job.id, t.ready_at, t.chunk_index from taken_back t;
  get diagnostics times = row_count;
  return wrong || chunk_private.times_wrong(times, 'slots too many');
end
$$;
comment on function chunk_private.heal_places is 'Puts every chunk of a job where its status belongs: into a slot, among the fresh or returned ones, or nowhere. Returns what was wrong.';

create or replace function chunk_private.times_wrong(times bigint, what text)
returns text[]
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$ select case when $1 > 0 then array[$1 || ' ' || $2] else array[]::text[] end; $$;
comment on function chunk_private.times_wrong is 'A finding, as a list of one, or of none when it came up no times.';

create or replace function chunk_private.heal_chunks(job public.sync_jobs)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  wrong text[];
  times bigint;
begin
  -- At work without a token, or with no attempt counted: nobody could report them, nor the watchdog take them back
  update public.chunk_processing_queue q
  set claim_token = coalesce(q.claim_token, gen_random_uuid()), attempts = greatest(q.attempts, 1)
  where q.parent_sync_job_id = job.id and q.status = 'processing' and (q.claim_token is null or q.attempts < 1);
  get diagnostics times = row_count;
  wrong := chunk_private.times_wrong(times, 'processing chunks without a claim');

  -- A heartbeat keeps a lease's length
  update public.chunk_processing_queue q
  set locked_until = now() + make_interval(secs => k.lease_seconds), updated_at = now()
  from public.sync_kinds k
  where q.parent_sync_job_id = job.id and q.status = 'processing' and q.locked_until > now() + chunk_private.longest_lease() and k.kind = job.kind;
  get diagnostics times = row_count;
  wrong := wrong || chunk_private.times_wrong(times, 'leases that would not end');

  if job.status = 'cancelled' then
    update public.chunk_processing_queue q
    set status = 'cancelled', locked_until = null, completed_at = now(), updated_at = now()
    where q.parent_sync_job_id = job.id and q.status = any ('{pending,processing}');
    get diagnostics times = row_count;
    wrong := wrong || chunk_private.times_wrong(times, 'open chunks of a cancelled job');
  end if;
  return wrong;
end
$$;
comment on function chunk_private.heal_chunks is 'Puts chunks right that no report could end. Returns what was wrong.';

create or replace function chunk_private.heal_counters(job public.sync_jobs)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  times bigint;
begin
  -- Before they are counted: chunks may have been given slots that stood nowhere
  update chunk_private.job_counters c set slots_from = 0, fresh_from = 0 where c.job_id = job.id and (c.slots_from > 0 or c.fresh_from > 0);
  with counted as materialized (
    select t.stripe, count(q.id) as total, count(q.id) filter (where q.completed_at is null) as open,
      count(q.id) filter (where q.status = 'completed') as completed, count(q.id) filter (where q.status = 'failed') as failed,
      count(q.id) filter (where q.status = 'cancelled') as cancelled,
      count(q.id) filter (where q.completed_at is null and q.has_failed) as retrying,
      least(chunk_private.most_items(), coalesce(sum(case when q.status = 'completed' or q.status = 'cancelled' and q.claim_token is not null
        then q.items_processed else q.items_counted end), 0))::bigint as items
    from generate_series(0, job.stripes - 1) t (stripe)
    left join public.chunk_processing_queue q on q.parent_sync_job_id = job.id and q.chunk_index % job.stripes = t.stripe
    group by t.stripe
  ),
  corrected as (
    update chunk_private.job_counters c
    set open_chunks = n.open, completed_chunks = n.completed, failed_chunks = n.failed, cancelled_chunks = n.cancelled,
        retrying_chunks = n.retrying, items_processed = n.items, changes = c.changes + 1
    from counted n
    where c.job_id = job.id and c.stripe = n.stripe
      and (c.open_chunks, c.completed_chunks, c.failed_chunks, c.cancelled_chunks, c.retrying_chunks, c.items_processed)
        is distinct from (n.open, n.completed, n.failed, n.cancelled, n.retrying, n.items)
    returning c.stripe
  ),
  missing as (
    insert into chunk_private.job_counters
      (job_id, stripe, owner_id, open_chunks, completed_chunks, failed_chunks, cancelled_chunks, retrying_chunks, items_processed)
    select job.id, n.stripe, job.owner_id, n.open, n.completed, n.failed, n.cancelled, n.retrying, n.items from counted n
    where n.total > 0 and not exists (select from chunk_private.job_counters o where o.job_id = job.id and o.stripe = n.stripe)
    returning stripe
  )
  select (select count(*) from corrected) + (select count(*) from missing) into times;
  return chunk_private.times_wrong(times, 'counters that were wrong');
end
$$;
comment on function chunk_private.heal_counters is 'Counts a job''s chunks anew. Returns what was wrong.';
