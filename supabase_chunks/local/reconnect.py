"""Keeping a job on the database going while the database comes and goes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 1.0


async def with_connection(
    dsn: str,
    work: Callable[[psycopg.AsyncConnection], Awaitable[None]],
    *,
    name: str,
    say: Callable[[str], None],
) -> None:
    """Run `work` on a connection for ever: whenever the connection is lost, on a new one, until cancelled.

    Args:
        dsn: The database, as a superuser.
        work: What to do; returning ends nothing, it is called again.
        name: Shown in pg_stat_activity and in the log.
        say: Where a line about a lost connection goes.
    """
    pause = _PAUSE_SECONDS
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                dsn, autocommit=True, application_name=name, connect_timeout=5
            ) as connection:
                pause = _PAUSE_SECONDS
                await work(connection)
        except psycopg.Error as error:
            say(f"{name}: {' '.join(str(error).split())[:200]}; connecting again")
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
