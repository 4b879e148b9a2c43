"""Drivers: what does a flow's requests and pauses, in the calling thread or on the running event loop."""

from __future__ import annotations

import time
from typing import Any, Protocol, TypeVar

from ._flow import Flow, Request, Retry, Sleep, each_step, retried

T = TypeVar("T")


class Transport(Protocol):
    """Does requests in the calling thread."""

    def send(self, request: Request) -> Any:
        """Return the decoded answer, or raise a ChunksError."""


class AsyncTransport(Protocol):
    """Does requests on the running event loop."""

    async def send(self, request: Request) -> Any:
        """Return the decoded answer, or raise a ChunksError."""


class Driver:
    """Drives flows in the calling thread."""

    def __init__(self, transport: Transport, retry: Retry) -> None:
        """Take what does the requests, and how failed ones are repeated."""
        self.transport = transport
        self.retry = retry

    def run(self, flow: Flow[T]) -> T:
        """Take a flow to its end, its requests repeated as allowed."""
        return self.run_once(retried(flow, self.retry))

    def run_once(self, flow: Flow[T]) -> T:
        """Take a flow to its end that repeats its requests itself, or must not."""
        steps = each_step(flow, self._do)
        try:
            # Nothing that it awaits is ever waited for, so it runs to its end without an event loop.
            steps.send(None)
        except StopIteration as stop:
            value: T = stop.value
            return value
        finally:
            steps.close()
        raise AssertionError("a step of a flow was waited for")

    async def _do(self, step: Request | Sleep) -> Any:
        if isinstance(step, Sleep):
            time.sleep(step.seconds)
            return None
        return self.transport.send(step)


class AsyncDriver:
    """Drives flows on the running event loop."""

    def __init__(self, transport: AsyncTransport, retry: Retry) -> None:
        """Take what does the requests, and how failed ones are repeated."""
        self.transport = transport
        self.retry = retry

    async def run(self, flow: Flow[T]) -> T:
        """Take a flow to its end, its requests repeated as allowed."""
        return await self.run_once(retried(flow, self.retry))

    async def run_once(self, flow: Flow[T]) -> T:
        """Take a flow to its end that repeats its requests itself, or must not."""
        return await each_step(flow, self._do)

    async def _do(self, step: Request | Sleep) -> Any:
        if isinstance(step, Sleep):
            import asyncio  # a quarter of our import time, and no use to a sync client

            return await asyncio.sleep(step.seconds)
        return await self.transport.send(step)
