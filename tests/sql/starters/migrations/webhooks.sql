create extension if not exists pg_cron with schema pg_catalog;
create extension if not exists "pg_net" with schema extensions;
grant usage on schema cron to postgres;
grant all privileges on all tables in schema cron to postgres;

create table orders (id int primary key);
create function tell_shop() returns trigger language plpgsql as $$
begin
  perform net.http_post(url := 'http://127.0.0.1:9/hook', body := to_jsonb(new));
  return new;
end
$$;
create trigger tell_shop after insert on orders for each row execute function tell_shop();

select vault.create_secret('http://127.0.0.1:9', 'shop_url');
select cron.schedule('nightly', '0 3 * * *', $$
  select net.http_get((select decrypted_secret from vault.decrypted_secrets where name = 'shop_url'));
$$);
select cron.alter_job((select jobid from cron.job where jobname = 'nightly'), active := false);
