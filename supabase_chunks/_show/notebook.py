"""One bar in a notebook's cell, by IPython's own display handle: no widgets needed."""

from __future__ import annotations

from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

from supabase_chunks._show.html import bar
from supabase_chunks._show.tracker import Tracker

if TYPE_CHECKING:
    from supabase_chunks._show.words import Counts


class Notebook:
    """The bar, with notes below it."""

    def __init__(self) -> None:
        """Open the cell's output."""
        self._tracker = Tracker()
        self._notes: list[str] = []
        self._ipython: Any = import_module("IPython.display")
        self._handle = self._ipython.display(self._html(), display_id=True)

    def update(self, progress: Counts) -> None:
        """Redraw the bar."""
        self._tracker.update(progress)
        self._handle.update(self._html())

    def note(self, text: str) -> None:
        """Add the note below the bar."""
        self._notes.append(text)
        self._handle.update(self._html())

    def close(self) -> None:
        """Do nothing: the last picture stands."""

    def _html(self) -> Any:
        return self._ipython.HTML(bar_html(self._tracker, self._notes))


def bar_html(tracker: Tracker, notes: list[str]) -> str:
    """Return a bar with its counts as HTML."""
    job, percent = tracker.last, tracker.percent
    lines = "".join(f"<div><small>{escape(note)}</small></div>" for note in notes)
    return (
        f"<div><b>{escape('sync' if job is None else job.kind)}</b> {bar(job, percent)} "
        f"{percent:.0f}% {escape(tracker.counts)} <small>{escape(tracker.words)}</small></div>{lines}"
    )
