-- What the stand-ins for missing extensions are built on (extensions/, beside this file), by core functions only.
create schema if not exists stand_ins;
alter schema stand_ins owner to supabase_admin;
grant usage on schema stand_ins to public;

-- For a function whose name is all that is here; the second argument only says what its caller returns.
create or replace function stand_ins.missing(what text, result anyelement) returns anyelement
language plpgsql
set search_path = ''
as $$
begin
    raise exception using
        errcode = 'feature_not_supported',
        message = what || ' is missing in the local stack',
        hint = 'It works in a hosted project; docs/local.md of supabase-chunks lists what stands in here.';
end
$$;

-- FIPS 180-4, section 6.1: the one digest of pgcrypto that core lacks, and version 5 of UUIDs needs it.
create or replace function stand_ins.sha1(data bytea) returns bytea
language plpgsql immutable strict parallel safe
set search_path = ''
as $$
declare
    low constant bigint := 4294967295;
    padded bytea := data || '\x80'::bytea || decode(repeat('00', (119 - length(data) % 64) % 64), 'hex')
        || int8send(length(data)::bigint * 8);
    h bigint[] := array[1732584193, 4023233417, 2562383102, 271733878, 3285377520];
    w bigint[];
    a bigint;
    b bigint;
    c bigint;
    d bigint;
    e bigint;
    f bigint;
    k bigint;
    x bigint;
begin
    for block in 0 .. length(padded) / 64 - 1 loop
        for t in 0 .. 15 loop
            w[t] := ('x' || encode(substr(padded, block * 64 + t * 4 + 1, 4), 'hex'))::bit(32)::bigint & low;
        end loop;
        for t in 16 .. 79 loop
            x := w[t - 3] # w[t - 8] # w[t - 14] # w[t - 16];
            w[t] := ((x << 1) | (x >> 31)) & low;
        end loop;
        a := h[1];
        b := h[2];
        c := h[3];
        d := h[4];
        e := h[5];
        for t in 0 .. 79 loop
            case t / 20
                when 0 then
                    f := (b & c) | ((~b & low) & d);
                    k := 1518500249;
                when 1 then
                    f := b # c # d;
                    k := 1859775393;
                when 2 then
                    f := (b & c) | (b & d) | (c & d);
                    k := 2400959708;
                else
                    f := b # c # d;
                    k := 3395469782;
            end case;
            x := ((((a << 5) | (a >> 27)) & low) + f + e + k + w[t]) & low;
            e := d;
            d := c;
            c := ((b << 30) | (b >> 2)) & low;
            b := a;
            a := x;
        end loop;
        h := array[(h[1] + a) & low, (h[2] + b) & low, (h[3] + c) & low, (h[4] + d) & low, (h[5] + e) & low];
    end loop;
    return decode(
        lpad(to_hex(h[1]), 8, '0') || lpad(to_hex(h[2]), 8, '0') || lpad(to_hex(h[3]), 8, '0')
            || lpad(to_hex(h[4]), 8, '0') || lpad(to_hex(h[5]), 8, '0'),
        'hex'
    );
end
$$;

create or replace function stand_ins.digest(data bytea, algorithm text) returns bytea
language plpgsql immutable strict parallel safe
set search_path = ''
as $$
begin
    case lower(algorithm)
        when 'md5' then return decode(md5(data), 'hex');
        when 'sha1' then return stand_ins.sha1(data);
        when 'sha224' then return sha224(data);
        when 'sha256' then return sha256(data);
        when 'sha384' then return sha384(data);
        when 'sha512' then return sha512(data);
        else
            raise exception 'Cannot use "%": No such hash algorithm', algorithm
                using errcode = 'invalid_parameter_value';
    end case;
end
$$;

-- RFC 2104.
create or replace function stand_ins.hmac(data bytea, key bytea, algorithm text) returns bytea
language plpgsql immutable strict parallel safe
set search_path = ''
as $$
declare
    block int := case when lower(algorithm) in ('sha384', 'sha512') then 128 else 64 end;
    short_key bytea := case when length(key) > block then stand_ins.digest(key, algorithm) else key end;
    inner_key bytea := decode(repeat('36', block), 'hex');
    outer_key bytea := decode(repeat('5c', block), 'hex');
begin
    for i in 0 .. length(short_key) - 1 loop
        inner_key := set_byte(inner_key, i, get_byte(inner_key, i) # get_byte(short_key, i));
        outer_key := set_byte(outer_key, i, get_byte(outer_key, i) # get_byte(short_key, i));
    end loop;
    return stand_ins.digest(outer_key || stand_ins.digest(inner_key || data, algorithm), algorithm);
end
$$;

-- Core's only source of strong random bytes makes UUIDs, in which six bits are fixed: two of them hashed have enough.
create or replace function stand_ins.random_bytes(count int) returns bytea
language sql volatile strict
set search_path = ''
as $$
    select substr(
        coalesce(string_agg(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), ''::bytea), ''::bytea),
        1,
        $1
    )
    from generate_series(1, ($1 + 31) / 32)
$$;
