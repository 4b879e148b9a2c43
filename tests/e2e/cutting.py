"""A TCP proxy that cuts a connection when certain bytes come through: a server that falls over a message."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"


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
        with client, socket.create_connection((HOST, self.target)) as server:
            for end in (client, server):
                # Else a command in two pieces waits for an acknowledgement that the other side delays.
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            upward = threading.Thread(target=self._pump, args=(client, server, None), daemon=True)
            upward.start()
            self._pump(server, client, self.marker)
            upward.join(5)

    def _pump(self, source: socket.socket, sink: socket.socket, marker: bytes | None) -> None:
        tail = b""
        try:
            while data := source.recv(65536):
                if marker is not None and marker in tail + data and self._may_cut():
                    break
                tail = data[-100:]
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

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

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=proxy.serve, args=(client,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield proxy
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
