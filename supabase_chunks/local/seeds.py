"""Runs a project's seed files the way the supabase CLI does."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from supabase_chunks.local.migrations import as_owner
from supabase_chunks.local.script import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


def run(
    dsn: str,
    files: Mapping[str, Path],
    *,
    role: str = "postgres",
    note: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Run the seed files that this database has not had, each in one transaction with the note of its run.

    A file that has changed since is not run again, since its rows are there: the note says so.

    Args:
        dsn: The database, as a superuser.
        files: The files by the names that the database knows them under, in the order to run them.
        role: Whom they run as.
        note: Called with a line for what was passed over.

    Returns:
        The names of the files run now.

    Raises:
        LocalStackError: A statement failed; the message names file and line, the cause is PostgreSQL's error.
    """
    done: list[str] = []
    with as_owner(dsn, role) as connection:
        connection.execute(
            """
            create schema if not exists supabase_migrations;
            create table if not exists supabase_migrations.seed_files (
                path text not null primary key,
                hash text not null
            )
            """
        )
        known = dict(connection.execute("select path, hash from supabase_migrations.seed_files").fetchall())
        for name, path in files.items():
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            if known.get(name) == digest:
                continue
            connection.execute("reset all")
            with connection.transaction():
                if name in known:
                    note(f"{name} has changed and is not run again: delete the data folder to start anew.")
                else:
                    Script(name, content.decode("utf-8-sig"), role=role, note=note).run(connection)
                    done.append(name)
                connection.execute(
                    "insert into supabase_migrations.seed_files (path, hash) values (%s, %s)"
                    " on conflict (path) do update set hash = excluded.hash",
                    (name, digest),
                )
    return done
