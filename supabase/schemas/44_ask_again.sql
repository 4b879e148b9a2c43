-- What an empty claim says beside its answer: when to ask again, if chunks wait for a place of their limit key.
--
-- Nobody is told when a place is free, and who polls would have to ask often at all times, or be late. So the claim that has found
-- nothing, and can know, says so; in a header, since its answer is a list of chunks.

create or replace function chunk_private.say_when_to_ask_again(kinds text[], job_id uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  lanes bigint[];
  milliseconds int;
begin
  -- Where no job has a limit key, it ends here.
  if not exists (select from chunk_private.slots s where s.limit_key is not null) then
    return;
  end if;
  if job_id is not null then
    select greatest(50, ceil(1000 * extract(epoch from l.blocked_until - now()))) into milliseconds
    from public.sync_jobs j
    left join public.sync_limits l on l.key = j.limit_key
    where j.id = job_id and j.kind = any (kinds)
      and exists (select from chunk_private.slots s where s.job_id = job_id and s.parked);
  else
    lanes := array(select l.id from chunk_private.lanes l where l.kind = any (kinds));
    -- Steps from key to key through the index: as many as a fleet would wait for.
    with recursive keys (key, place) as (
      (select s.limit_key, 1 from chunk_private.slots s where s.limit_key is not null order by s.limit_key limit 1)
      union all
      select n.limit_key, k.place + 1 from keys k
      cross join lateral (select s.limit_key from chunk_private.slots s where s.limit_key > k.key order by s.limit_key limit 1) n
      where k.place < 200
    ),
    waiting (opens_at) as (
      select case when l.blocked_until > now() then l.blocked_until end
      from keys k
      left join public.sync_limits l on l.key = k.key
      where exists (
        select from chunk_private.slots s where s.limit_key = k.key and not s.claimed and s.parked and s.lane = any (lanes)
      )
    )
    select coalesce(
      (select 50 from waiting w where w.opens_at is null limit 1), -- reads no further
      (select greatest(50, ceil(1000 * extract(epoch from min(w.opens_at) - now()))) from waiting w having min(w.opens_at) is not null)
    ) into milliseconds;
  end if;
  if milliseconds is not null then
    perform set_config('response.headers', (
      coalesce(nullif(current_setting('response.headers', true), '')::jsonb, '[]') || jsonb_build_object('Chunks-Ask-Again-Ms', milliseconds::text)
    )::text, true);
  end if;
end
$$;
comment on function chunk_private.say_when_to_ask_again is
  'Sets the API''s header Chunks-Ask-Again-Ms when chunks of these kinds, or of one job of them, wait for a place of their limit key: 50, or until the end of the key''s block.';
