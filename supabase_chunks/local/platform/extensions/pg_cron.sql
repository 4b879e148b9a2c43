-- The stand-in itself is built in (cron.sql, one folder up), so this is the name.
do $$
begin
    if to_regclass('cron.job') is null then
        raise exception 'pg_cron is not part of this database' using errcode = 'feature_not_supported';
    end if;
end
$$;
