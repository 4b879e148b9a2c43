"""A job followed from snapshot to snapshot: what a display of any sort shows."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from supabase_chunks._show import words
from supabase_chunks.states import JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from supabase_chunks._show.words import Counts

_RATE_WINDOW = 30.0
_RATE_MIN = 0.5
_MOST_BEFORE_END = 99.0


class Tracker:
    """Turns snapshots into a percentage that only grows, a rate, and words."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the clock, in seconds."""
        self.percent: float = 0.0
        self.last: Counts | None = None
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, job: Counts) -> None:
        """Take a snapshot."""
        self.last = job
        now = self._clock()
        self._seen.append((now, job.items_processed if words.has_items(job) else job.ended_chunks))
        while len(self._seen) > 2 and now - self._seen[0][0] > _RATE_WINDOW:
            self._seen.popleft()
        if job.status is JobStatus.COMPLETED:
            self.percent = 100.0
        else:
            most = 100.0 if job.ended else _MOST_BEFORE_END
            self.percent = max(self.percent, min(job.percent_complete, most))

    @property
    def rate(self) -> float | None:
        """Items a second (chunks, when the job has no items) over the last half a minute."""
        if len(self._seen) < 2:
            return None
        (start, before), (end, after) = self._seen[0], self._seen[-1]
        return (after - before) / (end - start) if end - start >= _RATE_MIN and after > before else None

    @property
    def counts(self) -> str:
        """What is done of what there is, as in `12/40 chunks · 5,000/20,000 items`."""
        return "" if self.last is None else words.counts(self.last)

    @property
    def words(self) -> str:
        """Everything beside the counts, the worst first, as in `1 failed · 2 min left · 35 items/s`."""
        job = self.last
        if job is None:
            return "waiting"
        # Of a failed job the number of failed chunks says it.
        plain = job.status in (JobStatus.RUNNING, JobStatus.FAILED)
        parts = [*([] if plain else [str(job.status)]), *words.troubles(job)]
        if job.eta_seconds is not None and job.status is JobStatus.RUNNING:
            parts.append(f"{words.duration(job.eta_seconds)} left")
        if self.rate is not None:
            rate = f"{self.rate:,.0f}" if self.rate >= 10 else f"{self.rate:.2g}"
            parts.append(f"{rate} {'items' if words.has_items(job) else 'chunks'}/s")
        return " · ".join(parts)
