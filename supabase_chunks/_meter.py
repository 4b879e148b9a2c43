"""Numbers and words for a sync's progress, whatever shows them."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from .models import JobStatus, Progress

if TYPE_CHECKING:
    from collections.abc import Callable

_RATE_WINDOW = 30.0
_RATE_MIN = 0.5
_MOST_BEFORE_END = 99.0


class Meter:
    """What the displays show, from the snapshots: a percentage that only grows, a rate, an ETA, words."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the clock, in seconds."""
        self.percent: float = 0.0
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()
        self._progress: Progress | None = None

    def update(self, progress: Progress) -> None:
        """Take a snapshot."""
        self._progress = progress
        now = self._clock()
        self._seen.append((now, self._done(progress)))
        while len(self._seen) > 2 and now - self._seen[0][0] > _RATE_WINDOW:
            self._seen.popleft()
        if progress.status is JobStatus.COMPLETED:
            self.percent = 100.0
        elif progress.ended:
            self.percent = max(self.percent, min(progress.percent_complete, 100.0))
        else:
            self.percent = max(self.percent, min(progress.percent_complete, _MOST_BEFORE_END))

    @property
    def failed_percent(self) -> float:
        """The part of the chunks that has failed, from 0 to 100."""
        return 0.0 if self._progress is None else min(failed_percent(self._progress), self.percent)

    @property
    def rate(self) -> float | None:
        """Items a second (chunks, when the job has no items) over the last half a minute."""
        if len(self._seen) < 2:
            return None
        (start, before), (end, after) = self._seen[0], self._seen[-1]
        return (after - before) / (end - start) if end - start >= _RATE_MIN and after > before else None

    @property
    def counts(self) -> str:
        """The counts, as in `12/40 chunks · 5,000/20,000 items`."""
        if self._progress is None:
            return ""
        progress = self._progress
        text = f"{progress.completed_chunks:,}/{progress.total_chunks:,} chunks"
        if self._has_items(progress):
            total = "" if progress.items_total is None else f"/{progress.items_total:,}"
            text += f" · {progress.items_processed:,}{total} items"
        return text

    @property
    def words(self) -> str:
        """Everything beside the counts, the worst first, as in `1 failed · 2 min left · 35 items/s`."""
        if self._progress is None:
            return "waiting"
        progress = self._progress
        parts = []
        # Of a failed job the number of failed chunks says it.
        if progress.status not in (JobStatus.RUNNING, JobStatus.FAILED):
            parts.append(str(progress.status))
        for count, word in (
            (progress.failed_chunks, "failed"),
            (progress.cancelled_chunks, "cancelled"),
            (progress.retrying_chunks, "retrying"),
        ):
            if count:
                parts.append(f"{count:,} {word}")
        if progress.eta_seconds is not None and progress.status is JobStatus.RUNNING:
            parts.append(f"{duration(progress.eta_seconds)} left")
        if self.rate is not None:
            rate = f"{self.rate:,.0f}" if self.rate >= 10 else f"{self.rate:.2g}"
            parts.append(f"{rate} {'items' if self._has_items(progress) else 'chunks'}/s")
        return " · ".join(parts)

    @staticmethod
    def _has_items(progress: Progress) -> bool:
        return bool(progress.items_total or progress.items_processed)

    def _done(self, progress: Progress) -> int:
        return progress.items_processed if self._has_items(progress) else progress.ended_chunks


def duration(seconds: float) -> str:
    """Return seconds in words, as in `45 s`, `2 min` or `3.5 h`."""
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def failed_percent(progress: Progress) -> float:
    """Return the part of the chunks that has failed, from 0 to 100."""
    return 100 * progress.failed_chunks / progress.total_chunks if progress.total_chunks else 0.0
