"""What happens to a fresh or kept database at each start: platform, migrations, seeds, configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from supabase_chunks.local import migrations, platform, seeds

if TYPE_CHECKING:
    from collections.abc import Callable

    from supabase_chunks.local.keys import Keys
    from supabase_chunks.local.project import ApiConfig
    from supabase_chunks.local.sources import Sources

_AUTO_EXPOSE = """
alter default privileges for role postgres in schema public
    grant all on tables to anon, authenticated, service_role;
alter default privileges for role postgres in schema public
    grant all on sequences to anon, authenticated, service_role;
alter default privileges for role postgres in schema public
    grant all on functions to anon, authenticated, service_role;
"""


def prepare(dsn: str, sources: Sources, *, keys: Keys, url: str, note: Callable[[str], None]) -> list[str]:
    """Make it a project's database, up to date and knowing where its functions are.

    Args:
        dsn: The database, as a superuser.
        sources: What is to be in it.
        keys: The project's keys and passwords.
        url: The gateway's address, another at each start unless its port is fixed.
        note: Called with a line for what this machine cannot do and what was passed over for it.

    Returns:
        What was run now, a line each.

    Raises:
        LocalStackError: A migration or a seed failed.
    """
    passwords = {"authenticator": keys.authenticator_password, "postgres": keys.database_password}
    platform.install(dsn, passwords=passwords)
    if sources.api.auto_expose_new_tables:
        with psycopg.connect(dsn) as connection:
            connection.execute(_AUTO_EXPOSE)
    done: list[str] = []
    if sources.migrations is not None:
        versions = migrations.apply(dsn, sources.migrations, note=note)
        done += [f"applied migration {version}" for version in versions]
    done += [f"ran {name}" for name in seeds.run(dsn, sources.seeds, note=note)]
    if not _configure(dsn, url, keys.secret) and sources.is_project:
        note("This project has no syncs yet: `supabase-chunks init` adds them.")
    return done


def exposed(dsn: str, api: ApiConfig, note: Callable[[str], None]) -> list[str]:
    """The schemas of `api.schemas` that exist; PostgREST would not start with another.

    Args:
        dsn: The database, as a superuser.
        api: How tables are exposed.
        note: Called with a line for a schema that does not exist.
    """
    with psycopg.connect(dsn) as connection:
        there = {row[0] for row in connection.execute("select nspname from pg_namespace").fetchall()}
    for schema in api.schemas:
        if schema not in there:
            note(f"config.toml, api.schemas: there is no schema {schema} after the migrations.")
    return [schema for schema in api.schemas if schema in there] or ["public"]


def _configure(dsn: str, url: str, secret_key: str) -> bool:
    """Tell the database where its functions are and with which key; False if it has no place for that."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "select to_regproc('public.configure_chunk_processing') is not null"
        ).fetchone()
        if row is None or not row[0]:
            return False
        connection.execute("set local role service_role")
        connection.execute("select public.configure_chunk_processing(%s, %s)", (url, secret_key))
        return True
