-- Stand-in for the extension supabase_vault: the same names, arguments and grants. Nothing is encrypted here, which
-- would be wrong anywhere but on a developer's own machine; `secret` holds the text in base64 so that nobody takes it
-- for readable and nobody's test passes because it read the wrong column.
create schema if not exists vault;
alter schema vault owner to supabase_admin;

create table if not exists vault.secrets (
    id uuid not null default gen_random_uuid(),
    name text,
    description text not null default '',
    secret text not null,
    key_id uuid,
    nonce bytea default uuid_send(gen_random_uuid()),
    created_at timestamptz not null default current_timestamp,
    updated_at timestamptz not null default current_timestamp,
    constraint secrets_pkey primary key (id)
);
create unique index if not exists secrets_name_idx on vault.secrets (name) where name is not null;

create or replace view vault.decrypted_secrets as
select
    s.id,
    s.name,
    s.description,
    s.secret,
    convert_from(decode(s.secret, 'base64'), 'utf8') as decrypted_secret,
    s.key_id,
    s.nonce,
    s.created_at,
    s.updated_at
from vault.secrets s;

-- Definer, as in the original: who may store a secret may not therefore write the table.
create or replace function vault.create_secret(
    new_secret text,
    new_name text default null,
    new_description text default '',
    new_key_id uuid default null
) returns uuid
language sql security definer
set search_path = ''
as $$
    insert into vault.secrets (secret, name, description, key_id)
    values (encode(convert_to($1, 'utf8'), 'base64'), $2, $3, $4)
    returning id
$$;

create or replace function vault.update_secret(
    secret_id uuid,
    new_secret text default null,
    new_name text default null,
    new_description text default null,
    new_key_id uuid default null
) returns void
language sql security definer
set search_path = ''
as $$
    update vault.secrets
    set secret = coalesce(encode(convert_to($2, 'utf8'), 'base64'), secret),
        name = coalesce($3, name),
        description = coalesce($4, description),
        key_id = coalesce($5, key_id),
        updated_at = now()
    where id = $1
$$;

revoke all on function vault.create_secret, vault.update_secret from public;
grant usage on schema vault to postgres with grant option;
grant select, delete, truncate, references on vault.secrets, vault.decrypted_secrets to postgres with grant option;
grant execute on function vault.create_secret, vault.update_secret to postgres with grant option;
grant usage on schema vault to service_role;
grant select, delete on vault.secrets, vault.decrypted_secrets to service_role;
grant execute on function vault.create_secret, vault.update_secret to service_role;
