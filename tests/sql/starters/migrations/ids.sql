create extension if not exists "uuid-ossp";
create extension if not exists pgcrypto with schema extensions;
create table keys (
  id uuid primary key default uuid_generate_v4(),
  other uuid not null default extensions.uuid_generate_v4(),
  token text not null default encode(gen_random_bytes(16), 'hex'),
  hash text,
  signature text
);
insert into keys (hash, signature)
values (crypt('secret', gen_salt('bf')), encode(hmac('body', 'key', 'sha1'), 'hex'));
