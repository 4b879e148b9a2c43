"""What TCP proxies of the tests have in common: a port that is listened on, and bytes that are passed on."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOST = "127.0.0.1"


@contextmanager
def accepting(listener: socket.socket, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Serve each connection that comes in a thread of its own."""

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def reach(client: socket.socket, target: int) -> socket.socket:
    """Connect to the port that a client is to be passed on to."""
    server = socket.create_connection((HOST, target))
    for end in (client, server):
        # Else a command in two pieces waits for an acknowledgement that the other side delays.
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return server


def pump(
    source: socket.socket, sink: socket.socket, allow: Callable[[bytes], bool] = lambda _data: True
) -> None:
    """Pass bytes on until either side ends it, or they are not allowed; then end both."""
    try:
        while (data := source.recv(65536)) and allow(data):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue
