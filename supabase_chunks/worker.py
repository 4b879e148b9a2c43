"""Workers run chunks in Python: `Worker` in threads; `AsyncWorker`, in its own file, in tasks.

One loop claims for the room that is left and reports in bulk; handlers run beside it, and a thread sends
heartbeats. What is claimed and not started at the end is given back, what still runs after the grace time is
left to its lease.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
import time
from typing import TYPE_CHECKING, overload

from ._flow import logger
from ._heartbeat import Heartbeat
from ._loop import warn_of_blocking
from ._report import Report, failed, succeeded
from ._worker_setup import LINGER, Options
from .chunk import Chunk
from .client import ChunksClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._worker_setup import Handler
    from .chunk import HeldChunk, P
    from .models import Claim

_POLL_SIGNALS = 0.5


class Worker:
    """Runs the chunks of some kinds in threads of this process. Needs a client with a secret key.

    Example:
        >>> def handler(chunk):
        ...     return {"next": chunk.payload["page"] + 1}
        >>> Worker(client, handler, kinds=["reports"]).run_until_idle()
        2
    """

    @overload
    def __init__(
        self,
        client: ChunksClient,
        handler: Handler,
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
        client: ChunksClient,
        handler: Handler[P],
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
        client: ChunksClient,
        handler: Handler[P],
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
        """Set up a worker; `run` starts it.

        Args:
            client: The project.
            handler: A function of a `Chunk`, or a coroutine function (each call then has its own event loop).
            kinds: Whose chunks to run.
            payload: What to make of each payload: a pydantic model, a dataclass, a TypedDict, or what else
                pydantic knows. A chunk whose payload is not one has failed for good, with the fields named.
            concurrency: How many at once.
            prefetch: How many to hold beyond those; more throughput for short chunks.
            worker_id: What to call it; host, process and a random part unless given.
            lease_seconds: How long a claim holds without a heartbeat; unless given 45, or as a kind with
                less says.
            grace: Seconds that running chunks get at the end.
            handle_signals: Whether SIGTERM and SIGINT stop it. A server's own handlers are called as well.
        """
        if not isinstance(client, ChunksClient):
            raise TypeError("a Worker needs a ChunksClient; an AsyncWorker takes an AsyncChunksClient")
        self._options = Options(
            handler, kinds, concurrency, prefetch, worker_id, lease_seconds, grace, handle_signals, payload
        )
        self._core = self._options.core
        self._client = client
        self._driver = client._driver
        self._core.make_chunk = self._chunk
        self._todo: queue.SimpleQueue[HeldChunk | None] = queue.SimpleQueue()
        # A SimpleQueue's put may be called in a signal handler.
        self._done: queue.SimpleQueue[Report | None] = queue.SimpleQueue()
        self._stopping = False

    @property
    def worker_id(self) -> str:
        """What it is called in the queue."""
        return self._core.worker_id

    def summary(self) -> str:
        """Return what it did so far.

        Example:
            >>> worker = Worker(client, lambda chunk: chunk.payload["page"], kinds=["reports"])
            >>> worker.run_until_idle()
            2
            >>> worker.summary()
            '2 completed'
        """
        return self._core.outbox.summary()

    def run(self) -> int:
        """Work until `stop()`, or SIGTERM or SIGINT in the main thread; return how many chunks it did.

        A second signal ends it without grace.

        Raises:
            UnknownKind: One of its kinds is not there.
            PermissionDenied: The key is not a secret one.

        Example:
            >>> worker = Worker(client, print, kinds=["reports"])
            >>> thread = threading.Thread(target=worker.run)
            >>> thread.start()
            >>> worker.stop()
            >>> thread.join()
        """
        warn_of_blocking("run()", "AsyncWorker")
        return self._work_through(until_idle=False)

    def run_until_idle(self) -> int:
        """Work until the running jobs of its kinds have nothing pending; return how many chunks it did.

        It waits for retries, and while other workers have all slots. Paused jobs are not waited for.

        Example:
            >>> Worker(client, lambda chunk: chunk.payload["page"], kinds=["reports"]).run_until_idle()
            2
            >>> job.results()
            [1, 2]
        """
        warn_of_blocking("run_until_idle()", "AsyncWorker")
        return self._work_through(until_idle=True)

    def stop(self) -> None:
        """Claim no more, and let the running chunks finish. Safe in any thread and in a signal handler.

        Example:
            >>> worker = Worker(client, lambda chunk: worker.stop(), kinds=["reports"], concurrency=1)
            >>> worker.run()
            1
        """
        self._stopping = True
        self._done.put(None)

    def _work_through(self, *, until_idle: bool) -> int:
        before = self._core.outbox.reported
        self._options.name_in_this_process()
        lease = self._driver.run(self._core.lease())
        threads = [
            threading.Thread(target=self._work, name=f"supabase-chunks-{number}", daemon=True)
            for number in range(self._options.concurrency)
        ]
        logger.info("worker %s runs chunks of %s", self.worker_id, ", ".join(self._core.kinds))
        with Heartbeat(self._client._sibling(), self._core, lease), self._options.signals(self.stop):
            for thread in threads:
                thread.start()
            try:
                self._go_round(until_idle)
            finally:
                try:
                    self._shut_down()
                finally:
                    for _ in threads:
                        self._todo.put(None)
        logger.info("worker %s: %s", self.worker_id, self._core.outbox.summary())
        return self._core.outbox.reported - before

    def _chunk(self, claim: Claim) -> Chunk:
        return Chunk(claim, self._core.holder, self._driver)

    def _go_round(self, until_idle: bool) -> None:
        while not self._stopping:
            done = self._driver.run(self._core.round(until_idle=until_idle))
            if done.is_last:
                return
            for chunk in done.chunks:
                self._todo.put(chunk)
            self._core.outbox.reports += self._collect(done.wait)

    def _collect(self, wait: float | None) -> list[Report]:
        """Return the reports that come within `wait` seconds; None means until there is one, or `stop`.

        After the first it lingers a moment for more, unless all chunks are done: one call is less than many.
        """
        reports: list[Report] = []
        until = None if wait is None else time.monotonic() + wait
        running = len(self._core.held())
        while len(reports) < running or not reports:
            if reports:
                timeout = LINGER
            elif until is None:
                timeout = _POLL_SIGNALS
            else:
                timeout = max(0.0, min(_POLL_SIGNALS, until - time.monotonic()))
            try:
                report = self._done.get(timeout=timeout)
            except queue.Empty:
                if reports or self._stopping or (until is not None and time.monotonic() >= until):
                    break
                continue
            if report is None:
                break
            reports.append(report)
        return reports

    def _work(self) -> None:
        """Run chunks in one of the threads."""
        while (chunk := self._todo.get()) is not None:
            try:
                value = self._options.handler(chunk)
                if inspect.iscoroutine(value):
                    value = asyncio.run(value)
                report = succeeded(chunk, value)
            except BaseException as error:
                report = failed(chunk, error)
            self._done.put(report)

    def _shut_down(self) -> None:
        """Give back what was not started, and report what finishes within the grace time."""
        while True:
            try:
                chunk = self._todo.get_nowait()
            except queue.Empty:
                break
            if chunk is not None:
                self._driver.run(self._core.release(chunk))
        deadline = self._core.holder.ends_at = time.monotonic() + self._options.grace
        while self._core.held() and time.monotonic() < deadline:
            if self._core.outbox.reports:
                self._driver.run(self._core.outbox.deliver_until(deadline))
            else:
                self._core.outbox.reports += self._collect(deadline - time.monotonic())
        self._core.abandon()
