-- The name only.
do $$
begin
    raise warning 'pgsodium: only its name is here, none of its functions (the functions of the schema vault do work)';
end
$$;
