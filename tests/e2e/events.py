"""An API of events, a page each, for handlers that walk from cursor to cursor; it remembers who asked for what."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ASKED = re.compile(rb"^GET /events\?after=(\d+) ")


@dataclass
class EventsApi:
    """`GET /events?after=5`: the event 6 and the cursor after it.

    Attributes:
        total: How many events there are.
        port: Where it listens.
        asked: The cursors that were asked for, in order.
        before: What to call before the page after a cursor is answered, once.
    """

    total: int = 0
    port: int = 0
    asked: list[int] = field(default_factory=list)
    before: dict[int, Callable[[], None]] = field(default_factory=dict)

    def answer(self, cursor: int) -> dict[str, object]:
        """Answer one request."""
        self.asked.append(cursor)
        if act := self.before.pop(cursor, None):
            act()
        ids = [cursor + 1] if cursor < self.total else []
        after = cursor + len(ids)
        return {"events": [{"id": id_} for id_ in ids], "cursor": str(after), "more": after < self.total}

    def repeated(self) -> list[int]:
        """The cursors that were asked for more than once."""
        return sorted(cursor for cursor, times in Counter(self.asked).items() if times > 1)


# Of http.server a request costs ten times as much, and there are ten thousand.
class _Connection(asyncio.Protocol):
    def __init__(self, api: EventsApi) -> None:
        self._api = api
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._received.endswith(b"\r\n\r\n"):
            return
        asked = _ASKED.match(self._received)
        self._received = b""
        assert asked
        assert isinstance(self._transport, asyncio.WriteTransport)
        body = json.dumps(self._api.answer(int(asked[1]))).encode()
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


@contextmanager
def events_api() -> Iterator[EventsApi]:
    """The API, while it runs."""
    api = EventsApi()
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: _Connection(api), "127.0.0.1", 0))
    api.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield api
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    server.close()
    loop.close()
