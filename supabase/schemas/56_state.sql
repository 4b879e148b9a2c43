-- State between jobs: what the next sync of the same thing (kind, owner, job_key) starts from.

create or replace function chunk_private.next_job_no()
returns bigint
language sql
security definer -- no role may use a sequence of ours
set search_path = pg_catalog, pg_temp
as $$ select nextval('chunk_private.job_numbers'); $$;
comment on function chunk_private.next_job_no is 'The next number in the order of jobs with a job_key, and of states saved by hand.';

create or replace function chunk_private.stage_state(job_id uuid, more jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  staged jsonb;
begin
  update public.sync_jobs j
  set next_state = coalesce(j.next_state, '{}') || more
  where j.id = job_id and j.job_key is not null
  returning j.next_state into staged;
  perform chunk_private.check_object('next_state', staged, 65536);
end
$$;
comment on function chunk_private.stage_state is
  'Merges into what a job leaves for the next one, key by key; SC004 when that is too large. A job without job_key leaves nothing.';

-- Within the transaction that completes the job, after its row.
create or replace function chunk_private.promote_state(job_id uuid)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into public.sync_states as s (kind, owner_id, job_key, state, job_no)
  select j.kind, j.owner_id, j.job_key, j.next_state, j.job_no from public.sync_jobs j where j.id = $1
  on conflict on constraint sync_states_one_per_key do update
  set state = excluded.state, job_no = excluded.job_no, updated_at = now()
  where s.job_no < excluded.job_no;
$$;
comment on function chunk_private.promote_state is 'Makes what a completed job leaves the state, unless a later job or call has left one.';

create or replace function public.get_sync_state(kind text, job_key text, owner_id uuid default null)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
  select s.state from public.sync_states s where s.kind = $1 and s.job_key = $2 and s.owner_id is not distinct from $3;
$$;
comment on function public.get_sync_state is 'What the last completed sync of that kind, key and owner has left, or null.';

create or replace function public.save_sync_state(kind text, job_key text, state jsonb, owner_id uuid default null)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
begin
  if not exists (select from public.sync_kinds k where k.kind = save_sync_state.kind) then
    raise exception using errcode = 'SC002', detail = 'kind', message = format('no sync kind is named %L', kind),
      hint = 'save_sync_kind() adds one.';
  elsif (length(job_key) between 1 and 500) is not true then
    raise exception using errcode = 'SC003', detail = 'job_key', message = 'job_key must be a text of 1 to 500 characters';
  end if;
  state := nullif(state, 'null');
  perform chunk_private.check_object('state', state, 65536);
  -- A state that is forgotten keeps its row, so that a job which is under way does not bring the old one back.
  insert into public.sync_states (kind, owner_id, job_key, state, job_no)
  values (save_sync_state.kind, save_sync_state.owner_id, save_sync_state.job_key, save_sync_state.state, chunk_private.next_job_no())
  on conflict on constraint sync_states_one_per_key do update
  set state = excluded.state, job_no = excluded.job_no, updated_at = now();
  return state;
end
$$;
comment on function public.save_sync_state is
  'Sets what the next sync of that kind, key and owner starts from; null forgets it. Jobs that are under way do not replace it when they complete.';
