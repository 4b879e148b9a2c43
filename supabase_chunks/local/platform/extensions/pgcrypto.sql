-- Digests, HMAC and random bytes as in the original. Passwords are hashed in a form of their own, which says so in its
-- first letters. There are no ciphers in core: those functions answer with an error.
create function digest(data bytea, type text) returns bytea
language sql immutable strict parallel safe
as $$ select stand_ins.digest($1, $2) $$;

create function digest(data text, type text) returns bytea
language sql immutable strict parallel safe
as $$ select stand_ins.digest(convert_to($1, 'utf8'), $2) $$;

create function hmac(data bytea, key bytea, type text) returns bytea
language sql immutable strict parallel safe
as $$ select stand_ins.hmac($1, $2, $3) $$;

create function hmac(data text, key text, type text) returns bytea
language sql immutable strict parallel safe
as $$ select stand_ins.hmac(convert_to($1, 'utf8'), convert_to($2, 'utf8'), $3) $$;

create function gen_random_bytes(count int) returns bytea
language plpgsql volatile strict
as $$
begin
    if count not between 1 and 1024 then
        raise exception 'Length not in range' using errcode = 'external_routine_invocation_exception';
    end if;
    return stand_ins.random_bytes(count);
end
$$;

create function gen_random_uuid() returns uuid
language sql volatile
as $$ select pg_catalog.gen_random_uuid() $$;

create function gen_salt(type text) returns text
language plpgsql volatile strict
as $$
begin
    if type not in ('bf', 'md5', 'des', 'xdes') then
        raise exception 'gen_salt: Unknown salt algorithm' using errcode = 'invalid_parameter_value';
    end if;
    return '$stand-in$' || encode(stand_ins.random_bytes(16), 'hex');
end
$$;

create function gen_salt(type text, rounds int) returns text
language sql volatile strict
set search_path = @extschema@
as $$ select gen_salt($1) $$;

create function crypt(password text, salt text) returns text
language plpgsql immutable strict parallel safe
as $$
declare
    own text := substring(salt from '^\$stand-in\$[0-9a-f]{32}');
    hash bytea := convert_to(password, 'utf8');
begin
    if own is null then
        perform stand_ins.missing('crypt() for hashes that pgcrypto made', null::text);
    end if;
    for round in 1 .. 1000 loop
        hash := sha256(hash || convert_to(own, 'utf8'));
    end loop;
    return own || '$' || encode(hash, 'hex');
end
$$;

create function encrypt(data bytea, key bytea, type text) returns bytea
language sql as $$ select stand_ins.missing('encrypt()', null::bytea) $$;
create function decrypt(data bytea, key bytea, type text) returns bytea
language sql as $$ select stand_ins.missing('decrypt()', null::bytea) $$;
create function encrypt_iv(data bytea, key bytea, iv bytea, type text) returns bytea
language sql as $$ select stand_ins.missing('encrypt_iv()', null::bytea) $$;
create function decrypt_iv(data bytea, key bytea, iv bytea, type text) returns bytea
language sql as $$ select stand_ins.missing('decrypt_iv()', null::bytea) $$;
create function pgp_sym_encrypt(data text, psw text, options text default '') returns bytea
language sql as $$ select stand_ins.missing('pgp_sym_encrypt()', null::bytea) $$;
create function pgp_sym_encrypt_bytea(data bytea, psw text, options text default '') returns bytea
language sql as $$ select stand_ins.missing('pgp_sym_encrypt_bytea()', null::bytea) $$;
create function pgp_sym_decrypt(msg bytea, psw text, options text default '') returns text
language sql as $$ select stand_ins.missing('pgp_sym_decrypt()', null::text) $$;
create function pgp_sym_decrypt_bytea(msg bytea, psw text, options text default '') returns bytea
language sql as $$ select stand_ins.missing('pgp_sym_decrypt_bytea()', null::bytea) $$;
create function pgp_pub_encrypt(data text, key bytea, options text default '') returns bytea
language sql as $$ select stand_ins.missing('pgp_pub_encrypt()', null::bytea) $$;
create function pgp_pub_decrypt(msg bytea, key bytea, psw text default '') returns text
language sql as $$ select stand_ins.missing('pgp_pub_decrypt()', null::text) $$;
