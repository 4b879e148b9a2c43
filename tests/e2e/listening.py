"""A TCP proxy that hears which commands a mail client sends, and turns connections away while it is told to."""

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
            with reach(client, self.target) as server:
                down = threading.Thread(target=pump, args=(server, client), daemon=True)
                down.start()
                unfinished = b""

                def hear(data: bytes) -> bool:
                    nonlocal unfinished
                    *lines, unfinished = (unfinished + data).split(b"\r\n")
                    self.commands += [line.decode("latin1").partition(" ")[2] for line in lines]
                    return True

                pump(client, server, hear)
                down.join(5)


@contextmanager
def listening(target: int) -> Iterator[ListeningProxy]:
    """A proxy to a port."""
    with socket.create_server((HOST, 0)) as listener:
        proxy = ListeningProxy(listener.getsockname()[1], target)
        with accepting(listener, proxy.serve):
            yield proxy
