"""A TCP proxy that hears which commands a mail client sends, and turns connections away while it is told to."""

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
class ListeningProxy:
    """A running proxy.

    Attributes:
        port: Where it listens.
        target: The port it passes on to.
        commands: The lines of all clients, without their tags.
        turning_away: What it greets with instead of passing on; empty: it passes on.
        turned_away: How often it did.
    """

    port: int
    target: int
    commands: list[str] = field(default_factory=list)
    turning_away: str = ""
    turned_away: int = 0

    def serve(self, client: socket.socket) -> None:
        """Pass one connection on, until either side ends it."""
        with client:
            if self.turning_away:
                self.turned_away += 1
                client.sendall(f"* BYE {self.turning_away}\r\n".encode())
                client.recv(1)
                return
            with socket.create_connection((HOST, self.target)) as server:
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                down = threading.Thread(target=_pump, args=(server, client), daemon=True)
                down.start()
                self._hear(client, server)
                down.join(5)

    def _hear(self, client: socket.socket, server: socket.socket) -> None:
        unfinished = b""
        try:
            while data := client.recv(65536):
                *lines, unfinished = (unfinished + data).split(b"\r\n")
                self.commands += [line.decode("latin1").partition(" ")[2] for line in lines]
                server.sendall(data)
        except OSError:
            pass
        _end(client, server)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    _end(source, sink)


def _end(*ends: socket.socket) -> None:
    for end in ends:
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue


@contextmanager
def listening(target: int) -> Iterator[ListeningProxy]:
    """A proxy to a port."""
    with socket.create_server((HOST, 0)) as listener:
        proxy = ListeningProxy(listener.getsockname()[1], target)

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
