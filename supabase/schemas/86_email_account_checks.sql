-- Checks of what save_email_account gets.

create or replace function chunk_private.check_email_port(owner_id uuid, port int)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  allowed constant int[] := (select s.user_email_ports from chunk_private.settings s);
begin
  if owner_id is not null and port <> all (allowed) then
    raise exception using errcode = 'SC003', detail = 'port',
      message = format('port of a user''s email account must be one of %s (user_email_ports), not %s', array_to_string(allowed, ', '), port);
  end if;
end
$$;
comment on function chunk_private.check_email_port is
  'Raises SC003 for a port that a user''s account may not name: what else listens there is none of the user''s business.';

create or replace function chunk_private.check_email_account(
  name text, host text, username text, port int, tls text, auth text, password text, oauth jsonb
)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(length(name), 0) not between 1 and 100 then
    raise exception using errcode = 'SC003', detail = 'name', message = 'name must be a text of 1 to 100 characters';
  elsif host is null or host !~ '^([A-Za-z0-9._-]{1,253}|[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{0,40})$' then
    raise exception using errcode = 'SC003', detail = 'host', message = 'host must be a host name or an IP address, without a port';
  elsif coalesce(length(username), 0) not between 1 and 320 or username ~ '[\x01-\x1f\x7f]' then
    raise exception using errcode = 'SC003', detail = 'username', message = 'username must be one line of 1 to 320 characters';
  elsif tls is null or tls not in ('implicit', 'starttls', 'none') then
    raise exception using errcode = 'SC003', detail = 'tls', message = 'tls must be implicit, starttls or none';
  elsif port is null then
    raise exception using errcode = 'SC003', detail = 'port', message = 'port must be a number, not null';
  elsif auth is null or auth not in ('password', 'xoauth2') then
    raise exception using errcode = 'SC003', detail = 'auth', message = 'auth must be password or xoauth2';
  elsif auth = 'password' and oauth is not null then
    raise exception using errcode = 'SC003', detail = 'oauth', message = 'oauth goes with auth xoauth2 only';
  elsif auth = 'xoauth2' and password is not null then
    raise exception using errcode = 'SC003', detail = 'password', message = 'password goes with auth password only';
  elsif length(password) not between 1 and 4000 or password ~ '[\r\n]' then
    raise exception using errcode = 'SC003', detail = 'password', message = 'password must be one line of 1 to 4000 characters';
  end if;
  perform chunk_private.check_range('port', port, 1, 65535);
end
$$;
comment on function chunk_private.check_email_account is 'Raises SC003, naming the argument of save_email_account that makes no sense.';

create or replace function chunk_private.email_oauth_secret(oauth jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  provider constant text := oauth ->> 'provider';
  unknown text;
begin
  if jsonb_typeof(oauth) is distinct from 'object' or provider is null or provider not in ('google', 'microsoft', 'custom') then
    raise exception using errcode = 'SC003', detail = 'oauth',
      message = 'oauth must be {provider, client_id, refresh_token} with provider google, microsoft or custom';
  end if;
  select k.key into unknown from jsonb_object_keys(oauth) k(key)
  where k.key not in ('provider', 'client_id', 'refresh_token', 'token_url', 'scope')
  limit 1;
  if unknown is not null then
    raise exception using errcode = 'SC003', detail = 'oauth', message = format('oauth has no field %s', left(unknown, 100));
  elsif coalesce(oauth ->> 'client_id', '') !~ '^[\x21-\x7e]+$' or length(oauth ->> 'client_id') > 500 then
    raise exception using errcode = 'SC003', detail = 'oauth', message = 'oauth.client_id must be a text of 1 to 500 characters';
  elsif coalesce(oauth ->> 'refresh_token', '') !~ '^[\x21-\x7e]+$' or length(oauth ->> 'refresh_token') > 4000 then
    raise exception using errcode = 'SC003', detail = 'oauth', message = 'oauth.refresh_token must be a text of 1 to 4000 characters';
  elsif oauth ->> 'scope' !~ '^[\x20-\x7e]+$' or length(oauth ->> 'scope') > 1000 then
    raise exception using errcode = 'SC003', detail = 'oauth', message = 'oauth.scope must be a text of 1 to 1000 characters';
  end if;
  -- Where refresh tokens and client secrets are sent to is not for users to say.
  if provider = 'custom' then
    if not chunk_private.is_service() then
      raise exception using errcode = 'SC003', detail = 'oauth', message = 'the provider custom is for the service only';
    elsif coalesce(oauth ->> 'token_url', '') !~ '^(https://|http://(127\.0\.0\.1|localhost)[:/])[\x21-\x7e]+$' then
      raise exception using errcode = 'SC003', detail = 'oauth', message = 'oauth.token_url must be an https URL for the provider custom';
    end if;
  elsif oauth ? 'token_url' then
    raise exception using errcode = 'SC003', detail = 'oauth', message = 'oauth.token_url is for the provider custom only';
  end if;
  return oauth;
end
$$;
comment on function chunk_private.email_oauth_secret is 'Checks what save_email_account gets as oauth, and returns what the Vault keeps.';
