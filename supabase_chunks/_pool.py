"""Connections: one httpx client for all threads, or one for each event loop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from . import _network
from .errors import ConfigurationError

if TYPE_CHECKING:
    import asyncio

    import httpx

DEFAULT_TIMEOUT = 30.0
_CONNECT_TIMEOUT = 10.0


class Pool:
    """The sync httpx client: given by the user, or made at the first request and then ours to close."""

    def __init__(self, client: httpx.Client | None, timeout: float | None) -> None:
        """Take the user's client, if any, and the timeout in seconds."""
        self.given = client
        self.timeout = timeout
        self.closed = False
        self._client = client
        self._lock = threading.Lock()

    def client(self, url: str) -> httpx.Client:
        """Return the client for requests to the project at this URL."""
        if self.closed:
            raise ConfigurationError("this client is closed")
        if self._client is None:
            import httpx

            with self._lock:
                if self._client is None:
                    # HTTP/1.1: the sync HTTP/2 connection of httpx must not be shared by threads.
                    with _network.environment():
                        self._client = httpx.Client(
                            http2=False,
                            timeout=timeouts(self.timeout),
                            limits=_limits(),
                            **_network.options(url),
                        )
        return self._client

    def close(self) -> None:
        """Close the client, if it is ours."""
        if self.given is None:
            self.closed = True
            client, self._client = self._client, None
            if client is not None:
                client.close()


class AsyncPool:
    """The async httpx clients: the user's, or one of ours for each running event loop.

    Connections belong to the loop that opened them.
    """

    def __init__(self, client: httpx.AsyncClient | None, timeout: float | None) -> None:
        """Take the user's client, if any, and the timeout in seconds."""
        self.given = client
        self.timeout = timeout
        self.closed = False
        self._clients: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}
        self._lock = threading.Lock()

    def client(self, url: str) -> httpx.AsyncClient:
        """Return the client of the running loop for requests to the project at this URL."""
        if self.closed:
            raise ConfigurationError("this client is closed")
        if self.given is not None:
            return self.given
        import asyncio

        import httpx

        loop = asyncio.get_running_loop()
        with self._lock:
            client = self._clients.get(loop)
            if client is None:
                # A client keeps its loop alive, so weak references would not do: forget ended loops here.
                self._clients = {old: its for old, its in self._clients.items() if not old.is_closed()}
                with _network.environment():
                    client = httpx.AsyncClient(
                        http2=False,
                        timeout=timeouts(self.timeout),
                        limits=_limits(),
                        **_network.options(url),
                    )
                self._clients[loop] = client
            return client

    async def aclose(self) -> None:
        """Close the running loop's client, if it is ours; the connections of ended loops are gone."""
        if self.given is None:
            import asyncio

            self.closed = True
            with self._lock:
                client = self._clients.pop(asyncio.get_running_loop(), None)
            if client is not None:
                await client.aclose()


def timeouts(seconds: float | None) -> httpx.Timeout:
    """Return the timeout of every part of a request; connecting never takes longer than 10 seconds."""
    import httpx

    total = DEFAULT_TIMEOUT if seconds is None else seconds
    return httpx.Timeout(total, connect=min(total, _CONNECT_TIMEOUT))


def _limits() -> httpx.Limits:
    import httpx

    return httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=15.0)
