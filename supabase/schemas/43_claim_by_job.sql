-- Claiming by a job's id where the job has a limit key: its slots may be parked while those of other jobs are awake.
--
-- settle_limit wakes those that have waited longest, whoever works on them. Where workers name their jobs it may be that nobody
-- does: then a job takes parked slots of its own, when there is room beside those that somebody is to be expected for. These are
-- slots that were woken a moment ago, and those of jobs that have waited longer and are asked for by their ids, too.

create or replace function chunk_private.note_seeker(limit_key text, job_id uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  if exists (
    select from chunk_private.limit_seekers k
    where k.limit_key = limit_key and k.job_id = job_id and k.asked_at > now() - interval '500 milliseconds'
  ) then
    return;
  end if;
  delete from chunk_private.limit_seekers k where k.limit_key = limit_key and k.asked_at < now() - interval '1 minute';
  insert into chunk_private.limit_seekers (limit_key, job_id) values (limit_key, job_id)
  on conflict on constraint limit_seekers_pkey do update set asked_at = now();
end
$$;
comment on function chunk_private.note_seeker is 'Notes that a worker asks for a job by its id. The caller has the key''s lock.';

create or replace function chunk_private.claim_by_job(
  worker text, how_many int, job_id uuid, kinds text[], wanted_lease int, with_claim_id uuid
)
returns chunk_private.claimed_chunk[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  within constant bigint := 4294967296; -- a lane's id follows its priority
  lately constant timestamptz := now() - interval '2 seconds';
  job record;
  rules record;
  room int;
  own record;
  taken bigint[] := array[]::bigint[];
begin
  select j.limit_key, k.handler, coalesce(wanted_lease, k.lease_seconds) as lease_seconds into job
  from public.sync_jobs j
  join public.sync_kinds k on k.kind = j.kind
  where j.id = job_id and j.kind = any (kinds) and j.limit_key is not null
    and exists (select from chunk_private.slots s where s.job_id = job_id and s.parked);
  if not found or not chunk_private.wait_a_moment_for_limit(job.limit_key) then
    return array[]::chunk_private.claimed_chunk[];
  end if;
  rules := chunk_private.limit_of(job.limit_key);
  if rules.opens_at > now() then
    return array[]::chunk_private.claimed_chunk[];
  end if;
  room := coalesce(rules.most - chunk_private.limit_used(job.limit_key), how_many);
  while room > 0 and cardinality(taken) < how_many loop
    select s.ctid as place, s.lane / within as priority, s.ready_at, s.chunk_index into own from chunk_private.slots s
    where s.job_id = job_id and not s.claimed and s.ready_at <= now()
    order by s.ready_at, s.chunk_index limit 1 for no key update skip locked;
    exit when not found or room <= (
      select count(*) from (
        (select from chunk_private.slots s
        where s.limit_key = job.limit_key and s.claimed < true and not s.parked -- so written, it is not read by the claim index
          and s.job_id <> job_id and s.lane / within <= own.priority
          and s.ready_at <= now() and (s.ready_at > lately or s.dispatched_at > now() - interval '30 seconds')
        limit room)
        union all
        (select from chunk_private.limit_seekers k
        join chunk_private.slots s on s.job_id = k.job_id
        where k.limit_key = job.limit_key and k.asked_at > lately and k.job_id <> job_id and not s.claimed and s.parked
          and (s.lane / within, s.ready_at, s.chunk_index, s.job_id) < (own.priority, own.ready_at, own.chunk_index, job_id)
        limit room)
      ) expected
    );
    update chunk_private.slots s set claimed = true, parked = false, claim_id = with_claim_id where s.ctid = own.place;
    taken := taken || own.chunk_index;
    room := room - 1;
  end loop;
  if taken = '{}' then
    perform chunk_private.note_seeker(job.limit_key, job_id);
    return array[]::chunk_private.claimed_chunk[];
  end if;
  return chunk_private.start_attempts(array_fill(job_id, array[cardinality(taken)]), taken, worker, job.handler, job.lease_seconds);
end
$$;
comment on function chunk_private.claim_by_job is
  'Claims up to how_many parked chunks of one job, as far as its limit key has room beside those who go first.';
