"""Sends what `net.http_post` and its like put into the queue, as pg_net's background worker would."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from supabase_chunks.local.reconnect import with_connection

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

_BATCH_SIZE = 200
_POLL_SECONDS = 1.0
_KEPT = "6 hours"
_TAKE = """
delete from net.http_request_queue
where id in (select id from net.http_request_queue order by id limit %s)
returning id, method::text, url, headers, body, timeout_milliseconds
"""
_STORE = """
insert into net._http_response (id, status_code, content_type, headers, content, timed_out, error_msg)
values (%s, %s, %s, %s, %s, %s, %s)
"""
_FORGET = f"delete from net._http_response where created < now() - interval '{_KEPT}'"  # noqa: S608 - a constant


@dataclass(frozen=True)
class _Outcome:
    id: int
    status_code: int | None = None
    content_type: str | None = None
    headers: dict[str, str] | None = None
    content: str | None = None
    timed_out: bool | None = None
    error: str | None = None

    def row(self) -> tuple[Any, ...]:
        headers = json.dumps(self.headers) if self.headers is not None else None
        # PostgreSQL's text cannot hold a zero byte.
        content = self.content.replace("\0", "") if self.content is not None else None
        return (self.id, self.status_code, self.content_type, headers, content, self.timed_out, self.error)


class NetWorker:
    """The sender of webhooks.

    Like the original it takes a batch, sends all of it at once, waits for the slowest answer, and only then
    looks at the queue again. Unlike it, it need not sleep after a batch.
    """

    def __init__(self, dsn: str, *, pace: float = 0.0, drop: float = 0.0, say: Callable[[str], None]) -> None:
        """Make it.

        Args:
            dsn: The database, as a superuser.
            pace: Seconds to sleep after each batch; the original sleeps one.
            drop: The fraction of requests to lose silently, for tests: they are taken and never sent.
            say: Where a line of the log goes.
        """
        self.pace = pace
        self.drop = drop
        self._dsn = dsn
        self._say = say

    async def run(self) -> None:
        """Send until cancelled."""
        # A connection a request, so that one kept open to a function that was restarted cannot fail the next.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

            async def work(connection: psycopg.AsyncConnection) -> None:
                await self._work(connection, session)

            await with_connection(self._dsn, work, name="net worker", say=self._say)

    async def _work(self, connection: psycopg.AsyncConnection, session: aiohttp.ClientSession) -> None:
        await connection.execute("listen net_wake")
        await connection.execute("listen net_restart")
        forgotten_at = 0.0
        while True:
            if time.monotonic() - forgotten_at > 60:
                await connection.execute(_FORGET)
                forgotten_at = time.monotonic()
            while await self._batch(connection, session):
                await _rest(connection, self.pace)
            async for _ in connection.notifies(timeout=_POLL_SECONDS, stop_after=1):
                pass

    async def _batch(self, connection: psycopg.AsyncConnection, session: aiohttp.ClientSession) -> bool:
        """Send one batch; False when there was nothing to send."""
        cursor = await connection.execute(_TAKE, (_BATCH_SIZE,))
        rows = sorted(await cursor.fetchall())
        if not rows:
            return False
        kept = [row for row in rows if random.random() >= self.drop]  # noqa: S311 - a test's dice
        if len(kept) < len(rows):
            self._say(f"net worker: lost {len(rows) - len(kept)} webhooks on purpose")
        outcomes = await asyncio.gather(*(_send(session, *row) for row in kept))
        if outcomes:
            await connection.cursor().executemany(_STORE, [outcome.row() for outcome in outcomes])
        return True


async def _rest(connection: psycopg.AsyncConnection, seconds: float) -> None:
    """Sleep; `net.worker_restart()` ends it."""
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        async for notification in connection.notifies(timeout=left, stop_after=1):
            if notification.channel == "net_restart":
                return


async def _send(
    session: aiohttp.ClientSession,
    request_id: int,
    method: str,
    url: str,
    headers: dict[str, Any] | None,
    body: bytes | None,
    timeout_milliseconds: int,
) -> _Outcome:
    started = time.monotonic()
    try:
        async with session.request(
            method.upper(),
            url,
            headers={name: str(value) for name, value in (headers or {}).items()},
            data=body,
            timeout=aiohttp.ClientTimeout(total=timeout_milliseconds / 1000),
        ) as response:
            return _Outcome(
                request_id,
                status_code=response.status,
                content_type=response.headers.get("Content-Type"),
                headers=dict(response.headers),
                content=(await response.read()).decode(errors="replace"),
                timed_out=False,
            )
    except TimeoutError:
        spent = (time.monotonic() - started) * 1000
        words = f"Timeout of {timeout_milliseconds} ms reached. Total time: {spent:.1f} ms"
        return _Outcome(request_id, timed_out=True, error=words)
    except aiohttp.ClientConnectorDNSError:
        return _Outcome(request_id, timed_out=False, error="Couldn't resolve host name")
    except aiohttp.ClientConnectorError:
        return _Outcome(request_id, timed_out=False, error="Couldn't connect to server")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return _Outcome(request_id, timed_out=False, error=str(error) or type(error).__name__)
