"""What happens to a fresh or kept database at each start: platform, migrations, configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from supabase_chunks.local import migrations, platform

if TYPE_CHECKING:
    from pathlib import Path

    from supabase_chunks.local.keys import Keys


def prepare(dsn: str, *, keys: Keys, url: str, migrations_dir: Path | None) -> list[str]:
    """Make it a project's database, up to date and knowing where its functions are.

    Args:
        dsn: The database, as a superuser.
        keys: The project's keys and passwords.
        url: The gateway's address, another at each start unless its port is fixed.
        migrations_dir: The folder of migrations, or None.

    Returns:
        The versions of the migrations applied now.

    Raises:
        LocalStackError: A migration failed.
    """
    passwords = {"authenticator": keys.authenticator_password, "postgres": keys.database_password}
    platform.install(dsn, passwords=passwords)
    applied = migrations.apply(dsn, migrations_dir) if migrations_dir is not None else []
    _configure(dsn, url, keys.secret)
    return applied


def _configure(dsn: str, url: str, secret_key: str) -> None:
    """Tell the database where its functions are and with which key, if the migrations have a place for it."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "select to_regproc('public.configure_chunk_processing') is not null"
        ).fetchone()
        if row is not None and row[0]:
            connection.execute("set local role service_role")
            connection.execute("select public.configure_chunk_processing(%s, %s)", (url, secret_key))
