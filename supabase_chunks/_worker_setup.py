"""What both workers are set up with, and the signals that end them."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias
from uuid import uuid4

from ._flow import logger
from ._worker_core import WorkerCore
from .chunk import Chunk

Handler: TypeAlias = Callable[[Chunk], object]
"""A function or a coroutine function of a chunk; what it returns is kept as the chunk's result."""

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
    ) -> None:
        """Check them.

        Raises:
            ValueError: One of them cannot be.
        """
        if isinstance(kinds, str) or not kinds:
            raise ValueError("kinds must be a list of at least one kind")
        if concurrency < 1 or prefetch < 0:
            raise ValueError("concurrency must be at least 1, and prefetch at least 0")
        self.handler = handler
        self.grace = grace
        self.concurrency = concurrency
        self.core = WorkerCore(
            worker_id=worker_id or f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:6]}",
            kinds=kinds,
            concurrency=concurrency,
            prefetch=prefetch,
            lease_seconds=lease_seconds,
        )


@contextmanager
def signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGTERM and SIGINT stop the worker; a second one does what it would do without us."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        before.clear()

    def handle(number: int, _frame: object) -> None:
        logger.info("%s: no new chunks, waiting for the running ones", signal.Signals(number).name)
        restore()
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
