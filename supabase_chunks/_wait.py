"""Waiting for a job: what a person who waits is shown and told, and how it ends, for both `wait` methods."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from ._flow import Flow, Retry, retried
from ._hints import hint, hints
from ._show.words import describe
from ._watch import Watch, how_to_find
from .errors import ChunksError, JobCancelled, JobError, JobFailed
from .progress import ProgressOption, open_display
from .reads import list_chunks, list_kinds
from .states import ChunkStatus, JobStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from .models import ChunkRecord, Progress, WaitingFor

_ERRORS_SHOWN = 5
_UNCLAIMED_AFTER = 5.0


class News(NamedTuple):
    """What a look at the job has brought: a change, if there was one, and what to say."""

    progress: Progress | None
    notes: list[str]


class Waiting:
    """One `wait`: looks at the job in flows, and shows what it sees outside of them."""

    def __init__(
        self,
        job_id: UUID,
        retry: Retry,
        *,
        interval: float | None,
        timeout: float | None,
        progress: ProgressOption,
    ) -> None:
        """Take the job, and the options of `Job.wait`."""
        self._job_id = job_id
        self._retry = retry
        self._watch = Watch(job_id, retry, interval=interval, timeout=timeout)
        self._notices = Notices()
        self._is_shown = progress is not False
        self._display = open_display(progress)

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self._watch.last is not None and self._watch.last.ended

    def look(self) -> Flow[News]:
        """Pause, then look at the job.

        Raises:
            WaitTimeout: The time is over.
        """
        progress = yield from self._watch.poll()
        notes = [] if progress is None else self._notices.due(progress)
        if self._watch.last is not None and self._notices.unclaimed(self._watch.last):
            why = yield from retried(_why_unclaimed(self._watch.last.kind), self._retry)
            notes.append(why or "nobody has claimed a chunk yet")
        return News(progress, notes)

    def show(self, news: News) -> None:
        """Show a change, and say what there is to say."""
        if news.progress is not None:
            self._display.update(news.progress)
        for note in news.notes:
            self._display.note(note)

    def interrupted(self, reason: BaseException) -> None:
        """Say how to come back: to who pressed Ctrl-C, or watches while an event loop cancels the waiting."""
        self._display.close()  # or its bar would be drawn once more below the words
        if self._is_shown or isinstance(reason, KeyboardInterrupt):
            print(f"\nThe sync goes on. {how_to_find(self._job_id)}", file=sys.stderr)

    def close(self) -> None:
        """Leave the last state standing."""
        self._display.close()

    def outcome(self, *, raise_on_failure: bool) -> Flow[Progress]:
        """Return the last progress of a job that has ended.

        Raises:
            JobFailed: Some chunks failed, unless told otherwise.
            JobCancelled: It was cancelled, unless told otherwise.
        """
        last = self._watch.last
        if last is None:
            raise AssertionError("the job has not been looked at")
        if raise_on_failure and last.status in (JobStatus.FAILED, JobStatus.CANCELLED):
            failed: list[ChunkRecord] = []
            if last.failed_chunks:
                failed = yield from list_chunks(
                    parent_sync_job_id=self._job_id, status=ChunkStatus.FAILED, limit=_ERRORS_SHOWN
                )
            raise _failure(last, failed)
        return last


class Notices:
    """What a person who waits should hear, each once: paused, stalled, blocked, nobody there to work."""

    def __init__(self) -> None:
        """Start with nothing said."""
        self._said: set[str] = set()
        self._waiting_since: float | None = None

    def due(self, progress: Progress) -> list[str]:
        """Return what is to be said now."""
        resume = hint(f"client.job('{progress.id}').resume()", f"resume {progress.id}")
        paused = f"the sync is paused; {resume} goes on"
        notes = {
            "paused": paused if progress.status is JobStatus.PAUSED else None,
            "stalled": (progress.stalled_reason or "the sync is stalled") if progress.stalled else None,
            "blocked": _why_blocked(progress.waiting_for),
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
            and progress.waiting_for is None
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


def _why_blocked(waiting_for: WaitingFor | None) -> str | None:
    """Return what to say while a limit key is blocked. Waiting for a place is nothing to speak of."""
    if waiting_for is None or waiting_for.until is None:
        return None
    reason = f" ({waiting_for.reason})" if waiting_for.reason else ""
    until = waiting_for.until.astimezone()
    return f"the sync waits until {until:%H:%M:%S}: the limit key {waiting_for.key} is blocked{reason}"


def _why_unclaimed(kind: str) -> Flow[str | None]:
    """Return what to say about a job that nobody works on; None when its kind cannot be read."""
    try:
        kinds = yield from list_kinds(kinds=[kind])
    except ChunksError:
        return None
    if not kinds:
        return None
    if kinds[0].handler is None:
        worker = f"Worker(client, handler, kinds=[{kind!r}]).run()"
        return (
            f"nobody has claimed a chunk yet: the kind {kind!r} has no handler, so its chunks wait for a "
            f"Python worker: {hints(worker, f'worker MODULE:FUNCTION --kind {kind}')}"
        )
    return (
        "nobody has claimed a chunk yet: are the Edge Functions background-sync-processor and "
        f"{kinds[0].handler} deployed? supabase-chunks doctor checks it"
    )


def _failure(progress: Progress, errors: Sequence[ChunkRecord]) -> JobError:
    if progress.status is JobStatus.CANCELLED:
        return JobCancelled(f"the sync was cancelled ({describe(progress)})", progress=progress)
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
        "Open only these again with "
        + hints(f"client.job('{progress.id}').retry_failed()", f"retry {progress.id}")
    )
    return JobFailed("\n".join(lines), progress=progress, errors=errors)
