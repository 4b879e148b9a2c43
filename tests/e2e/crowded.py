"""An API that many ask at once, and that remembers how many were in it together, and when each came."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class CrowdedApi:
    """`GET /`: answers after `seconds`. `GET /cancelled` is by who may not have heard yet that its job was cancelled.

    Attributes:
        seconds: How long a request takes.
        port: Where it listens.
        arrivals: When each request came, of `time.monotonic`.
        inside: How many are being answered, but of those.
        most_inside: The most at once so far.
    """

    seconds: float
    port: int = 0
    arrivals: list[float] = field(default_factory=list)
    inside: int = 0
    most_inside: int = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}/"

    def most_within(self, seconds: float) -> int:
        """The most requests in any window of that length."""
        moments = sorted(self.arrivals)
        return max(sum(start <= at < start + seconds for at in moments) for start in moments)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer what comes on one connection."""
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                counts = int(not request.startswith(b"GET /cancelled "))
                self.arrivals.append(time.monotonic())
                self.inside += counts
                self.most_inside = max(self.most_inside, self.inside)
                await asyncio.sleep(self.seconds)
                self.inside -= counts
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@contextmanager
def crowded_api(seconds: float) -> Iterator[CrowdedApi]:
    """The API, while it runs."""
    api = CrowdedApi(seconds)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(api.serve, "127.0.0.1", 0))
    api.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield api
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    server.close()
    loop.close()
