"""Requests to PostgREST, through postgrest-py on an httpx client of ours.

postgrest-py builds the request; the session object that it is given here adds the credentials of the moment
and turns each failure into one of our errors before postgrest-py sees it, since its own error has neither
status nor Retry-After. httpx and postgrest are imported at the first request, to keep the import light.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ._credentials import Credentials, headers, scrub
from ._flow import Call, Request
from ._pool import DEFAULT_TIMEOUT, AsyncPool, Pool, seconds
from ._rpc import not_json, response_error
from .errors import ChunksError, ConfigurationError, ConnectionFailed, RequestTimeout, UnexpectedResponse

if TYPE_CHECKING:
    import httpx


class HttpTransport:
    """Does a flow's requests in the calling thread."""

    def __init__(self, credentials: Credentials, pool: Pool) -> None:
        """Take who is calling and the connections."""
        self.credentials = credentials
        self.pool = pool

    def send(self, request: Request) -> Any:
        """Return the decoded answer, or raise a ChunksError."""
        import postgrest

        session = _Session(self.credentials, self.pool, request)
        client: Any = postgrest.SyncPostgrestClient(
            f"{self.credentials.url}/rest/v1",
            http_client=session,  # type: ignore[arg-type]  # it has what postgrest-py uses of one
        )
        return session.exchange.data(_build(client, request).execute().data)


class AsyncHttpTransport:
    """Does a flow's requests on the running event loop."""

    def __init__(self, credentials: Credentials, pool: AsyncPool) -> None:
        """Take who is calling and the connections."""
        self.credentials = credentials
        self.pool = pool

    async def send(self, request: Request) -> Any:
        """Return the decoded answer, or raise a ChunksError."""
        import postgrest

        session = _AsyncSession(self.credentials, self.pool, request)
        client: Any = postgrest.AsyncPostgrestClient(
            f"{self.credentials.url}/rest/v1",
            http_client=session,  # type: ignore[arg-type]  # it has what postgrest-py uses of one
        )
        return session.exchange.data((await _build(client, request).execute()).data)


class _Exchange:
    """One request and its answer: the headers that go out, and the error that an answer or a failure is."""

    def __init__(self, credentials: Credentials, request: Request, limit: float | None) -> None:
        self.key = credentials.key
        self.token: str | None = None
        self.what = request.function if isinstance(request, Call) else request.table
        self.seconds = limit
        self.text = ""

    def options(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return postgrest-py's options of a request with our headers and timeout."""
        options = {**given, "headers": {**given["headers"], **headers(self.key, self.token)}}
        return options if self.seconds is None else {**options, "timeout": seconds(self.seconds)}

    def answered(self, response: httpx.Response) -> ChunksError | None:
        """Return the error that an answer is, or None for a success."""
        if response.is_success:
            json = response.status_code == 204 or "json" in response.headers.get("content-type", "")
            if json and (response.content or response.status_code == 204):
                self.text = response.text
                return None
            return not_json(
                status=response.status_code,
                content_type=response.headers.get("content-type", ""),
                body=scrub(response.text, self.key, self.token),
                what=self.what,
            )
        return response_error(
            status=response.status_code,
            headers=response.headers,
            body=scrub(response.text, self.key, self.token),
            reason=response.reason_phrase,
            what=self.what,
        )

    def failed(self, error: Exception) -> ChunksError:
        """Return the error that a failure of httpx is, without a reference to the request and its headers."""
        import httpx

        text = scrub(str(error) or type(error).__name__, self.key, self.token)
        if isinstance(error, httpx.TimeoutException):
            return RequestTimeout(f"no answer to {self.what} in time ({type(error).__name__})")
        if isinstance(error, httpx.DecodingError):
            return UnexpectedResponse(f"the answer of {self.what} could not be read: {text}")
        failure = ConnectionFailed(f"no connection for {self.what}: {text}")
        if "CERTIFICATE_VERIFY_FAILED" in text:
            failure.retryable = False
        return failure

    def data(self, data: Any) -> Any:
        """Return the decoded answer; postgrest-py gives the text as it is when it is not whole JSON."""
        if not self.text:
            return None
        if isinstance(data, str) and data == self.text:
            raise not_json(status=200, content_type="cut or broken JSON", body=data, what=self.what)
        return data


class _Session:
    """What postgrest-py needs of an httpx.Client."""

    auth = None

    def __init__(self, credentials: Credentials, pool: Pool, request: Request) -> None:
        self.exchange = _Exchange(credentials, request, _seconds(pool, request))
        self._credentials = credentials
        self._client = pool.client(credentials.url)

    def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        import httpx

        from . import _deadline

        self.exchange.token = self._token()
        try:
            response = _deadline.request(
                self._client, method, url, self.exchange.seconds, **self.exchange.options(options)
            )
        except (httpx.TransportError, httpx.DecodingError) as failure:
            error = self.exchange.failed(failure)
        else:
            refusal = self.exchange.answered(response)
            if refusal is None:
                return response
            error = refusal
        # Raised here and not above: no httpx error with the request's headers may hang on it as its context.
        # Nor is the token a variable of this frame: some tools keep a traceback with its variables.
        raise error

    def _token(self) -> str | None:
        token = self._credentials.token()
        if token is None or isinstance(token, str):
            return token
        if inspect.iscoroutine(token):
            token.close()
        raise ConfigurationError("a sync client needs a token as text, or a function that returns one")


class _AsyncSession:
    """What postgrest-py needs of an httpx.AsyncClient."""

    auth = None

    def __init__(self, credentials: Credentials, pool: AsyncPool, request: Request) -> None:
        self.exchange = _Exchange(credentials, request, _seconds(pool, request))
        self._credentials = credentials
        self._client = pool.client(credentials.url)

    async def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        import httpx

        from . import _deadline

        self.exchange.token = await self._token()
        try:
            response = await _deadline.request_async(
                self._client, method, url, self.exchange.seconds, **self.exchange.options(options)
            )
        except (httpx.TransportError, httpx.DecodingError) as failure:
            error = self.exchange.failed(failure)
        else:
            refusal = self.exchange.answered(response)
            if refusal is None:
                return response
            error = refusal
        raise error

    async def _token(self) -> str | None:
        token = self._credentials.token()
        return token if token is None or isinstance(token, str) else await token


def _build(client: Any, request: Request) -> Any:
    """Return postgrest-py's builder, sync or async, for a request."""
    if isinstance(request, Call):
        return client.rpc(request.function, request.arguments)
    query = client.from_(request.table).select(request.columns)
    for column, operator, value in request.filters:
        query = query.or_(value) if operator == "or" else query.filter(column, operator, value)
    for column in request.order:
        query = query.order(column.removeprefix("-"), desc=column.startswith("-"))
    return query if request.limit is None else query.limit(request.limit)


def _seconds(pool: Pool | AsyncPool, request: Request) -> float | None:
    """Return how long a request may take, or None where a given client's own timeouts hold."""
    if request.timeout is not None:
        return min(request.timeout, pool.timeout or DEFAULT_TIMEOUT)
    return pool.timeout or (DEFAULT_TIMEOUT if pool.given is None else None)
