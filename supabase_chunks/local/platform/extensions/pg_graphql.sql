-- The name only.
do $$
begin
    raise warning 'pg_graphql: only its name is here, GraphQL requests are answered with an error';
end
$$;
