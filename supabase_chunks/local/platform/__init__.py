"""What a new hosted Supabase project has before any migration, for any PostgreSQL (15 and newer).

Roles with their limits; the schemas `auth`, `storage`, `realtime`, `extensions`, `vault`, `net` and `cron`;
and no default privileges in `public`. Each topic is an SQL file beside this one, each stand-in for an
extension one in `extensions/`.
"""

from __future__ import annotations

from pathlib import Path

import psycopg
from psycopg import sql

_HERE = Path(__file__).parent
_EVENT_TRIGGER_SWITCH = 170000


def install(
    superuser_dsn: str,
    *,
    with_net: bool = True,
    with_cron: bool = True,
    with_vault: bool = True,
    passwords: dict[str, str] | None = None,
) -> None:
    """Make a database look like a new project; again changes nothing.

    The roles belong to the cluster, the rest to the database of the connection. A clone of that database
    needs `create database … template … owner postgres`, since an owner is not copied.

    Args:
        superuser_dsn: The database, as a superuser.
        with_net: Add the stand-in for pg_net.
        with_cron: Add pg_cron: the real extension where this server has it loaded for this database, else the
            stand-in.
        with_vault: Add the stand-in for Vault.
        passwords: Login passwords by role, for `authenticator` and `postgres`.

    Raises:
        psycopg.Error: The server refused something, for instance because the user is no superuser.
    """
    with psycopg.connect(superuser_dsn) as connection:
        # Two installs at a time on one cluster would meet on the roles ("tuple concurrently updated").
        connection.execute("select pg_advisory_xact_lock(hashtext('supabase_chunks.local.platform'))")
        if connection.info.server_version >= _EVENT_TRIGGER_SWITCH:
            # A trigger of the project's own must not hear, as the superuser, of what is made here.
            connection.execute("set local event_triggers = off")
        _run(connection, "roles", "stand_ins", "schemas", "auth", "storage", "realtime", "graphql")
        if with_vault:
            _run(connection, "vault")
        if with_net:
            _run(connection, "net")
        if with_cron:
            if _has_real_cron(connection):
                connection.execute("create extension if not exists pg_cron")
            else:
                _run(connection, "cron")
            _run(connection, "cron_grants")
        for role, password in (passwords or {}).items():
            connection.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(role), password))


def _run(connection: psycopg.Connection, *topics: str) -> None:
    for topic in topics:
        connection.execute((_HERE / f"{topic}.sql").read_bytes())


def _has_real_cron(connection: psycopg.Connection) -> bool:
    row = connection.execute(
        "select coalesce(current_setting('cron.database_name', true) = current_database(), false)"
    ).fetchone()
    return row is not None and bool(row[0])
