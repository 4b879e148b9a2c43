"""Applies migration files the way the supabase CLI does."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
from psycopg import sql

from supabase_chunks.errors import LocalStackError

_FILE_NAME = re.compile(r"^(?P<version>\d+)_(?P<name>.*)\.sql$")


def apply(dsn: str, directory: Path | str, *, role: str = "postgres") -> list[str]:
    """Apply the migrations that this database does not have yet, in the order of their versions.

    Each file is one transaction together with its row in `supabase_migrations.schema_migrations`; it runs as
    the owner of a project, who is no superuser, and with an empty search_path, so that a name without its
    schema shows.

    Args:
        dsn: The database, as a superuser.
        directory: The folder with `<version>_<name>.sql` files; other files are left alone, as the CLI does.
        role: Whom the migrations run as.

    Returns:
        The versions applied now.

    Raises:
        LocalStackError: A migration failed; the message names file and line, the cause is PostgreSQL's error.
    """
    files = {
        match["version"]: (match["name"], path)
        for path in sorted(Path(directory).glob("*.sql"))
        if (match := _FILE_NAME.match(path.name))
    }
    applied: list[str] = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(hashtext('supabase_chunks.local.migrations'))")
        connection.execute(sql.SQL("set session authorization {}").format(sql.Identifier(role)))
        connection.execute(
            """
            create schema if not exists supabase_migrations;
            create table if not exists supabase_migrations.schema_migrations (
                version text not null primary key,
                statements text[],
                name text
            )
            """
        )
        rows = connection.execute("select version from supabase_migrations.schema_migrations").fetchall()
        known = {str(row[0]) for row in rows}
        for version, (name, path) in sorted(files.items()):
            if version not in known:
                _apply_file(connection, version, name, path)
                applied.append(version)
    return applied


def _apply_file(connection: psycopg.Connection, version: str, name: str, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    try:
        with connection.transaction():
            connection.execute("set local search_path = ''")
            connection.execute(text.encode())
            # The CLI keeps the statements one by one; only people read them, and one piece reads the same.
            connection.execute(
                "insert into supabase_migrations.schema_migrations (version, name, statements)"
                " values (%s, %s, %s)",
                (version, name, [text]),
            )
    except psycopg.Error as error:
        position = error.diag.statement_position
        line = f", line {text.count(chr(10), 0, int(position) - 1) + 1}" if position else ""
        reason = error.diag.message_primary or str(error)
        raise LocalStackError(f"Migration {path.name}{line} failed: {reason}") from error
