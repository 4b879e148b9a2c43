"""Following a job: when to ask again, and what counts as a change."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from ._flow import Flow, Retry, retried, sleep
from ._hints import hints
from ._show.words import describe
from .errors import ChunksError, TransportError, WaitTimeout
from .operations import get_sync_job_progress_safe

if TYPE_CHECKING:
    from uuid import UUID

    from .models import Progress

_FIRST_PAUSE = 0.15
_LAST_PAUSE = 5.0


class Watch:
    """The state between the polls of one watching: what was seen last, how long to pause, when to stop.

    The pause grows while nothing happens. When something does, it starts again short, but the longer the
    watching lasts the less short: a sync of hours is not asked about six times a second.
    """

    def __init__(self, job_id: UUID, retry: Retry, *, interval: float | None, timeout: float | None) -> None:
        """Take the seconds between polls (None: adaptive) and until `WaitTimeout` (None: never)."""
        self.last: Progress | None = None
        self._job_id = job_id
        self._retry = retry.patient()
        self._interval = interval
        self._timeout = timeout
        self._start = time.monotonic()
        self._deadline = None if timeout is None else self._start + timeout
        self._pause = _FIRST_PAUSE

    def poll(self) -> Flow[Progress | None]:
        """Pause, then read the progress once; return it if it is a change, else None.

        Raises:
            WaitTimeout: The time is over.
        """
        if self.last is not None:
            yield from sleep(self._next_pause())
        self._check_time()
        try:
            read = get_sync_job_progress_safe(parent_sync_job_id=self._job_id)
            progress = yield from retried(read, self._retry, deadline=self._deadline)
        except ChunksError as error:
            if error.retryable or isinstance(error, TransportError):
                self._check_time()
            raise
        if self.last is not None and _essence(progress) == _essence(self.last):
            return None
        self._pause = max(_FIRST_PAUSE, min(1.0, (time.monotonic() - self._start) / 50))
        self.last = progress
        return progress

    def _next_pause(self) -> float:
        jitter = random.uniform(0.9, 1.1)  # noqa: S311 - jitter, no secret
        seconds = (self._pause if self._interval is None else self._interval) * jitter
        self._pause = min(_LAST_PAUSE, self._pause * 1.5)
        if self._deadline is None:
            return seconds
        return max(0.0, min(seconds, self._deadline - time.monotonic()))

    def _check_time(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            state = "no answer came" if self.last is None else f"it is {describe(self.last)}"
            raise WaitTimeout(
                f"the sync did not end within {self._timeout:g} s ({state}); it goes on. "
                f"{how_to_find(self._job_id)}",
                progress=self.last,
            )


def how_to_find(job_id: UUID) -> str:
    """Return how to come back to a job."""
    return "Come back with " + hints(f"client.job('{job_id}').wait(progress=True)", f"watch {job_id}")


def _essence(progress: Progress) -> Progress:
    """Return what makes two snapshots different: an ETA that only ticks down is no change."""
    return progress.model_copy(update={"eta_seconds": None, "created": False})
