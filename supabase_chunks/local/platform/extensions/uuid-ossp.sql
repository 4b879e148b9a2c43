-- Every function of the original.
create function uuid_nil() returns uuid
language sql immutable parallel safe return '00000000-0000-0000-0000-000000000000'::uuid;
create function uuid_ns_dns() returns uuid
language sql immutable parallel safe return '6ba7b810-9dad-11d1-80b4-00c04fd430c8'::uuid;
create function uuid_ns_url() returns uuid
language sql immutable parallel safe return '6ba7b811-9dad-11d1-80b4-00c04fd430c8'::uuid;
create function uuid_ns_oid() returns uuid
language sql immutable parallel safe return '6ba7b812-9dad-11d1-80b4-00c04fd430c8'::uuid;
create function uuid_ns_x500() returns uuid
language sql immutable parallel safe return '6ba7b814-9dad-11d1-80b4-00c04fd430c8'::uuid;

create function uuid_generate_v4() returns uuid
language sql volatile parallel safe return gen_random_uuid();

-- Ticks of 100 ns since 1582-10-15, and a random node (RFC 4122, 4.5) instead of the machine's address.
create function uuid_generate_v1mc() returns uuid
language plpgsql volatile
as $$
declare
    ticks text := lpad(
        to_hex((extract(epoch from clock_timestamp()) * 10000000)::bigint + 122192928000000000), 16, '0'
    );
    node bytea := stand_ins.random_bytes(8);
begin
    node := set_byte(node, 0, get_byte(node, 0) & 63 | 128);
    node := set_byte(node, 2, get_byte(node, 2) | 3);
    return (substr(ticks, 9, 8) || substr(ticks, 5, 4) || '1' || substr(ticks, 2, 3) || encode(node, 'hex'))::uuid;
end
$$;

create function uuid_generate_v1() returns uuid
language sql volatile
set search_path = @extschema@
as $$ select uuid_generate_v1mc() $$;

create function uuid_generate_v3(namespace uuid, name text) returns uuid
language plpgsql immutable strict parallel safe
as $$
declare
    hash bytea := decode(md5(uuid_send(namespace) || convert_to(name, 'utf8')), 'hex');
begin
    hash := set_byte(hash, 6, get_byte(hash, 6) & 15 | 48);
    return encode(set_byte(hash, 8, get_byte(hash, 8) & 63 | 128), 'hex')::uuid;
end
$$;

create function uuid_generate_v5(namespace uuid, name text) returns uuid
language plpgsql immutable strict parallel safe
as $$
declare
    hash bytea := substr(stand_ins.sha1(uuid_send(namespace) || convert_to(name, 'utf8')), 1, 16);
begin
    hash := set_byte(hash, 6, get_byte(hash, 6) & 15 | 80);
    return encode(set_byte(hash, 8, get_byte(hash, 8) & 63 | 128), 'hex')::uuid;
end
$$;
