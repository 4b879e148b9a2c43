-- The names only: a function of core cannot open a connection. pg_net's do work.
do $$
begin
    raise warning 'http: only its names are here, calls end with an error (net.http_post and net.http_get do work)';
end
$$;

create domain http_method as text;
create type http_header as (field varchar, value varchar);
create type http_response as (status int, content_type varchar, headers http_header[], content varchar);
create type http_request as (
    method http_method, uri varchar, headers http_header[], content_type varchar, content varchar
);

create function http_header(field varchar, value varchar) returns http_header
language sql immutable
set search_path = @extschema@
as $$ select row($1, $2)::http_header $$;

create function http(request http_request) returns http_response
language sql
set search_path = @extschema@
as $$ select stand_ins.missing('http()', null::http_response) $$;

create function http_get(uri varchar, data jsonb default null) returns http_response
language sql
set search_path = @extschema@
as $$ select stand_ins.missing('http_get()', null::http_response) $$;

create function http_head(uri varchar) returns http_response
language sql
set search_path = @extschema@
as $$ select stand_ins.missing('http_head()', null::http_response) $$;

create function http_post(uri varchar, content varchar, content_type varchar) returns http_response
language sql
set search_path = @extschema@
as $$ select stand_ins.missing('http_post()', null::http_response) $$;

create function http_post(uri varchar, data jsonb) returns http_response
language sql
set search_path = @extschema@
as $$ select stand_ins.missing('http_post()', null::http_response) $$;

create function http_put(uri varchar, content varchar, content_type varchar) returns http_response
language sql
set search_path = @extschema@
as $$ select stand_ins.missing('http_put()', null::http_response) $$;

create function http_patch(uri varchar, content varchar, content_type varchar) returns http_response
language sql
set search_path = @extschema@
as $$ select stand_ins.missing('http_patch()', null::http_response) $$;

create function http_delete(uri varchar) returns http_response
language sql
set search_path = @extschema@
as $$ select stand_ins.missing('http_delete()', null::http_response) $$;

create function http_set_curlopt(curlopt varchar, value varchar) returns boolean
language sql
as $$ select stand_ins.missing('http_set_curlopt()', null::boolean) $$;

create function http_reset_curlopt() returns boolean
language sql return true;

create function urlencode(string varchar) returns text
language sql immutable strict
as $$ select replace(net._urlencode_string($1), '%20', '+') $$;
