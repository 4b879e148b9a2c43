insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)
values ('avatars', 'avatars', true, 1048576, array['image/png']);

create policy "Avatars are seen by all." on storage.objects for select using (bucket_id = 'avatars');
create policy "Avatars go into a folder of one's own." on storage.objects for insert to authenticated
  with check (
    bucket_id = 'avatars' and (storage.foldername(name))[1] = (select auth.uid()::text)
    and storage.extension(name) = 'png'
  );
drop policy if exists "Old" on storage.objects;

create table uploads (path text primary key);
create function note_upload() returns trigger language plpgsql security definer as $$
begin
  insert into uploads values (new.name);
  return new;
end
$$;
create trigger on_upload after insert on storage.objects for each row execute function note_upload();
