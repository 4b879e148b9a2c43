"""Heartbeats of all held chunks, in a thread and on a connection of their own.

A handler that keeps the interpreter or the event loop busy must not stop them: only the death of the process,
or the loss of the database, lets a lease run out.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from . import operations
from ._bounds import MOST_EXTENDED
from ._flow import logger, stopped_once
from .errors import ChunksError, StatementTimeout

if TYPE_CHECKING:
    from ._encode import JSON
    from ._worker_core import WorkerCore
    from .chunk import HeldChunk
    from .client import ChunksClient

# Heartbeats also carry what a handler reports, and somebody looks at it.
_MOST_SECONDS = 15.0


class Heartbeat:
    """Extends the leases of a core's chunks every 15 s, or every third of a short lease, in its block."""

    def __init__(self, client: ChunksClient, core: WorkerCore, lease: float) -> None:
        """Take a client of its own (closed at the end), whose chunks, and the lease in seconds."""
        self._client = client
        self._core = core
        self._interval = min(_MOST_SECONDS, lease / 3)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._beat_until_stopped, name="supabase-chunks-heartbeat", daemon=True
        )

    def __enter__(self) -> Heartbeat:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop it; a heartbeat on its way is not waited for long."""
        self._stop.set()
        self._thread.join(timeout=1.0)
        self._client.close()

    def _beat_until_stopped(self) -> None:
        pause = self._interval
        while not self._stop.wait(pause):
            pause = self._interval
            held = [chunk for chunk in self._core.held() if not chunk._life.is_lost]
            try:
                for start in range(0, len(held), MOST_EXTENDED):
                    self._beat(held[start : start + MOST_EXTENDED])
            except ChunksError as error:
                # At least two thirds of the lease are left: try sooner than usual.
                pause = self._interval / 4
                if not self._stop.is_set():
                    logger.warning("a heartbeat failed, next try in %.1f s: %s", pause, error)
            except Exception:
                # A heartbeat on its way at the end finds its connection closed.
                if not self._stop.is_set():
                    logger.exception("a heartbeat failed unexpectedly")

    def _beat(self, held: list[HeldChunk]) -> None:
        """Extend leases; where somebody holds a job's lock for long, those of the other jobs all the same."""
        try:
            self._extend(held)
        except StatementTimeout as error:
            jobs = {chunk.job_id for chunk in held}
            if len(jobs) == 1:
                raise
            for job_id in jobs:
                try:
                    self._extend([chunk for chunk in held if chunk.job_id == job_id])
                except StatementTimeout:
                    logger.warning("the leases of the job %s could not be extended: %s", job_id, error)

    def _extend(self, held: list[HeldChunk]) -> None:
        leases: list[JSON] = [chunk._life.heartbeat() for chunk in held]
        flow = operations.extend_chunk_leases(leases=leases, lease_seconds=self._core.holder.lease_seconds)
        for chunk, answer in zip(held, self._client._driver.run(stopped_once(flow)), strict=True):
            news = chunk._life.heard(answer)
            if news is not None:
                logger.log(logging.WARNING if chunk._life.is_lost else logging.INFO, "%r: %s", chunk, news)
