-- Slots: handing them out, passing them on, filling free ones.

-- pg_net cannot send later. So the webhook of a retry that is due soon goes out at once, and the processor waits; else the
-- last retries of a job, when no report follows that could start them, would wait for the watchdog.
create or replace function chunk_private.give_slots(
  job public.sync_jobs, chunk_indexes bigint[], ready_ats timestamptz[], claim_ids uuid[], sent_until timestamptz
)
returns void
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  claims constant int := cardinality(claim_ids);
  lane record;
  to_dispatch bigint[] := array[]::bigint[];
begin
  select l.id, k.handler into lane
  from chunk_private.lanes l
  join public.sync_kinds k on k.kind = l.kind
  where l.kind = job.kind and l.priority = job.priority;
  if lane.handler is not null then
    to_dispatch := array(
      select n.chunk_index from unnest(chunk_indexes, ready_ats) with ordinality n (chunk_index, ready_at, place)
      where n.ready_at <= sent_until and n.place > claims
    );
  end if;
  insert into chunk_private.slots (job_id, chunk_index, lane, ready_at, claimed, claim_id, dispatched_at, dispatch_count)
  select job.id, n.chunk_index, lane.id, n.ready_at, n.place <= claims, claim_ids[n.place],
    case when n.chunk_index = any (to_dispatch) then now() end, (n.chunk_index = any (to_dispatch))::int
  from unnest(chunk_indexes, ready_ats) with ordinality n (chunk_index, ready_at, place);
  if cardinality(to_dispatch) > 0 then
    perform chunk_private.dispatch(job, to_dispatch);
  end if;
end
$$;
comment on function chunk_private.give_slots is
  'Releases chunks: each gets a slot and, if it may be claimed by sent_until, a webhook. The first ones are claimed at once, with the claim ids given.';

-- What a report does with the slots it has freed, under a shared gate: each goes to at most one chunk, so the cap holds
-- without counting.
create or replace function chunk_private.pass_slots_on(job public.sync_jobs, freed bigint[], claim_ids uuid[])
returns bigint[]
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  next record;
  free int;
  later record;
  to_claim bigint[];
  waiting bigint[];
begin
  delete from chunk_private.slots s where s.job_id = job.id and s.chunk_index = any (freed);
  if job.status not in ('pending', 'running') then
    return array[]::bigint[];
  end if;
  next := chunk_private.take_claimable(job, cardinality(freed), false);
  free := cardinality(freed) - cardinality(next.chunk_indexes);
  to_claim := next.chunk_indexes[1:cardinality(claim_ids)];
  if free > 0 then
    -- Nothing else is claimable: claim chunks that have slots already. The free slots wait with retries that are not due.
    waiting := array(
      select s.chunk_index from chunk_private.slots s
      where s.job_id = job.id and not s.claimed and s.ready_at <= now()
      order by s.ready_at, s.chunk_index limit cardinality(claim_ids) - cardinality(to_claim) for no key update skip locked
    );
    update chunk_private.slots s
    set claimed = true, claim_id = w.claim_id
    from unnest(waiting, claim_ids[cardinality(to_claim) + 1:]) w (chunk_index, claim_id)
    where s.job_id = job.id and s.chunk_index = w.chunk_index;
    claim_ids := claim_ids[1:cardinality(to_claim)];
    to_claim := to_claim || waiting;
    later := chunk_private.take_returned(job.id, 'infinity', free);
    next.chunk_indexes := next.chunk_indexes || later.chunk_indexes;
    next.ready_ats := next.ready_ats || later.ready_ats;
  end if;
  if cardinality(next.chunk_indexes) > 0 then
    perform chunk_private.give_slots(job, next.chunk_indexes, next.ready_ats, claim_ids, now() + interval '25 seconds');
  end if;
  return to_claim;
end
$$;
comment on function chunk_private.pass_slots_on is
  'Gives the slots of finished chunks to the job''s next ones, if it still runs. Returns up to as many chunks as there are claim ids, their slots claimed: the caller starts their attempts.';

-- Only under the job's exclusive gate: with shared ones two transactions would each count the same free slot.
create or replace function chunk_private.fill_slots(job_id uuid)
returns int
language plpgsql
set search_path = ''
as $$
#variable_conflict use_variable
declare
  job public.sync_jobs;
  free int;
  next record;
  later record;
begin
  select j.* into job from public.sync_jobs j where j.id = job_id and j.status in ('pending', 'running');
  if not found then
    return 0;
  end if;
  -- A chunk in backoff that kept its slot for want of others gives it to those that have come since.
  with later as materialized (
    select w.chunk_index from chunk_private.slots w
    where w.job_id = job_id and not w.claimed and w.ready_at > now()
    for update skip locked
  ),
  given_up as (
    delete from chunk_private.slots s using later l
    where s.job_id = job_id and s.chunk_index = l.chunk_index
    returning s.ready_at, s.chunk_index
  )
  insert into chunk_private.returned_chunks (job_id, ready_at, chunk_index)
  select job_id, g.ready_at, g.chunk_index from given_up g;
  free := greatest(0, job.max_concurrency - (select count(*)::int from chunk_private.slots s where s.job_id = job_id));
  next := chunk_private.take_claimable(job, free, true);
  later := chunk_private.take_returned(job_id, 'infinity', free - cardinality(next.chunk_indexes));
  next.chunk_indexes := next.chunk_indexes || later.chunk_indexes;
  -- What is not due yet was waited for since it failed, or is the watchdog's: no webhook.
  perform chunk_private.give_slots(job, next.chunk_indexes, next.ready_ats || later.ready_ats, '{}', now());
  return cardinality(next.chunk_indexes);
end
$$;
comment on function chunk_private.fill_slots is
  'Gives the free slots of a pending or running job to its next chunks; returns how many.';
