"""A bar for a terminal, and lines for a log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TextIO

from supabase_chunks._show.characters import fitting
from supabase_chunks._show.palette import GREEN, OF_STATE
from supabase_chunks._show.tracker import Tracker
from supabase_chunks.states import JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from supabase_chunks._show.words import Counts

_LINE_EVERY = 10.0


class Lines:
    """A line now and then, for logs and pipes."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        """Take where to write, and the clock in seconds."""
        self._stream = stream
        self._clock = clock
        self._tracker = Tracker(clock)
        self._last: tuple[float, float, str] | None = None

    def update(self, progress: Counts) -> None:
        """Write a line when the state changed, ten more percent are done, or ten seconds have passed."""
        self._tracker.update(progress)
        now, percent = self._clock(), self._tracker.percent
        if self._last is not None:
            at, shown, status = self._last
            if status == progress.status and percent < shown + 10 and now < at + _LINE_EVERY:
                return
        self._last = (now, percent, progress.status)
        words = f" · {self._tracker.words}" if self._tracker.words else ""
        self.note(f"{progress.kind}: {percent:.0f}% · {self._tracker.counts}{words}")

    def note(self, text: str) -> None:
        """Write the note on a line."""
        self._stream.write(f"{fitting(text, self._stream)}\n")
        if hasattr(self._stream, "flush"):
            self._stream.flush()

    def close(self) -> None:
        """Do nothing: the last line stands."""


class Bar:
    """One bar in a terminal; red as soon as a chunk has failed."""

    def __init__(self, stream: TextIO) -> None:
        """Take the terminal."""
        self._stream = stream
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column

        self._tracker = Tracker()
        self._column = BarColumn(bar_width=16)
        self._bar: RichProgress = RichProgress(
            TextColumn("{task.description}", markup=False),
            self._column,
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[counts]}"),
            # The words take what is left of the line: a narrow terminal shortens them and not the bar.
            TextColumn("[dim]{task.fields[words]}", table_column=Column(ratio=1, no_wrap=True)),
            console=Console(file=stream),
            expand=True,
        )
        self._task = self._bar.add_task("sync", total=100, counts="", words="waiting")
        self._bar.start()

    def update(self, progress: Counts) -> None:
        """Move the bar."""
        self._tracker.update(progress)
        self._column.complete_style = self._column.finished_style = bar_colour(progress)
        self._bar.update(
            self._task,
            completed=self._tracker.percent,
            description=progress.kind,
            counts=fitting(self._tracker.counts, self._stream),
            words=fitting(self._tracker.words, self._stream),
        )

    def note(self, text: str) -> None:
        """Print the note above the bar."""
        self._bar.console.print(fitting(text, self._stream), markup=False, highlight=False)

    def close(self) -> None:
        """Stop the bar where it is."""
        self._bar.stop()


def bar_colour(job: Counts) -> str:
    """Return the colour of a bar that has only one."""
    if job.failed_chunks:
        return OF_STATE[JobStatus.FAILED]
    return OF_STATE[JobStatus.CANCELLED] if job.status is JobStatus.CANCELLED else GREEN
