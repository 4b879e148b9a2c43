-- Every function of the original.
create function url_encode(data bytea) returns text
language sql immutable
as $$ select rtrim(translate(encode($1, 'base64'), E'+/\n', '-_'), '=') $$;

create function url_decode(data text) returns bytea
language sql immutable
as $$ select decode(rpad(translate($1, '-_', '+/'), (length($1) + 3) / 4 * 4, '='), 'base64') $$;

create function algorithm_sign(signables text, secret text, algorithm text) returns text
language sql immutable
set search_path = @extschema@
as $$
    select url_encode(stand_ins.hmac(
        convert_to($1, 'utf8'),
        convert_to($2, 'utf8'),
        case $3 when 'HS256' then 'sha256' when 'HS384' then 'sha384' when 'HS512' then 'sha512' else '' end
    ))
$$;

create function sign(payload json, secret text, algorithm text default 'HS256') returns text
language sql immutable
set search_path = @extschema@
as $$
    select unsigned.text || '.' || algorithm_sign(unsigned.text, $2, $3)
    from (
        select url_encode(convert_to(json_build_object('alg', $3, 'typ', 'JWT')::text, 'utf8')) || '.'
            || url_encode(convert_to($1::text, 'utf8')) as text
    ) unsigned
$$;

create function verify(token text, secret text, algorithm text default 'HS256')
returns table (header json, payload json, valid boolean)
language sql stable
set search_path = @extschema@
as $$
    select
        decoded.header,
        decoded.payload,
        split_part($1, '.', 3) = algorithm_sign(split_part($1, '.', 1) || '.' || split_part($1, '.', 2), $2, $3)
            and extract(epoch from current_timestamp) < coalesce((decoded.payload ->> 'exp')::numeric, 'infinity')
            and extract(epoch from current_timestamp) >= coalesce((decoded.payload ->> 'nbf')::numeric, 0)
    from (
        select
            convert_from(url_decode(split_part($1, '.', 1)), 'utf8')::json as header,
            convert_from(url_decode(split_part($1, '.', 2)), 'utf8')::json as payload
    ) decoded
$$;
