"""A proxy that stands between two parts of a project and misbehaves as told; what passes may be recorded."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from dataclasses import dataclass
from typing import Self

import aiohttp
from aiohttp import web

from tests.torture.recorder import Recorder, called

_HEADERS = (
    "apikey",
    "authorization",
    "content-type",
    "prefer",
    "accept",
    "accept-profile",
    "content-profile",
)


@dataclass
class Faults:
    """How it misbehaves; all zero: not at all.

    Attributes:
        lose_requests: The chance that a request is cut before it is passed on.
        lose_answers: The chance that the connection is cut where the answer would come back.
        swallow: The chance that a request is answered 202 and passed on to nobody.
        double: The chance that a request is passed on twice, the second time a moment later.
        delay: Seconds that requests are held back, at most.
    """

    lose_requests: float = 0.0
    lose_answers: float = 0.0
    swallow: float = 0.0
    double: float = 0.0
    delay: float = 0.0


class Proxy:
    """Listens on a port of its own from the start; passes on when it has a target."""

    def __init__(self, seed: str, recorder: Recorder | None = None) -> None:
        """Take a seed for its chances, and where to record calls of the queue's functions."""
        self.faults = Faults()
        self.target = ""
        self.url = ""
        self.recorder = recorder
        self._draw = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._later: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=30),
        )
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _close(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        faults = self.faults
        try:
            body = await request.read()
        except ConnectionError:  # who asked is gone
            return web.Response(status=499)
        if self._draw.random() < faults.lose_requests:
            return _cut(request)
        if self._draw.random() < faults.swallow:
            return web.Response(status=202)
        if faults.delay:
            await asyncio.sleep(self._draw.uniform(0, faults.delay))
        if self._draw.random() < faults.double:
            self._again(request, body)
        answer = await self._pass_on(request, body)
        if answer is None or self._draw.random() < faults.lose_answers:
            return _cut(request)
        return answer

    def _again(self, request: web.BaseRequest, body: bytes) -> None:
        async def later() -> None:
            await asyncio.sleep(self._draw.uniform(0, 0.3))
            await self._pass_on(request, body)

        task = self._loop.create_task(later())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _pass_on(self, request: web.BaseRequest, body: bytes) -> web.Response | None:
        headers = {name: value for name, value in request.headers.items() if name.lower() in _HEADERS}
        function = called(request.path) if self.recorder is not None else None
        operation = ""
        if self.recorder is not None and function is not None:
            operation = self.recorder.begin(function, json.loads(body or b"{}"))
        try:
            async with self._session.request(
                request.method,
                self.target + request.raw_path,
                data=body or None,
                headers=headers,
                allow_redirects=False,
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if operation and self.recorder is not None:
                self.recorder.unknown(operation, type(error).__name__)
            return None
        if operation and self.recorder is not None:
            self.recorder.answered(operation, response.status, content)
        kept = {
            name: response.headers[name]
            for name in ("Content-Type", "Retry-After")
            if name in response.headers
        }
        return web.Response(status=response.status, body=content, headers=kept)


def _cut(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)
