"""Requests to PostgREST through postgrest-py, on httpx clients of ours.

httpx and postgrest are imported at the first request, to keep the import light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._credentials import token_awaited, token_now
from ._flow import Call, Request, Select, WithHeader
from ._pool import DEFAULT_TIMEOUT, AsyncPool, Pool
from ._roles import refuse_users

if TYPE_CHECKING:
    from postgrest import AsyncPostgrestClient, SyncPostgrestClient

    from ._credentials import Credentials


class HttpTransport:
    """Does a flow's requests in the calling thread."""

    def __init__(self, credentials: Credentials, pool: Pool) -> None:
        """Take who is calling and the connections."""
        self._credentials = credentials
        self._pool = pool
        # The last client of postgrest-py, which serves as long as URL and time limit stay the same.
        self._kept: tuple[str, float | None, SyncPostgrestClient] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy without the client of postgrest-py."""
        return HttpTransport, (self._credentials, self._pool)

    def send(self, request: Request) -> Any:
        """Return the decoded answer, or raise a ChunksError."""
        if isinstance(request, Select) and request.for_service:
            refuse_users("a worker", self._credentials.key, token_now(self._credentials))
        client = self._client(self._credentials.url, _time_limit(self._pool, request))
        return _reply(request, _build(client, request).execute().data)

    def _client(self, url: str, limit: float | None) -> SyncPostgrestClient:
        if self._kept is not None and self._kept[:2] == (url, limit):
            return self._kept[2]
        from postgrest import SyncPostgrestClient

        from ._project_client import ProjectClient

        session = ProjectClient(self._credentials, self._pool, limit)
        client = SyncPostgrestClient(f"{url}/rest/v1", http_client=session)
        self._kept = (url, limit, client)
        return client


class AsyncHttpTransport:
    """Does a flow's requests on the running event loop."""

    def __init__(self, credentials: Credentials, pool: AsyncPool) -> None:
        """Take who is calling and the connections."""
        self._credentials = credentials
        self._pool = pool
        self._kept: tuple[str, float | None, AsyncPostgrestClient] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy without the client of postgrest-py."""
        return AsyncHttpTransport, (self._credentials, self._pool)

    async def send(self, request: Request) -> Any:
        """Return the decoded answer, or raise a ChunksError."""
        if isinstance(request, Select) and request.for_service:
            refuse_users("a worker", self._credentials.key, await token_awaited(self._credentials))
        client = self._client(self._credentials.url, _time_limit(self._pool, request))
        return _reply(request, (await _build(client, request).execute()).data)

    def _client(self, url: str, limit: float | None) -> AsyncPostgrestClient:
        if self._kept is not None and self._kept[:2] == (url, limit):
            return self._kept[2]
        from postgrest import AsyncPostgrestClient

        from ._project_client import AsyncProjectClient

        session = AsyncProjectClient(self._credentials, self._pool, limit)
        client = AsyncPostgrestClient(f"{url}/rest/v1", http_client=session)
        self._kept = (url, limit, client)
        return client


def _build(client: Any, request: Request) -> Any:
    """Return postgrest-py's builder, sync or async as its client is, for a request."""
    if isinstance(request, Call):
        return client.rpc(request.function, request.arguments)
    query = client.from_(request.table).select(request.columns)
    for column, operator, value in request.filters:
        query = query.or_(value) if operator == "or" else query.filter(column, operator, value)
    for column in request.order:
        query = query.order(column.removeprefix("-"), desc=column.startswith("-"))
    return query if request.limit is None else query.limit(request.limit)


def _reply(request: Request, data: Any) -> Any:
    """Return what the request asks for of the answer that has just come to this thread or task."""
    if isinstance(request, Call) and request.header is not None:
        from ._project_client import last_headers

        return WithHeader(data, last_headers.get().get(request.header))
    return data


def _time_limit(pool: Pool | AsyncPool, request: Request) -> float | None:
    """Return how many seconds a request may take, or None where a given client's own timeouts hold."""
    if request.timeout is not None:
        return min(request.timeout, pool.timeout or DEFAULT_TIMEOUT)
    return pool.timeout or (DEFAULT_TIMEOUT if pool.given is None else None)
