-- The stand-in itself is built in (net.sql, one folder up), so this is the name.
do $$
begin
    if to_regproc('net.http_get') is null then
        raise exception 'pg_net is not part of this database' using errcode = 'feature_not_supported';
    end if;
end
$$;
