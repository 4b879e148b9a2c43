"""The words for a job's counts, the same wherever they are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime

    from supabase_chunks.states import JobStatus


class Counts(Protocol):
    """What is shown of a job; a `Progress` has it."""

    kind: str
    status: JobStatus
    total_chunks: int
    pending_chunks: int
    processing_chunks: int
    completed_chunks: int
    failed_chunks: int
    cancelled_chunks: int
    retrying_chunks: int
    items_total: int | None
    items_processed: int
    percent_complete: float
    eta_seconds: float | None

    @property
    def ended(self) -> bool:
        """Whether nothing happens any more."""
        ...

    @property
    def ended_chunks(self) -> int:
        """How many chunks are completed, failed or cancelled."""
        ...


def counts(job: Counts) -> str:
    """Return what is done of what there is, as in `12/40 chunks · 5,000/20,000 items`."""
    text = f"{job.completed_chunks:,}/{job.total_chunks:,} chunks"
    if has_items(job):
        total = "" if job.items_total is None else f"/{job.items_total:,}"
        text += f" · {job.items_processed:,}{total} items"
    return text


def troubles(job: Counts) -> list[str]:
    """Return what did not go straight, the worst first, as in `1 failed` and `3 retrying`."""
    return _counted(
        ("failed", job.failed_chunks), ("cancelled", job.cancelled_chunks), ("retrying", job.retrying_chunks)
    )


def under_way(job: Counts) -> list[str]:
    """Return what has not ended, as in `2 processing` and `6 pending`."""
    return _counted(("processing", job.processing_chunks), ("pending", job.pending_chunks))


def completed(job: Counts) -> str:
    """Return how many chunks are completed, as in `2 of 5 completed`."""
    return f"{_part(job)} completed"


def describe(job: Counts) -> str:
    """Return the state as a sentence, as in `running, 2 of 5 chunks completed, 1 failed`."""
    return ", ".join([str(job.status), f"{_part(job)} chunks completed", *troubles(job)])


def has_items(job: Counts) -> bool:
    """Whether the job counts items, and not only chunks."""
    return bool(job.items_total or job.items_processed)


def failed_percent(job: Counts) -> float:
    """Return the part of the chunks that has failed, from 0 to 100."""
    return 100 * job.failed_chunks / job.total_chunks if job.total_chunks else 0.0


def cancelled_percent(job: Counts) -> float:
    """Return the part of the chunks that was cancelled, from 0 to 100."""
    return 100 * job.cancelled_chunks / job.total_chunks if job.total_chunks else 0.0


def number(count: int, noun: str) -> str:
    """Return how many there are, as in `1 chunk` or `5,000 chunks`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def done_percent(job: Counts) -> float:
    """Return how much is done of what there is, from 0 to 100: what failed has ended, and is not done."""
    return max(0.0, job.percent_complete - failed_percent(job))


def blocked(until: datetime, reason: str | None) -> str:
    """Return until when a limit key is blocked, and why, as in `12:05:00 (429 Too Many Requests)`."""
    return f"{until.astimezone():%H:%M:%S}" + (f" ({reason})" if reason else "")


def duration(seconds: float) -> str:
    """Return seconds in words, as in `45 s`, `2 min` or `3.5 h`."""
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _part(job: Counts) -> str:
    return f"{job.completed_chunks:,} of {job.total_chunks:,}"


def _counted(*pairs: tuple[str, int]) -> list[str]:
    return [f"{count:,} {word}" for word, count in pairs if count]
