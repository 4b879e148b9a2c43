create extension if not exists moddatetime schema extensions;
create table notes (id int primary key, updated_at timestamptz not null default '2000-01-01');
create trigger handle_updated_at before update on notes
  for each row execute procedure moddatetime (updated_at);
