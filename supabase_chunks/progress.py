"""What a person sees while a sync runs: a bar in a terminal or a notebook, plain lines in a log.

A sync's total often grows while it runs, as when a planning chunk finds out what there is to do. A bar
therefore never goes back and never stands at 100 % before the job has ended; the counts beside it are true.
"""

from __future__ import annotations

import sys
import time
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TextIO, TypeAlias

from ._html import bar
from ._meter import Meter
from ._own_bar import OwnRich, OwnTqdm, TqdmBar

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress as RichProgress

    from .models import Progress

ProgressOption: TypeAlias = "bool | Callable[[Progress], None] | RichProgress | TqdmBar"

_LINE_EVERY = 10.0


class Display(Protocol):
    """Somewhere to show a sync's progress."""

    def update(self, progress: Progress) -> None:
        """Show a snapshot."""

    def note(self, text: str) -> None:
        """Say something that is not a count."""

    def close(self) -> None:
        """Leave the last state standing."""


def open_display(option: ProgressOption, stream: TextIO | None = None) -> Display:
    """Return the display for `wait(progress=…)`.

    Args:
        option: False, True (whatever suits where the output goes), a function of a Progress, or a bar of the
            caller's: a `rich.progress.Progress` or one of tqdm.
        stream: Where to write; stderr unless told otherwise.

    Raises:
        TypeError: It is none of these.
    """
    if callable(option):
        return Callback(option)
    if option is False or option is None:
        return Silent()
    if option is not True:
        return _own(option)
    stream = stream or sys.stderr
    if _in_notebook():
        return Notebook()
    if stream is None:  # as under pythonw
        return Silent()
    return Bar(stream) if stream.isatty() else Lines(stream)


def _own(option: RichProgress | TqdmBar) -> Display:
    """Return the display for the caller's own bar."""
    if isinstance(option, TqdmBar):
        return OwnTqdm(option)
    rich = sys.modules.get("rich.progress")
    if rich is not None and isinstance(option, rich.Progress):
        return OwnRich(option)
    raise TypeError(
        f"progress= takes True, a function, or a bar of rich or tqdm, not {type(option).__name__}"
    )


class Silent:
    """Shows nothing; notes go to the log."""

    def update(self, progress: Progress) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Log the note as a warning."""
        import logging

        logging.getLogger("supabase_chunks").warning("%s", text)

    def close(self) -> None:
        """Do nothing."""


class Callback(Silent):
    """Hands each snapshot to a function of the user's."""

    def __init__(self, function: Callable[[Progress], None]) -> None:
        """Take the function."""
        self._function = function

    def update(self, progress: Progress) -> None:
        """Call the function."""
        self._function(progress)


class Lines:
    """A line now and then, for logs and pipes."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        """Take where to write, and the clock in seconds."""
        self._stream = stream
        self._clock = clock
        self._meter = Meter(clock)
        self._last: tuple[float, float, str] | None = None

    def update(self, progress: Progress) -> None:
        """Write a line when the state changed, ten more percent are done, or ten seconds have passed."""
        self._meter.update(progress)
        now, percent = self._clock(), self._meter.percent
        if self._last is not None:
            at, shown, status = self._last
            if status == progress.status and percent < shown + 10 and now < at + _LINE_EVERY:
                return
        self._last = (now, percent, progress.status)
        words = f" · {self._meter.words}" if self._meter.words else ""
        self._write(f"{progress.kind}: {percent:.0f}% · {self._meter.counts}{words}")

    def note(self, text: str) -> None:
        """Write the note on a line."""
        self._write(text)

    def close(self) -> None:
        """Do nothing: the last line stands."""

    def _write(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Bar:
    """One bar in a terminal."""

    def __init__(self, stream: TextIO) -> None:
        """Take the terminal."""
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column

        self._meter = Meter()
        self._bar: RichProgress = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[counts]}"),
            # The words take what is left of the line: a narrow terminal shortens them and not the bar.
            TextColumn("[dim]{task.fields[words]}", table_column=Column(ratio=1, no_wrap=True)),
            console=Console(file=stream),
            expand=True,
        )
        self._task = self._bar.add_task("sync", total=100, counts="", words="waiting")
        self._bar.start()

    def update(self, progress: Progress) -> None:
        """Move the bar."""
        self._meter.update(progress)
        self._bar.update(
            self._task,
            completed=self._meter.percent,
            description=progress.kind,
            counts=self._meter.counts,
            words=self._meter.words,
        )

    def note(self, text: str) -> None:
        """Print the note above the bar."""
        self._bar.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Stop the bar where it is."""
        self._bar.stop()


class Notebook:
    """One bar in a notebook's cell, by IPython's own display handle: no widgets needed."""

    def __init__(self) -> None:
        """Open the cell's output."""
        self._meter = Meter()
        self._notes: list[str] = []
        self._title = "sync"
        self._ipython: Any = import_module("IPython.display")
        self._handle = self._ipython.display(self._html(), display_id=True)

    def update(self, progress: Progress) -> None:
        """Redraw the bar."""
        self._meter.update(progress)
        self._title = progress.kind
        self._handle.update(self._html())

    def note(self, text: str) -> None:
        """Add the note below the bar."""
        self._notes.append(text)
        self._handle.update(self._html())

    def close(self) -> None:
        """Do nothing: the last picture stands."""

    def _html(self) -> Any:
        return self._ipython.HTML(bar_html(self._title, self._meter, self._notes))


def bar_html(title: str, meter: Meter, notes: list[str]) -> str:
    """Return a bar with its counts as HTML."""
    lines = "".join(f"<div><small>{escape(note)}</small></div>" for note in notes)
    return (
        f"<div><b>{escape(title)}</b> {bar(meter.percent, meter.failed_percent)} "
        f"{meter.percent:.0f}% {escape(meter.counts)} <small>{escape(meter.words)}</small></div>{lines}"
    )


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs us; IPython in a terminal has a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")
