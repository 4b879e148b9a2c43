"""Applies migration files the way the supabase CLI does."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from supabase_chunks.local.script import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FILE_NAME = re.compile(r"^(?P<version>\d+)_(?P<name>.*)\.sql$")


def apply(
    dsn: str,
    directory: Path | str,
    *,
    role: str = "postgres",
    note: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Apply the migrations that this database does not have yet, in the order of their versions.

    Each file is one transaction together with its row in `supabase_migrations.schema_migrations`. It runs as
    the owner of a project, who is no superuser, with that role's settings (its search_path above all).

    Args:
        dsn: The database, as a superuser.
        directory: The folder with `<version>_<name>.sql` files; other files are left alone, as the CLI does.
        role: Whom the migrations run as.
        note: Called with a line for what this machine cannot do and what was passed over for it.

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
    with as_owner(dsn, role) as connection:
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
                text = path.read_text(encoding="utf-8-sig")
                script = Script(f"Migration {path.name}", text, role=role, note=note)
                # What the file before has set, a dumped one its search_path, is gone.
                connection.execute("reset all")
                with connection.transaction():
                    script.run(connection)
                    connection.execute(
                        "insert into supabase_migrations.schema_migrations (version, name, statements)"
                        " values (%s, %s, %s)",
                        (version, name, [statement.text for statement in script.statements]),
                    )
                applied.append(version)
    return applied


@contextmanager
def as_owner(dsn: str, role: str) -> Iterator[psycopg.Connection]:
    """A session of the project's owner, as if by login; one at a time in a database.

    Args:
        dsn: The database, as a superuser.
        role: The owner.
    """
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute(
            "select unnest(setconfig) from pg_db_role_setting where setrole = %s::regrole and setdatabase in"
            " (0, (select oid from pg_database where datname = current_database())) order by setdatabase",
            (role,),
        ).fetchall()
    # Given at the start, they are what `reset all` goes back to.
    settings = " ".join(f"-c {_escaped(row[0])}" for row in rows)
    with psycopg.connect(dsn, autocommit=True, options=settings) as connection:
        connection.execute("select pg_advisory_lock(hashtext('supabase_chunks.local.migrations'))")
        connection.execute(sql.SQL("set session authorization {}").format(sql.Identifier(role)))
        yield connection


def _escaped(setting: str) -> str:
    return re.sub(r"([\\ ])", r"\\\1", setting)
