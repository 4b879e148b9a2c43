"""The lists of jobs and of kinds, in as many columns as there is room for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supabase_chunks._show import words

from .output import age, table, width_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from supabase_chunks import Progress

_SHORT = 8
# To what the names are shortened before the ids are.
_LEAST = 8
_ELASTIC = ("KIND", "KEY")


def job_table(jobs: Sequence[Progress], room: int | None) -> list[str]:
    """Return the lines of a list of jobs.

    What failed, and the keys, have a column where there are some. In a narrow terminal the ids are shortened
    to their beginning, which every command takes, and then the keys are left out.

    Args:
        jobs: The jobs.
        room: How long a line may be.
    """
    columns: dict[str, Callable[[Progress], str]] = {
        "JOB": lambda job: str(job.id),
        "KIND": lambda job: job.kind,
        "STATUS": lambda job: "stalled" if job.stalled else str(job.status),
        "CHUNKS": lambda job: f"{job.completed_chunks:,}/{job.total_chunks:,}",
        "FAILED": lambda job: f"{job.failed_chunks:,}" if job.failed_chunks else "",
        "DONE": lambda job: f"{words.done_percent(job):.0f}%",
        "AGE": lambda job: age(job.created_at),
        "KEY": lambda job: job.job_key or "",
    }
    for name in ("FAILED", "KEY"):
        if not any(columns[name](job) for job in jobs):
            del columns[name]
    if not _fits(columns, jobs, room):
        columns["JOB"] = lambda job: str(job.id)[:_SHORT]
    if not _fits(columns, jobs, room):
        columns.pop("KEY", None)
    rows = [[of(job) for of in columns.values()] for job in jobs]
    elastic = [column for column, name in enumerate(columns) if name in _ELASTIC]
    return table(list(columns), rows, elastic=elastic, room=room, status=2)


def _fits(columns: dict[str, Callable[[Progress], str]], jobs: Sequence[Progress], room: int | None) -> bool:
    """Return whether all columns have room when the names are as short as they may be."""
    if room is None:
        return True
    needed = 2 * (len(columns) - 1)
    for name, of in columns.items():
        width = max(len(name), *(width_of(of(job)) for job in jobs))
        needed += min(width, _LEAST) if name in _ELASTIC else width
    return needed <= room
