"""What both workers are set up with, and the signals that end them."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

from ._flow import logger
from ._typed import Typed
from ._worker_core import WorkerCore
from .chunk import AsyncChunk, Chunk, P

if TYPE_CHECKING:
    from types import FrameType

Handler: TypeAlias = Callable[[Chunk[P]], object]
"""A function or a coroutine function of a chunk; what it returns is kept as the chunk's result."""
AsyncHandler: TypeAlias = Callable[[AsyncChunk[P]], Awaitable[object]]
"""A coroutine function of a chunk whose methods are awaited."""

LINGER = 0.002
"""Seconds that a report waits for others: one call is less than many."""


class Options:
    """What both workers are set up with."""

    def __init__(
        self,
        handler: Callable[[Any], object],
        kinds: Sequence[str],
        concurrency: int,
        prefetch: int,
        worker_id: str | None,
        lease_seconds: int | None,
        grace: float,
        handle_signals: bool,
        payload: Any = None,
    ) -> None:
        """Check them.

        Raises:
            TypeError: The handler cannot be called.
            ValueError: One of them cannot be.
            InvalidArgument: The type of payloads cannot be checked.
        """
        if not callable(handler):
            raise TypeError(f"handler must be a function of a chunk, not {type(handler).__name__}")
        if isinstance(kinds, str) or not kinds:
            raise ValueError("kinds must be a list of at least one kind")
        if concurrency < 1 or prefetch < 0:
            raise ValueError("concurrency must be at least 1, and prefetch at least 0")
        self.handler = handler
        self.grace = grace
        self.concurrency = concurrency
        self._handle_signals = handle_signals
        self._named_in = os.getpid() if worker_id is None else None
        self.core = WorkerCore(
            worker_id=worker_id or _new_name(),
            kinds=kinds,
            concurrency=concurrency,
            prefetch=prefetch,
            lease_seconds=lease_seconds,
            payload=None if payload is None else Typed(payload, "payload"),
        )

    def name_in_this_process(self) -> None:
        """Name a worker anew that was set up before a fork: each process has its own."""
        if self._named_in not in (None, os.getpid()):
            self._named_in = os.getpid()
            self.core.worker_id = _new_name()

    def signals(self, stop: Callable[[], None]) -> AbstractContextManager[None]:
        """Return a block in which SIGTERM and SIGINT stop the worker, if they may."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        return _stopping_by_signal(stop) if self._handle_signals and in_main_thread else nullcontext()


def _new_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:6]}"


@contextmanager
def _stopping_by_signal(stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGTERM and SIGINT stop the worker; of the first one a server around it, as uvicorn, is told too.

    The second one does what it would do without us, and so does the first in a process that was forked.
    """
    before: dict[int, Any] = {}
    process = os.getpid()

    def restore() -> None:
        for number, handler in before.items():
            if signal.getsignal(number) is caught:  # else somebody has installed another since
                signal.signal(number, handler)

    def caught(number: int, frame: FrameType | None) -> None:
        restore()
        if os.getpid() != process:
            os.kill(os.getpid(), number)
            return
        logger.info("%s: no new chunks, waiting for the running ones", signal.Signals(number).name)
        stop()
        if _is_the_applications(before[number]):
            before[number](number, frame)

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, caught)
    try:
        yield
    finally:
        restore()


def _is_the_applications(handler: Any) -> bool:
    """Whether somebody has installed a handler: Python's own would end us at once."""
    if handler in (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, None):
        return False
    # asyncio.run() cancels the main task at SIGINT.
    function = getattr(handler, "func", handler)
    return getattr(function, "__module__", None) != "asyncio.runners"
