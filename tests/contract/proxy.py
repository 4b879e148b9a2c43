"""A TCP proxy that loses replies, closes idle connections, or goes away, as networks do."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self
from urllib.parse import urlsplit


class Proxy:
    """Passes connections on to a server, until told to misbehave."""

    def __init__(self, target: str) -> None:
        """Take the server's URL."""
        parts = urlsplit(target)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._lose_for = ""
        self.lost = 0
        self.connections = 0
        self.idle_seconds: float | None = None
        """Close a connection that was quiet for so long."""

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._listener.getsockname()
        return f"http://{host}:{port}"

    def lose_the_next_reply_to(self, path: str) -> None:
        """Forward the next request to a path, and cut the connection where its answer would come back."""
        self._lose_for = path

    def cut(self) -> None:
        """Close every connection."""
        with self._lock:
            for connection in list(self._open):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        """Listen."""
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close everything."""
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, socket.create_connection(self._target) as far, contextlib.suppress(OSError):
            for connection in (near, far):
                # Else a request in two pieces waits for an acknowledgement that the other side delays.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {near, far}
            losing = threading.Event()
            back = threading.Thread(target=self._answers, args=(far, near, losing), daemon=True)
            back.start()
            near.settimeout(self.idle_seconds)
            with contextlib.suppress(TimeoutError):
                while data := near.recv(65536):
                    if self._lose_for and self._lose_for.encode() in data:
                        self._lose_for = ""
                        losing.set()
                    far.sendall(data)
            for connection in (near, far):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            back.join()
            with self._lock:
                self._open -= {near, far}

    def _answers(self, far: socket.socket, near: socket.socket, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                if losing.is_set():
                    self.lost += 1
                    near.shutdown(socket.SHUT_RDWR)
                    return
                near.sendall(data)
            near.shutdown(socket.SHUT_RDWR)
