"""Following a job: when to ask again, what counts as a change, and what to say at the end."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from ._flow import Flow, Retry, retried, sleep
from ._show.words import describe
from .errors import ChunksError, JobCancelled, JobError, JobFailed, TransportError, WaitTimeout
from .operations import get_sync_job_progress_safe
from .reads import list_kinds
from .states import JobStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from .models import ChunkRecord, Progress

ERRORS_SHOWN = 5
_FIRST_PAUSE = 0.15
_LAST_PAUSE = 5.0
_UNCLAIMED_AFTER = 5.0


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


class Notices:
    """What a person who waits should hear, each once: paused, stalled, nobody there to work."""

    def __init__(self) -> None:
        """Start with nothing said."""
        self._said: set[str] = set()
        self._waiting_since: float | None = None

    def due(self, progress: Progress) -> list[str]:
        """Return what is to be said now."""
        paused = f"the sync is paused; client.job('{progress.id}').resume() goes on"
        notes = {
            "paused": paused if progress.status is JobStatus.PAUSED else None,
            "stalled": (progress.stalled_reason or "the sync is stalled") if progress.stalled else None,
        }
        for name, note in notes.items():
            if note is None:
                self._said.discard(name)
        new = [(name, note) for name, note in notes.items() if note is not None and name not in self._said]
        self._said.update(name for name, _ in new)
        return [note for _, note in new]

    def unclaimed(self, progress: Progress) -> bool:
        """Return True once, when a job has waited some seconds and nobody has claimed any of its chunks."""
        idle = (
            progress.status is JobStatus.PENDING
            and progress.processing_chunks == 0
            and progress.total_chunks > 0
        )
        if not idle or "unclaimed" in self._said:
            self._waiting_since = None
            return False
        now = time.monotonic()
        if self._waiting_since is None:
            self._waiting_since = now
        if now - self._waiting_since < _UNCLAIMED_AFTER:
            return False
        self._said.add("unclaimed")
        return True


def why_unclaimed(kind: str) -> Flow[str | None]:
    """Return what to say about a job that nobody works on; None when its kind cannot be read."""
    try:
        kinds = yield from list_kinds(kinds=[kind])
    except ChunksError:
        return None
    if not kinds:
        return None
    if kinds[0].handler is None:
        return (
            f"nobody has claimed a chunk yet: the kind {kind!r} has no handler, so its chunks wait for a "
            f"Python worker, Worker(client, handler, kinds=[{kind!r}]).run() or supabase-chunks worker"
        )
    return (
        "nobody has claimed a chunk yet: are the Edge Functions background-sync-processor and "
        f"{kinds[0].handler} deployed? supabase-chunks doctor checks it"
    )


def how_to_find(job_id: UUID) -> str:
    """Return how to come back to a job."""
    return f"Come back with client.job('{job_id}').wait(progress=True) or: supabase-chunks watch {job_id}"


def failure(progress: Progress, errors: Sequence[ChunkRecord]) -> JobError | None:
    """Return the error of a job that ended, or None if it completed."""
    if progress.status is JobStatus.CANCELLED:
        return JobCancelled(f"the sync was cancelled ({describe(progress)})", progress=progress)
    if progress.status is not JobStatus.FAILED:
        return None
    lines = [
        f"{progress.failed_chunks} of {progress.total_chunks} chunks failed "
        f"({progress.completed_chunks} completed)"
    ]
    lines += [
        f"  chunk {chunk.chunk_index}: {(chunk.error or '').strip() or 'no error text'}" for chunk in errors
    ]
    if progress.failed_chunks > len(errors) > 0:
        lines.append(f"  … and {progress.failed_chunks - len(errors)} more")
    lines.append(
        f"Open only these again with client.job('{progress.id}').retry_failed()"
        f" or: supabase-chunks retry {progress.id}"
    )
    return JobFailed("\n".join(lines), progress=progress, errors=errors)


def _essence(progress: Progress) -> Progress:
    """Return what makes two snapshots different: an ETA that only ticks down is no change."""
    return progress.model_copy(update={"eta_seconds": None, "created": False})
