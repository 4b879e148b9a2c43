"""A TCP proxy that cuts a connection when certain bytes come through: a server that falls over a message."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.e2e.tcp import HOST, accepting, pump, reach

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class CuttingProxy:
    """A running proxy.

    Attributes:
        port: Where it listens.
        target: The port it passes on to.
        marker: Bytes from the server at which it cuts.
        cuts: How often it did.
        cuts_left: How often it still will.
    """

    port: int
    target: int
    marker: bytes
    cuts_left: int
    cuts: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def serve(self, client: socket.socket) -> None:
        """Pass one connection on, until either side or the marker ends it."""
        with client, reach(client, self.target) as server:
            upward = threading.Thread(target=pump, args=(client, server), daemon=True)
            upward.start()
            tail = b""

            def allow(data: bytes) -> bool:
                nonlocal tail
                is_marked = self.marker in tail + data
                tail = data[-100:]
                return not (is_marked and self._may_cut())

            pump(server, client, allow)
            upward.join(5)

    def _may_cut(self) -> bool:
        with self._lock:
            if self.cuts_left == 0:
                return False
            self.cuts_left -= 1
            self.cuts += 1
            return True


@contextmanager
def cutting(target: int, marker: bytes, *, cuts: int = 1000) -> Iterator[CuttingProxy]:
    """A proxy to a port that cuts at most so many times."""
    with socket.create_server((HOST, 0)) as listener:
        proxy = CuttingProxy(listener.getsockname()[1], target, marker, cuts)
        with accepting(listener, proxy.serve):
            yield proxy
