"""The httpx clients that postgrest-py sends by: credentials of the moment, a time limit, and our errors.

Each request is built and sent by a client of the pool, yours or ours; no connection is opened here. A failure
becomes one of our errors before postgrest-py sees it: its own has neither status nor Retry-After, and it
repeats some failures by itself.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import httpx

from ._credentials import headers, scrub, token_awaited, token_now
from ._pool import timeouts
from ._roles import SERVICE_ONLY, refuse_users
from ._rpc import not_json, response_error
from ._unreadable import readable
from .errors import ChunksError, ConnectionFailed, RequestTimeout, UnexpectedResponse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._credentials import Credentials
    from ._pool import AsyncPool, Pool


# Those of the last success in this thread or task: postgrest-py gives an answer's data only.
last_headers: ContextVar[httpx.Headers] = ContextVar("last_headers")


class ProjectClient(httpx.Client):
    """Sends a project's requests in the calling thread."""

    def __init__(self, credentials: Credentials, pool: Pool, limit: float | None) -> None:
        """Take who is calling, the connections, and the seconds that a request may take as a whole."""
        super().__init__(transport=httpx.BaseTransport(), trust_env=False)
        self._credentials = credentials
        self._pool = pool
        self._limit = limit

    def build_request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Request:
        """Build a request as the pool's client does, with its own headers."""
        if self._limit is not None:
            options["timeout"] = timeouts(self._limit)
        return self._pool.client(self._credentials.url).build_request(method, url, **options)

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request, and return its answer if that is a success."""
        exchange = Exchange(request, self._credentials.key, token_now(self._credentials))
        exchange.sign(request)
        try:
            response = self._send(request, options)
        except (httpx.TransportError, httpx.DecodingError) as failure:
            error = exchange.failed(failure)
        else:
            answer = exchange.read(response)
            if isinstance(answer, httpx.Response):
                last_headers.set(response.headers)
                return answer
            error = answer
        # Raised here and not above: no httpx error with the request's headers may hang on it as its context.
        # Nor are key and token variables of this frame: some tools keep a traceback with its variables.
        raise error

    def _send(self, request: httpx.Request, options: dict[str, Any]) -> httpx.Response:
        """Do a request and read its whole answer in time; a body that drips is noticed at its next part."""
        client = self._pool.client(self._credentials.url)
        if self._limit is None:
            return client.send(request, **options)
        deadline = time.monotonic() + self._limit
        response = client.send(request, **{**options, "stream": True})
        try:
            if isinstance(response.stream, httpx.SyncByteStream):
                response.stream = _Bounded(response.stream, deadline)
            response.read()
        finally:
            response.close()
        return response


class AsyncProjectClient(httpx.AsyncClient):
    """Sends a project's requests on the running event loop."""

    def __init__(self, credentials: Credentials, pool: AsyncPool, limit: float | None) -> None:
        """Take who is calling, the connections, and the seconds that a request may take as a whole."""
        super().__init__(transport=httpx.AsyncBaseTransport(), trust_env=False)
        self._credentials = credentials
        self._pool = pool
        self._limit = limit

    def build_request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Request:
        """Build a request as the pool's client does, with its own headers."""
        if self._limit is not None:
            options["timeout"] = timeouts(self._limit)
        return self._pool.client(self._credentials.url).build_request(method, url, **options)

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request, and return its answer if that is a success."""
        exchange = Exchange(request, self._credentials.key, await token_awaited(self._credentials))
        exchange.sign(request)
        try:
            async with asyncio.timeout(self._limit):
                response = await self._pool.client(self._credentials.url).send(request, **options)
        except TimeoutError:
            error = exchange.failed(httpx.ReadTimeout("the answer did not end in time"))
        except (httpx.TransportError, httpx.DecodingError) as failure:
            error = exchange.failed(failure)
        else:
            answer = exchange.read(response)
            if isinstance(answer, httpx.Response):
                last_headers.set(response.headers)
                return answer
            error = answer
        raise error


class Exchange:
    """One request and its answer: who asks, and the error that an answer or a failure is."""

    def __init__(self, request: httpx.Request, key: str, token: str | None) -> None:
        """Take the request, and whose it is."""
        self._key = key
        self._token = token
        # The function or table that is asked, and where.
        self._what = request.url.path.rpartition("/")[2]
        self._host = request.url.netloc.decode("ascii")

    def sign(self, request: httpx.Request) -> None:
        """Add the headers that say who asks.

        Raises:
            PermissionDenied: It is a user who does, and the function is one for the service.
        """
        if self._what in SERVICE_ONLY:
            refuse_users(self._what, self._key, self._token)
        request.headers.update(headers(self._key, self._token))

    def read(self, response: httpx.Response) -> httpx.Response | ChunksError:
        """Return an answer that is a success, or the error that it is.

        In a success, a value of a user that Python cannot read is replaced by a text.
        """
        content_type = response.headers.get("content-type", "")
        if response.is_success and "json" in content_type and response.content:
            content = readable(response.content)
            if content is None:
                return response
            try:
                json.loads(content)
            except json.JSONDecodeError:
                return response
            except (ValueError, RecursionError) as error:
                reason = type(error).__name__
                return UnexpectedResponse(f"the answer of {self._what} cannot be read as JSON ({reason})")
            return httpx.Response(response.status_code, content=content, request=response.request)
        body = scrub(response.text, self._key, self._token)
        if response.is_success:
            return not_json(
                status=response.status_code, content_type=content_type, body=body, what=self._what
            )
        return response_error(
            status=response.status_code,
            headers=response.headers,
            body=body,
            reason=response.reason_phrase,
            what=self._what,
        )

    def failed(self, error: httpx.TransportError | httpx.DecodingError) -> ChunksError:
        """Return the error that a failure of httpx is, without a reference to the request and its headers."""
        text = scrub(str(error) or type(error).__name__, self._key, self._token)
        if isinstance(error, httpx.TimeoutException):
            reason = type(error).__name__
            return RequestTimeout(f"{self._host} gave no answer to {self._what} in time ({reason})")
        if isinstance(error, httpx.DecodingError):
            return UnexpectedResponse(f"the answer of {self._what} could not be read: {text}")
        failure = ConnectionFailed(f"no connection to {self._host} for {self._what}: {text}")
        if "CERTIFICATE_VERIFY_FAILED" in text:
            failure.retryable = False
        return failure


class _Bounded(httpx.SyncByteStream):
    """The body of an answer, until a moment of the monotonic clock.

    httpx's own timeout is one of each read, so a server that drips its answer would never exceed it.
    """

    def __init__(self, body: httpx.SyncByteStream, deadline: float) -> None:
        self._body = body
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        for part in self._body:
            if time.monotonic() > self._deadline:
                raise httpx.ReadTimeout("the answer had begun, and did not end in time")
            yield part

    def close(self) -> None:
        self._body.close()
