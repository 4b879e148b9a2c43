"""One bar in a notebook's cell, by IPython's own display handle: no widgets needed."""

from __future__ import annotations

from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

from supabase_chunks._show.html import bar
from supabase_chunks._show.tracker import Tracker

if TYPE_CHECKING:
    from supabase_chunks._show.words import Counts


_TEXT_WIDTH = 24


class Notebook:
    """The bar, with notes below it."""

    def __init__(self) -> None:
        """Open the cell's output."""
        self._tracker = Tracker()
        self._notes: list[str] = []
        self._ipython: Any = import_module("IPython.display")
        self._handle = self._ipython.display(self._shown(), display_id=True)

    def update(self, progress: Counts) -> None:
        """Redraw the bar."""
        self._tracker.update(progress)
        self._handle.update(self._shown())

    def note(self, text: str) -> None:
        """Add the note below the bar."""
        self._notes.append(text)
        self._handle.update(self._shown())

    def close(self) -> None:
        """Do nothing: the last picture stands."""

    def _shown(self) -> Shown:
        return Shown(bar_html(self._tracker, self._notes), bar_text(self._tracker, self._notes))


class Shown:
    """What is shown: as HTML, or as text where that is not."""

    def __init__(self, html: str, text: str) -> None:
        """Take both."""
        self._html = html
        self._text = text

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:  # noqa: ARG002 - as IPython calls it
        return {"text/html": self._html, "text/plain": self._text}


def bar_text(tracker: Tracker, notes: list[str]) -> str:
    """Return a bar with its counts as text."""
    full = round(tracker.percent * _TEXT_WIDTH / 100)
    name = "sync" if tracker.last is None else tracker.last.kind
    parts = [part for part in (tracker.counts, tracker.words) if part]
    bar = f"{name} │{'█' * full:<{_TEXT_WIDTH}}│ {tracker.percent:.0f}% {' · '.join(parts)}"
    return "\n".join([bar, *notes])


def bar_html(tracker: Tracker, notes: list[str]) -> str:
    """Return a bar with its counts as HTML."""
    job, percent = tracker.last, tracker.percent
    lines = "".join(f"<div><small>{escape(note)}</small></div>" for note in notes)
    return (
        f"<div><b>{escape('sync' if job is None else job.kind)}</b> {bar(job, percent)} "
        f"{percent:.0f}% {escape(tracker.counts)} <small>{escape(tracker.words)}</small></div>{lines}"
    )
