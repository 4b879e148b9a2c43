"""Connections: one httpx client for all threads, or one for each event loop."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet

from . import _network
from .errors import ConfigurationError

if TYPE_CHECKING:
    import asyncio

    import httpx

DEFAULT_TIMEOUT = 30.0
_CONNECT_TIMEOUT = 10.0


_pools: WeakSet[_Inheritable] = WeakSet()
_parents: list[object] = []
"""In a forked process: to close or to forget its parent's connections would touch what the parent uses."""


class _Inheritable:
    """What both pools do about other processes: none shares connections with another."""

    def __init__(self, given: Any, timeout: float | None) -> None:
        self.given = given
        self.timeout = timeout
        self.closed = False
        self._lock = threading.Lock()
        self._is_given_used = False
        self._is_given_the_parents = False
        _pools.add(self)

    def __copy__(self) -> Any:
        return type(self)(self.given, self.timeout)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        if self.given is not None:
            raise TypeError(
                "a client that uses an http_client of yours cannot be sent to another process: make one there"
            )
        return type(self), (None, self.timeout)

    def after_fork(self) -> None:
        """Begin anew in a process that was forked."""
        self._lock = threading.Lock()
        self._is_given_the_parents = self._is_given_used

    def _own(self) -> Any:
        """Return the user's client, which must not be in use in the parent process too."""
        if self._is_given_the_parents:
            raise ConfigurationError(
                "the http_client was used before this process was forked, and its connections are the"
                " parent's: give each process a client of its own"
            )
        self._is_given_used = True
        return self.given


def _after_fork() -> None:
    for pool in list(_pools):
        pool.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Pool(_Inheritable):
    """The sync httpx client: given by the user, or made at the first request and then ours to close."""

    def __init__(self, client: httpx.Client | None, timeout: float | None) -> None:
        """Take the user's client, if any, and the timeout in seconds."""
        super().__init__(client, timeout)
        self._client: httpx.Client | None = None

    def after_fork(self) -> None:
        """Open connections of its own in a process that was forked."""
        super().after_fork()
        _parents.append(self._client)
        self._client = None

    def client(self, url: str) -> httpx.Client:
        """Return the client for requests to the project at this URL."""
        if self.closed:
            raise ConfigurationError("this client is closed")
        if self.given is not None:
            return cast("httpx.Client", self._own())
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


class AsyncPool(_Inheritable):
    """The async httpx clients: the user's, or one of ours for each running event loop.

    Connections belong to the loop that opened them.
    """

    def __init__(self, client: httpx.AsyncClient | None, timeout: float | None) -> None:
        """Take the user's client, if any, and the timeout in seconds."""
        super().__init__(client, timeout)
        self._clients: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}

    def after_fork(self) -> None:
        """Open connections of its own in a process that was forked."""
        super().after_fork()
        _parents.append(self._clients)
        self._clients = {}

    def client(self, url: str) -> httpx.AsyncClient:
        """Return the client of the running loop for requests to the project at this URL."""
        if self.closed:
            raise ConfigurationError("this client is closed")
        if self.given is not None:
            return cast("httpx.AsyncClient", self._own())
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
