"""Workers as tasks of an event loop: `AsyncWorker`."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, Any, overload

from ._flow import logger
from ._heartbeat import Heartbeat
from ._report import failed, succeeded
from ._worker_setup import LINGER, Options
from .chunk import AsyncChunk, Chunk
from .client import AsyncChunksClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._worker_setup import AsyncHandler, Handler
    from .chunk import HeldChunk, P
    from .client import ChunksClient
    from .models import Claim


class AsyncWorker:
    """Runs the chunks of some kinds as tasks of the running event loop; see `Worker`.

    Example:
        >>> async def handler(chunk):
        ...     return await fetch(chunk.payload["url"])
        >>> await AsyncWorker(client, handler, kinds=["custom"], concurrency=100).run()
    """

    @overload
    def __init__(
        self,
        client: AsyncChunksClient,
        handler: Handler | AsyncHandler,
        *,
        kinds: Sequence[str],
        payload: None = None,
        concurrency: int = 4,
        prefetch: int = 0,
        worker_id: str | None = None,
        lease_seconds: int | None = None,
        grace: float = 30.0,
        handle_signals: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self,
        client: AsyncChunksClient,
        handler: Handler[P] | AsyncHandler[P],
        *,
        kinds: Sequence[str],
        payload: type[P],
        concurrency: int = 4,
        prefetch: int = 0,
        worker_id: str | None = None,
        lease_seconds: int | None = None,
        grace: float = 30.0,
        handle_signals: bool = True,
    ) -> None: ...
    def __init__(
        self,
        client: AsyncChunksClient,
        handler: Handler[P] | AsyncHandler[P],
        *,
        kinds: Sequence[str],
        payload: type[P] | None = None,
        concurrency: int = 4,
        prefetch: int = 0,
        worker_id: str | None = None,
        lease_seconds: int | None = None,
        grace: float = 30.0,
        handle_signals: bool = True,
    ) -> None:
        """Set up a worker; a handler that is no coroutine function runs in a thread."""
        if not isinstance(client, AsyncChunksClient):
            raise TypeError("an AsyncWorker needs an AsyncChunksClient; a Worker takes a ChunksClient")
        self._options = Options(
            handler, kinds, concurrency, prefetch, worker_id, lease_seconds, grace, handle_signals, payload
        )
        self._core = self._options.core
        self._client = client
        self._driver = client._driver
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()

    @property
    def worker_id(self) -> str:
        """What it is called in the queue."""
        return self._core.worker_id

    def summary(self) -> str:
        """Return what it did so far, as in `3 completed, 5 failed`."""
        return self._core.outbox.summary()

    async def run(self) -> int:
        """Work until `stop()`, or SIGTERM or SIGINT in the main thread; return how many chunks it did."""
        return await self._work_through(until_idle=False)

    async def run_until_idle(self) -> int:
        """Work until the running jobs of its kinds have nothing pending; return how many chunks it did."""
        return await self._work_through(until_idle=True)

    def stop(self) -> None:
        """Claim no more, and let the running chunks finish. Safe in any thread and in a signal handler."""
        self._stopping = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)

    async def _work_through(self, *, until_idle: bool) -> int:
        before = self._core.outbox.reported
        self._options.name_in_this_process()
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        lease = await self._driver.run(self._core.lease())
        started: dict[HeldChunk, asyncio.Task[None]] = {}
        room = asyncio.Semaphore(self._options.concurrency)
        logger.info("worker %s runs chunks of %s", self.worker_id, ", ".join(self._core.kinds))
        sibling = self._client._sync_sibling()
        self._core.make_chunk = lambda claim: self._chunk(claim, sibling)
        with Heartbeat(sibling, self._core, lease), self._options.signals(self.stop):
            try:
                await self._go_round(until_idle, started, room)
            finally:
                await self._shut_down(started)
        logger.info("worker %s: %s", self.worker_id, self._core.outbox.summary())
        return self._core.outbox.reported - before

    def _chunk(self, claim: Claim, sibling: ChunksClient) -> AsyncChunk | Chunk:
        """Return what suits the handler: a function runs in a thread, where nothing can be awaited."""
        if inspect.iscoroutinefunction(self._options.handler):
            return AsyncChunk(claim, self._core.holder, self._driver)
        return Chunk(claim, self._core.holder, sibling._driver)

    async def _go_round(
        self, until_idle: bool, started: dict[HeldChunk, asyncio.Task[None]], room: asyncio.Semaphore
    ) -> None:
        while not self._stopping:
            self._wake.clear()
            done = await self._driver.run(self._core.round(until_idle=until_idle))
            if done.is_last:
                return
            for chunk in done.chunks:
                started[chunk] = asyncio.create_task(self._work(chunk, started, room))
            if self._core.outbox.reports:
                continue
            await _wait(self._wake, done.wait)
            if self._core.outbox.reports and len(self._core.outbox.reports) < len(self._core.held()):
                await asyncio.sleep(LINGER)

    async def _work(
        self, chunk: HeldChunk, started: dict[HeldChunk, asyncio.Task[None]], room: asyncio.Semaphore
    ) -> None:
        async with room:
            chunk._life.start()
            try:
                value = await self._call(chunk)
                report = succeeded(chunk, value)
            except asyncio.CancelledError as error:
                if chunk not in started:
                    raise  # by our own shutting down
                report = failed(chunk, error)
            except BaseException as error:
                report = failed(chunk, error)
        started.pop(chunk, None)
        self._core.outbox.reports.append(report)
        self._wake.set()

    async def _call(self, chunk: HeldChunk) -> Any:
        if inspect.iscoroutinefunction(self._options.handler):
            return await self._options.handler(chunk)
        value = await asyncio.to_thread(self._options.handler, chunk)
        return await value if inspect.isawaitable(value) else value

    async def _shut_down(self, started: dict[HeldChunk, asyncio.Task[None]]) -> None:
        """Give back what was not started, and report what finishes within the grace time."""
        for chunk, task in list(started.items()):
            if not chunk._life.is_started:
                task.cancel()
                started.pop(chunk)
                await self._driver.run(self._core.release(chunk))
        deadline = self._core.holder.ends_at = time.monotonic() + self._options.grace
        while self._core.held() and time.monotonic() < deadline:
            if self._core.outbox.reports:
                await self._driver.run(self._core.outbox.deliver_until(deadline))
                continue
            self._wake.clear()
            await _wait(self._wake, deadline - time.monotonic())
        self._core.abandon()
        for task in started.values():
            task.cancel()
        started.clear()


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(None if seconds is None else max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        pass
