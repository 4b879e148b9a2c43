"""How long a request may take as a whole.

httpx's own timeout is one of each read, so a server that drips its answer would never exceed it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Bounded(httpx.SyncByteStream):
    """The body of an answer, until a moment of the monotonic clock."""

    def __init__(self, body: httpx.SyncByteStream, deadline: float) -> None:
        self._body = body
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        for part in self._body:
            if time.monotonic() > self._deadline:
                raise httpx.ReadTimeout("the answer had begun, and did not end in time")
            yield part

    def close(self) -> None:
        self._body.close()


def request(
    client: httpx.Client, method: str, url: str, seconds: float | None, *, auth: Any = None, **options: Any
) -> httpx.Response:
    """Do a request and read its whole answer within so many seconds; None leaves it to the client.

    Raises:
        httpx.TimeoutException: It took longer. A body that drips is noticed when its next part comes.
    """
    if seconds is None:
        return client.request(method, url, auth=auth, **options)
    deadline = time.monotonic() + seconds
    response = client.send(client.build_request(method, url, **options), auth=auth, stream=True)
    try:
        if isinstance(response.stream, httpx.SyncByteStream):
            response.stream = _Bounded(response.stream, deadline)
        response.read()
    finally:
        response.close()
    return response


async def request_async(
    client: httpx.AsyncClient, method: str, url: str, seconds: float | None, **options: Any
) -> httpx.Response:
    """Do a request and read its whole answer within so many seconds; None leaves it to the client.

    Raises:
        httpx.TimeoutException: It took longer.
    """
    try:
        async with asyncio.timeout(seconds):
            return await client.request(method, url, **options)
    except TimeoutError:
        raise httpx.ReadTimeout("the answer did not end in time") from None
