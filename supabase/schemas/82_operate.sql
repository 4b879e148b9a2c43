-- Kinds and configuration.

create or replace function chunk_private.version()
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$ select '0.1.0'; $$;
comment on function chunk_private.version is 'The release of supabase-chunks whose migrations are installed.';

create or replace function public.save_sync_kind(
  kind text, handler text default null, max_concurrency int default null, max_retries int default null, lease_seconds int default null,
  retry_delay_seconds int default null, user_startable boolean default null, limit_by text default null, limit_each int default null
)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
declare
  saved public.sync_kinds;
begin
  if kind is null or kind !~ '^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$' then
    raise exception using errcode = 'SC003', detail = 'kind',
      message = 'kind must be 1 to 100 letters, digits or _ . : -, beginning with a letter or digit';
  end if;
  if handler !~ '^[A-Za-z0-9_-]{0,100}$' then
    raise exception using errcode = 'SC003', detail = 'handler',
      message = 'handler must be the name of an Edge Function (letters, digits, _ and -), empty for Python workers, or null';
  end if;
  if length(limit_by) > 100 then
    raise exception using errcode = 'SC003', detail = 'limit_by',
      message = 'limit_by must be owner_id or the name of a field of the payload, of at most 100 characters, empty for none, or null';
  end if;
  perform chunk_private.check_range('limit_each', limit_each, 0, 10000);
  perform chunk_private.check_range('max_concurrency', max_concurrency, 1, 1000);
  perform chunk_private.check_range('max_retries', max_retries, 0, 100);
  perform chunk_private.check_range('lease_seconds', lease_seconds, 1, 86400);
  perform chunk_private.check_range('retry_delay_seconds', retry_delay_seconds, 0, 86400);
  insert into public.sync_kinds as k
    (kind, handler, max_concurrency, max_retries, lease_seconds, retry_delay_seconds, user_startable, limit_by, limit_each)
  values (kind, nullif(handler, ''), coalesce(max_concurrency, 1), coalesce(max_retries, 3), coalesce(lease_seconds, 600),
    coalesce(retry_delay_seconds, 10), coalesce(user_startable, false), nullif(limit_by, ''), nullif(limit_each, 0))
  on conflict on constraint sync_kinds_pkey do update
  set handler = nullif(coalesce(save_sync_kind.handler, k.handler), ''),
      max_concurrency = coalesce(save_sync_kind.max_concurrency, k.max_concurrency),
      max_retries = coalesce(save_sync_kind.max_retries, k.max_retries),
      lease_seconds = coalesce(save_sync_kind.lease_seconds, k.lease_seconds),
      retry_delay_seconds = coalesce(save_sync_kind.retry_delay_seconds, k.retry_delay_seconds),
      user_startable = coalesce(save_sync_kind.user_startable, k.user_startable),
      limit_by = nullif(coalesce(save_sync_kind.limit_by, k.limit_by), ''),
      limit_each = nullif(coalesce(save_sync_kind.limit_each, k.limit_each), 0),
      updated_at = now()
  returning k.* into saved;
  return to_jsonb(saved);
end
$$;
comment on function public.save_sync_kind is
  'Adds a kind of sync, or changes one: what is null stays as it is, and is for a new kind no handler, 1, 3, 600, 10 and false. An empty handler is none. limit_by (owner_id, or a field of the payload; empty: none) makes jobs share limits, limit_each (0: none) says how many of their chunks may be processing at once. Jobs that run already keep their max_concurrency and max_retries.';

create or replace function public.remove_sync_kind(kind text)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_variable
begin
  delete from public.sync_kinds k where k.kind = kind;
  return found;
exception when foreign_key_violation then
  raise exception using errcode = 'SC005', message = format('the kind %L has jobs: it cannot be removed', kind),
    hint = 'Cancel those that run, and purge_sync_jobs() when they are no longer wanted.';
end
$$;
comment on function public.remove_sync_kind is 'Removes a kind of sync that has no jobs; says whether there was one. SC005 while jobs of it exist.';

create or replace function chunk_private.save_secret(name text, secret text, description text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  secret_id uuid;
begin
  select s.id into secret_id from vault.secrets s where s.name = name;
  if secret_id is null then
    perform vault.create_secret(secret, name, description);
  else
    perform vault.update_secret(secret_id, secret, name, description);
  end if;
end
$$;
comment on function chunk_private.save_secret is 'Writes a Vault entry by name. For use in definer functions: the Vault is the owner''s.';

create or replace function chunk_private.configure_chunk_processing(project_url text, processor_key text)
returns jsonb
language plpgsql
security definer -- writes the Vault
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  perform chunk_private.check_isolation('configure_chunk_processing');
  if project_url is null or project_url !~ '^https?://[^/?#@[:space:]]+/?$' then
    raise exception using errcode = 'SC003', detail = 'project_url',
      message = 'project_url must be the base URL of the project as the database reaches it, such as https://abc.supabase.co';
  end if;
  if processor_key is null or length(processor_key) < 8 or processor_key ~ '[[:space:]]|://' or processor_key like 'sb\_publishable\_%' then
    raise exception using errcode = 'SC003', detail = 'processor_key',
      message = 'processor_key must be a secret key (sb_secret_…) or the legacy service_role key';
  end if;
  if to_regproc('vault.create_secret') is null then
    raise exception using errcode = 'SC006', message = 'the extension supabase_vault is not installed',
      hint = 'create extension supabase_vault with schema vault cascade;';
  end if;
  perform chunk_private.save_secret('project_url', rtrim(project_url, '/'), 'supabase-chunks: where the Edge Functions are');
  perform chunk_private.save_secret('chunk_processor_key', processor_key, 'supabase-chunks: the key that webhooks carry');
  perform chunk_private.schedule_watchdog();
  -- What waited for this goes on now. What is under way has the address and the key of before.
  perform chunk_private.dispatch_waiting(null, false, 0);
  return public.chunk_system_health();
end
$$;
comment on function chunk_private.configure_chunk_processing is 'The body of configure_chunk_processing.';

create or replace function public.configure_chunk_processing(project_url text, processor_key text)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
set default_transaction_isolation = 'read committed'
as $$ select chunk_private.configure_chunk_processing($1, $2); $$;
comment on function public.configure_chunk_processing is
  'Writes into the Vault where webhooks go (the project''s URL as the database reaches it) and which key they carry; schedules the watchdog. Returns chunk_system_health(), never the key.';
