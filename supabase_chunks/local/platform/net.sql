-- Stand-in for the extension pg_net: the same functions, tables and grants. The requests are sent by the supervisor
-- of the local stack (net_worker.py), as the original's background worker would.
create schema if not exists net;
alter schema net owner to supabase_admin;

do $$
begin
    if to_regtype('net.http_method') is null then
        create domain net.http_method as text
            constraint http_method_check check (lower(value) in ('get', 'post', 'delete'));
    end if;
end
$$;

-- Unlogged, like the original: what waits here is lost when the database crashes.
create unlogged table if not exists net.http_request_queue (
    id bigserial,
    method net.http_method not null,
    url text not null,
    headers jsonb,
    body bytea,
    timeout_milliseconds int not null
);

create unlogged table if not exists net._http_response (
    id bigint,
    status_code int,
    content_type text,
    headers jsonb,
    content text,
    timed_out boolean,
    error_msg text,
    created timestamptz not null default now()
);
create index if not exists _http_response_created_idx on net._http_response (created);

create or replace function net._urlencode_string(string varchar) returns text
language sql immutable
set search_path = ''
as $$
    select coalesce(string_agg(
        case
            when chr(get_byte(bytes.b, i)) ~ '^[A-Za-z0-9._~-]$' then chr(get_byte(bytes.b, i))
            else '%' || upper(lpad(to_hex(get_byte(bytes.b, i)), 2, '0'))
        end,
        '' order by i
    ), '')
    from (select convert_to($1, 'utf8') as b) bytes, generate_series(0, length(bytes.b) - 1) i
$$;

create or replace function net._encode_url_with_params_array(url text, params_array text[]) returns text
language plpgsql immutable
set search_path = ''
as $$
begin
    if url !~* '^https?://[^/?#[:space:]]+' then
        raise exception 'the URL % cannot be requested', quote_nullable(url);
    end if;
    if cardinality(params_array) = 0 then
        return url;
    end if;
    return url || case when strpos(url, '?') > 0 then '&' else '?' end || array_to_string(params_array, '&');
end
$$;

-- Heard by the worker once the transaction has committed, and not at all when it rolls back.
create or replace function net.wake() returns void
language sql
set search_path = ''
as $$ select pg_notify('net_wake', '') $$;

-- The worker begins anew, without waiting for what it is at.
create or replace function net.worker_restart() returns boolean
language sql
set search_path = ''
as $$ select pg_notify('net_restart', '') is not null $$;

create or replace function net._enqueue(
    method text, url text, params jsonb, headers jsonb, body jsonb, timeout_milliseconds int
) returns bigint
language plpgsql
set search_path = ''
as $$
declare
    request_id bigint;
begin
    insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
    values (
        _enqueue.method,
        net._encode_url_with_params_array(_enqueue.url, array(
            select net._urlencode_string(p.key) || '=' || net._urlencode_string(p.value)
            from jsonb_each_text(_enqueue.params) p
        )),
        _enqueue.headers,
        convert_to(_enqueue.body::text, 'utf8'),
        _enqueue.timeout_milliseconds
    )
    returning id into request_id;
    perform net.wake();
    return request_id;
end
$$;

create or replace function net.http_get(
    url text,
    params jsonb default '{}',
    headers jsonb default '{}',
    timeout_milliseconds int default 5000
) returns bigint
language sql
set search_path = ''
as $$ select net._enqueue('GET', $1, $2, $3, null, $4) $$;

create or replace function net.http_post(
    url text,
    body jsonb default '{}',
    params jsonb default '{}',
    headers jsonb default '{"Content-Type": "application/json"}',
    timeout_milliseconds int default 5000
) returns bigint
language plpgsql
set search_path = ''
as $$
declare
    content_type text := (
        select h.value from jsonb_each_text(coalesce(http_post.headers, '{}')) h
        where lower(h.key) = 'content-type' limit 1
    );
begin
    if content_type <> 'application/json' then
        raise exception 'the Content-Type of a request must be application/json, not %', content_type;
    end if;
    if content_type is null then
        headers := headers || '{"Content-Type": "application/json"}';
    end if;
    return net._enqueue('POST', url, params, headers, body, timeout_milliseconds);
end
$$;

create or replace function net.http_delete(
    url text,
    params jsonb default '{}',
    headers jsonb default '{}',
    timeout_milliseconds int default 5000,
    body jsonb default null
) returns bigint
language sql
set search_path = ''
as $$ select net._enqueue('DELETE', $1, $2, $3, $5, $4) $$;

-- As wide as the original's: its functions run with the rights of their caller.
grant usage on schema net to public;
grant all on all tables in schema net to public;
grant all on all sequences in schema net to public;
