"""The embedded local stack: PostgreSQL, PostgREST, Deno and a gateway, without Docker."""
