"""The front door of the local project: `/rest/v1` and `/functions/v1`, and API keys turned into roles."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from supabase_chunks.local.ports import HOST

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from supabase_chunks.local.functions import Function
    from supabase_chunks.local.keys import Keys
    from supabase_chunks.local.postgrest import PostgREST

# They speak of one connection, not of the message (RFC 9110, 7.6.1); Host is the next server's own.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# Bodies up to this size pass in one piece, which is faster; longer ones are streamed.
_WHOLE_BYTES = 256 * 1024
# The platform gives a function this long until the first byte of its answer.
_IDLE_SECONDS = 150.0
# Filters over many ids make long addresses, and tokens with many claims long headers.
_LINE_BYTES = 64 * 1024
_ROLE_TOKEN_REUSE_SECONDS = 60.0
# Services of the platform that do not run here.
_MISSING = {"auth": "Auth", "storage": "Storage", "realtime": "Realtime", "graphql": "GraphQL"}


class Gateway:
    """A reverse proxy that knows the project's keys."""

    def __init__(self, keys: Keys, *, functions: Mapping[str, Function]) -> None:
        """Make it.

        Args:
            keys: The project's keys.
            functions: Where each function is served now.
        """
        self.postgrest: PostgREST | None = None
        self._keys = keys
        self._functions = functions
        self._role_tokens: dict[str, tuple[float, str]] = {}
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.ServerRunner | None = None

    async def start(self, listener: socket.socket) -> None:
        """Serve on a bound socket."""
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=_IDLE_SECONDS),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_field_size=_LINE_BYTES,
        )
        server = web.Server(
            self._answer, auto_decompress=False, max_line_size=_LINE_BYTES, max_field_size=_LINE_BYTES
        )
        self._runner = web.ServerRunner(server, handle_signals=False)
        await self._runner.setup()
        await web.SockSite(self._runner, listener, shutdown_timeout=0.5).start()

    async def stop(self) -> None:
        """Stop serving, cutting what is still open."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path
        if path.startswith("/rest/v1/"):
            return await self._rest(request, path.removeprefix("/rest/v1"))
        if path.startswith("/functions/v1/"):
            return await self._function(request, path.removeprefix("/functions/v1"))
        missing = _MISSING.get(path[1:].partition("/")[0])
        if missing is not None:
            message = f"The local stack has no {missing}, only /rest/v1 and /functions/v1."
            return _refuse(501, {"code": "NOT_IMPLEMENTED", "message": message})
        return _refuse(404, {"message": "no Route matched with those values"})

    async def _rest(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        headers = _forwarded(request.headers)
        # A browser's preflight carries no key.
        if request.method != "OPTIONS":
            api_key = request.headers.get("apikey")
            if not api_key:
                return _refuse(
                    401,
                    {
                        "message": "No API key found in request",
                        "hint": "No `apikey` request header or url param was found.",
                    },
                )
            role = self._keys.role_of(api_key)
            if role is None:
                return _refuse(
                    401,
                    {
                        "message": "Invalid API key",
                        "hint": "Double check the API key: it is none of this project's.",
                    },
                )
            authorization = headers.get("Authorization", "")
            if not authorization or authorization.lower().startswith("bearer sb_"):
                headers["Authorization"] = f"Bearer {self._role_token(role)}"
        port = self.postgrest.port if self.postgrest is not None else 0
        return await self._forward(request, port, path, headers)

    async def _function(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        name = path[1:].partition("?")[0].partition("/")[0]
        function = self._functions.get(name)
        if function is None:
            return _refuse(404, {"code": "NOT_FOUND", "message": "Requested function was not found"})
        if function.broken:
            return _refuse(503, {"code": "BOOT_ERROR", "message": function.broken})
        if function.config.verify_jwt and request.method != "OPTIONS":
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not token:
                return _refuse(401, {"code": "401", "message": "Missing authorization header"})
            if not self._keys.accepts(token.strip()):
                return _refuse(401, {"code": "401", "message": "Invalid JWT"})
        return await self._forward(request, function.port, path, _forwarded(request.headers))

    def _role_token(self, role: str) -> str:
        made_at, token = self._role_tokens.get(role, (0.0, ""))
        now = time.monotonic()
        if not token or now - made_at > _ROLE_TOKEN_REUSE_SECONDS:
            token = self._keys.role_token(role)
            self._role_tokens[role] = (now, token)
        return token

    async def _forward(
        self, request: web.BaseRequest, port: int, path: str, headers: CIMultiDict[str]
    ) -> web.StreamResponse:
        assert self._session is not None  # noqa: S101 - set before the first request
        length = request.content_length
        if not request.body_exists:
            body: bytes | aiohttp.StreamReader | None = None
        elif length is not None and length <= _WHOLE_BYTES:
            body = await request.content.read()
        else:
            body = request.content
        headers["X-Forwarded-Host"] = request.host
        headers["X-Forwarded-Proto"] = "http"
        if request.remote:
            headers["X-Forwarded-For"] = request.remote
        url = URL(f"http://{HOST}:{port}{path}", encoded=True)
        try:
            async with self._session.request(
                request.method, url, headers=headers, data=body, allow_redirects=False
            ) as upstream:
                return await _relay(request, upstream)
        except aiohttp.ClientConnectorError:
            return _refuse(
                503, {"code": "BOOT_ERROR", "message": "The service behind this is starting, try again"}
            )
        except TimeoutError:
            return _refuse(504, {"code": "IDLE_TIMEOUT", "message": "The upstream server is timing out"})
        except aiohttp.ClientError:
            return _refuse(502, {"message": "An invalid response was received from the upstream server"})


async def _relay(request: web.BaseRequest, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
    """Pass an answer on. Until its first byte is out an error may still become an answer of our own."""
    headers = _forwarded(upstream.headers)
    length = upstream.content_length
    if request.method == "HEAD" or (length is not None and length <= _WHOLE_BYTES):
        whole = web.Response(status=upstream.status, reason=upstream.reason, body=await upstream.read())
        whole.headers.clear()
        whole.headers.update(headers)
        return whole
    response = web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=headers)
    await response.prepare(request)
    try:
        async for piece in upstream.content.iter_any():
            await response.write(piece)
        await response.write_eof()
    except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError):
        # The client must see a cut answer, not one that looks complete.
        if request.transport is not None:
            request.transport.abort()
    return response


def _forwarded(headers: Mapping[str, str]) -> CIMultiDict[str]:
    named = headers.get("Connection", "").lower()
    dropped = _HOP_BY_HOP | {token.strip() for token in named.split(",") if token.strip()}
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        if name.lower() not in dropped:
            kept.add(name, value)
    return kept


def _refuse(status: int, body: dict[str, str]) -> web.Response:
    return web.json_response(body, status=status, headers={"Access-Control-Allow-Origin": "*"})
