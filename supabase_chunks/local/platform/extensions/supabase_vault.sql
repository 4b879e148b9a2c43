-- The stand-in itself is built in (vault.sql, one folder up), so this is the name.
do $$
begin
    if to_regproc('vault.create_secret') is null then
        raise exception 'supabase_vault is not part of this database' using errcode = 'feature_not_supported';
    end if;
end
$$;
