-- Webhooks for chunks that wait: which, and how many at once.

-- Under way is a webhook until somebody has claimed its chunk, or pg_net has got an answer, or could have: it gives up after
-- ten seconds. Those that pg_net has not even sent by then count too, for more would only lengthen its queue.
create or replace function chunk_private.webhooks_under_way()
returns int
language plpgsql -- these two keep their plans; as SQL they would be planned in each pass
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select count(*)::int + greatest(0, (select u.webhooks from chunk_private.unsent_webhooks() u where u.oldest_at < now() - interval '12 seconds'))
    from chunk_private.dispatches d
    join public.chunk_processing_queue q on q.id = d.chunk_id
    join chunk_private.slots s on s.job_id = q.parent_sync_job_id and s.chunk_index = q.chunk_index
    where d.created_at > now() - interval '12 seconds' and d.answered_at is null and d.request_id is not null and not s.claimed
  );
end
$$;
comment on function chunk_private.webhooks_under_way is 'How many webhooks may still lead to a claim, or wait in a pg_net that does not send.';

-- Each webhook that led to no claim doubles the wait for the next: 30 s, 1 min, 2 min … about an hour. One that is known to
-- have failed is sent again sooner: at once, then after 5 s, 15 s, 35 s … 5 min, and as soon as another has gone well, for
-- then what stood in the way is gone. A claim says so before pg_net has the answer.
create or replace function chunk_private.waiting_slots(parent_sync_job_id uuid, overdue_only boolean)
returns setof chunk_private.slots
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  return query
  with well as (
    select greatest(
      (select d.created_at from chunk_private.dispatches d
        where d.answered_at is not null and d.error is null
        order by d.created_at desc limit 1),
      (select max(c.dispatched_at) from chunk_private.slots c
        where c.claimed and c.dispatched_at is not null
          and not exists (select from chunk_private.dispatches d where d.created_at = c.dispatched_at and d.error is not null))
    ) as sent_at
  )
  select s.* from chunk_private.slots s
  join chunk_private.lanes l on l.id = s.lane
  join public.sync_kinds k on k.kind = l.kind
  where not s.claimed and not s.parked and s.ready_at <= now() and k.handler is not null and (parent_sync_job_id is null or s.job_id = parent_sync_job_id)
    and (not overdue_only or s.dispatched_at is null
      or s.dispatched_at < now() - interval '28 seconds' * 2 ^ least(greatest(s.dispatch_count - 1, 0), 7)
      or s.dispatched_at < greatest((select w.sent_at from well w), now() - interval '5 seconds' * (2 ^ least(s.dispatch_count - 1, 6) - 1))
        and exists (
          select from public.chunk_processing_queue q
          join chunk_private.dispatches d on d.created_at = s.dispatched_at and d.chunk_id = q.id
          where q.parent_sync_job_id = s.job_id and q.chunk_index = s.chunk_index and d.error is not null
        ));
end
$$;
comment on function chunk_private.waiting_slots is
  'The slots of claimable chunks that Edge Functions work on, of a job or of all; or only those whose last webhook has led to nothing.';

-- Sends webhooks for chunks that wait to be claimed, as long as fewer than 32 are under way. Breadth first: a job gets a
-- second one when every other has one, or somebody at work; each invocation goes on to whatever waits. The first ones say
-- when more are held back, and the invocations that they lead to call for them (cleanup_stuck_chunks).
create or replace function chunk_private.dispatch_waiting(parent_sync_job_id uuid, overdue_only boolean, under_way int default null)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  budget int;
  page record;
  sent int := 0;
begin
  -- One at a time, or each would send as many. Nothing waits after it.
  if overdue_only then
    if not pg_try_advisory_xact_lock(hashtextextended('supabase-chunks: webhooks', 3)) then
      return 0;
    end if;
  else
    perform pg_advisory_xact_lock(hashtextextended('supabase-chunks: webhooks', 3));
  end if;
  budget := 32 - coalesce(under_way, chunk_private.webhooks_under_way());
  if budget <= 0 then
    return 0;
  end if;
  for page in
    with candidates as materialized (
      select w.job_id, w.chunk_index, w.dispatched_at,
        row_number() over (order by l.priority desc, w.place, w.ready_at, w.chunk_index) as turn
      from (
        select s.job_id, s.chunk_index, s.lane, s.ready_at, s.dispatched_at,
          coalesce(busy.slots, 0) + row_number() over (partition by s.job_id order by s.ready_at, s.chunk_index) as place
        from chunk_private.waiting_slots(parent_sync_job_id, overdue_only) s
        left join (
          select o.job_id, count(*) as slots from chunk_private.slots o
          where o.claimed or o.dispatched_at > now() - interval '12 seconds'
          group by o.job_id
        ) busy on busy.job_id = s.job_id
      ) w
      join chunk_private.lanes l on l.id = w.lane
      order by turn limit budget + 1
    ),
    held as (
      select s.job_id, s.chunk_index from candidates c
      join chunk_private.slots s on s.job_id = c.job_id and s.chunk_index = c.chunk_index
      where c.turn <= budget and not s.claimed and s.dispatched_at is not distinct from c.dispatched_at
      for no key update of s skip locked
    ),
    marked as (
      update chunk_private.slots s
      set dispatched_at = now(), dispatch_count = s.dispatch_count + 1
      from held h
      where s.job_id = h.job_id and s.chunk_index = h.chunk_index
      returning s.job_id, s.chunk_index
    )
    select j as job, array_agg(m.chunk_index order by m.chunk_index) as chunk_indexes,
      row_number() over () <= 4 and (select count(*) > budget from candidates) as more
    from marked m
    join public.sync_jobs j on j.id = m.job_id
    group by j.id
  loop
    sent := sent + chunk_private.dispatch(page.job, page.chunk_indexes, page.more);
  end loop;
  return sent;
end
$$;
comment on function chunk_private.dispatch_waiting is
  'Sends webhooks for claimable chunks, or only for those whose last webhook has led to nothing; returns how many. under_way: how many count as such, when the caller knows better.';

create or replace function public.trigger_next_chunk_processing(parent_sync_job_id uuid default null)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
begin
  perform chunk_private.check_isolation('trigger_next_chunk_processing');
  if parent_sync_job_id is not null and not exists (select from public.sync_jobs j where j.id = parent_sync_job_id) then
    raise exception using errcode = 'SC001', message = format('there is no sync job %s', parent_sync_job_id);
  end if;
  -- By hand, those count that wait in pg_net: of the others the caller thinks that they are lost.
  return chunk_private.dispatch_waiting(parent_sync_job_id, false, (select u.webhooks from chunk_private.unsent_webhooks() u));
end
$$;
comment on function public.trigger_next_chunk_processing is
  'Sends webhooks now for the chunks of a job, or of all, that wait to be claimed; returns how many were sent.';
