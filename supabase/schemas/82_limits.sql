-- What the service does with limits: set them, block a key, ask for the pace. And what the watchdog does.

create or replace function chunk_private.check_limit_key(key text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if (length(key) between 1 and 500) is not true then
    raise exception using errcode = 'SC003', detail = 'key', message = 'key must be a text of 1 to 500 characters';
  end if;
end
$$;
comment on function chunk_private.check_limit_key is 'Raises SC003 for what cannot be a limit key.';

create or replace function chunk_private.lock_limit_or_refuse(limit_key text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform chunk_private.check_limit_key(limit_key);
  if not chunk_private.wait_for_limit(limit_key) then
    raise exception using errcode = 'SC005', message = format('the limit key %L is held by a transaction that somebody has left open', limit_key),
      hint = 'Find it in pg_stat_activity, and try again when it has ended.';
  end if;
end
$$;
comment on function chunk_private.lock_limit_or_refuse is 'Locks a limit key; SC003 for what cannot be one, SC005 when somebody has it for long.';

-- A job has at most as many slots as may be processing of its key: those that run get more when there are more. Gates are only tried for;
-- whoever is alone in one waits for nobody in fill_slots.
create or replace function public.save_sync_limit(key text, max_concurrency int default null, rate int default null, per_seconds int default 1)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
begin
  perform chunk_private.check_isolation('save_sync_limit');
  perform chunk_private.check_range('max_concurrency', max_concurrency, 1, 10000);
  perform chunk_private.check_range('rate', rate, 1, 1000000);
  perform chunk_private.check_range('per_seconds', coalesce(per_seconds, 0), 1, 86400);
  perform chunk_private.lock_limit_or_refuse(key);
  if num_nonnulls(max_concurrency, rate) = 0 then
    delete from public.sync_limits l where l.key = key and (l.blocked_until > now()) is not true;
  end if;
  insert into public.sync_limits as l (key, max_concurrency, rate, per_seconds)
  select key, max_concurrency, rate, per_seconds
  where num_nonnulls(max_concurrency, rate) > 0 or exists (select from public.sync_limits o where o.key = key)
  on conflict on constraint sync_limits_pkey do update
  set max_concurrency = excluded.max_concurrency, rate = excluded.rate, per_seconds = excluded.per_seconds, updated_at = now();
  perform chunk_private.fill_slots(j.id)
  from (
    select o.id from public.sync_jobs o
    where o.limit_key = key and o.status in ('pending', 'running') order by o.id limit 500
  ) j
  where chunk_private.try_alone(j.id);
  perform chunk_private.settle_limit(key);
  return public.list_sync_limits(key) -> 0;
end
$$;
comment on function public.save_sync_limit is
  'Sets what jobs with a limit_key share: at most max_concurrency chunks processing at once, at most rate requests within per_seconds; null is no such limit, and both null remove the key. Returns it as list_sync_limits does.';

create or replace function public.block_sync_limit(key text, seconds int, reason text default null)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
begin
  perform chunk_private.check_isolation('block_sync_limit');
  perform chunk_private.check_range('seconds', coalesce(seconds, -1), 0, 604800);
  perform chunk_private.lock_limit_or_refuse(key);
  perform chunk_private.block_limit(key, case when seconds > 0 then now() + make_interval(secs => seconds) end, left(reason, 1000));
  perform chunk_private.settle_limit(key);
  return public.list_sync_limits(key) -> 0;
end
$$;
comment on function public.block_sync_limit is
  'Hands out no chunk of a limit key for so many seconds (a week at most); 0 ends a block. Chunks that are processing go on. Returns the key as list_sync_limits does.';

-- One timestamp a key: until when the requests so far have used up the rate. n requests at once go when the room for all of them
-- is there (n - 1 intervals late), and use it up afterwards: so no window of per_seconds, wherever it begins, has more than rate.
create or replace function public.pace_sync_limit(key text, n int default 1)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  rules record;
  spacing interval;
  free_at timestamptz;
begin
  perform chunk_private.check_limit_key(key);
  select l.rate, l.blocked_until, make_interval(secs => ceil(1e6 * l.per_seconds / l.rate) / 1e6) as spacing into rules
  from public.sync_limits l where l.key = key;
  perform chunk_private.check_range('n', coalesce(n, 0), 1, coalesce(rules.rate, 1000000));
  if rules.rate is not null then
    spacing := rules.spacing;
    insert into chunk_private.limit_paces as p (limit_key, free_at) values (key, greatest(clock_timestamp(), rules.blocked_until) + n * spacing)
    on conflict on constraint limit_paces_pkey do update
    set free_at = greatest(clock_timestamp(), p.free_at + (n - 1) * spacing, rules.blocked_until) + n * spacing
    returning p.free_at into free_at;
  end if;
  return ceil(greatest(0, 1000 * extract(epoch from greatest(free_at - n * spacing, rules.blocked_until) - clock_timestamp())))::int;
end
$$;
comment on function public.pace_sync_limit is
  'Asks for room for n requests at once (at most rate): how many milliseconds to wait before making them. Exact for all who ask. 0 when the key has no rate and is not blocked.';

-- Only tries: it has gates of other jobs. What somebody has now, they settle, or a later pass does.
create or replace function chunk_private.settle_waiting()
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  until constant timestamptz := clock_timestamp() + interval '5 seconds';
  limit_key text := '';
  settled int := 0;
begin
  loop
    limit_key := (
      select s.limit_key from chunk_private.slots s
      where s.limit_key > limit_key and not s.claimed and s.parked order by s.limit_key limit 1
    );
    exit when limit_key is null or settled >= 1000 or clock_timestamp() > until;
    if exists (select from chunk_private.slots_to_wake(limit_key)) and chunk_private.try_limit(limit_key) then
      perform chunk_private.settle_limit(limit_key);
      settled := settled + 1;
    end if;
  end loop;
  delete from chunk_private.limit_seekers k
  where k.asked_at < now() - interval '1 hour' and chunk_private.try_limit(k.limit_key);
  return settled;
end
$$;
comment on function chunk_private.settle_waiting is
  'Settles the limit keys of which too few slots are awake: after a job was deleted, a limit changed, a lock was held for too long. Returns how many.';
