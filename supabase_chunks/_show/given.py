"""A sync's progress in a bar that the caller gives: one of rich or of tqdm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from supabase_chunks._show.tracker import Tracker

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from supabase_chunks._show.words import Counts


@runtime_checkable
class TqdmBar(Protocol):
    """What a bar of tqdm has, as far as it is needed here."""

    n: float
    total: float | None

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Show words behind the bar."""

    def refresh(self) -> object:
        """Draw it."""


class GivenRich:
    """A task of its own in a rich `Progress`, which the caller starts and stops."""

    def __init__(self, bar: RichProgress) -> None:
        """Take the caller's bars."""
        self._bar = bar
        self._task = bar.add_task("sync", total=None)

    def update(self, progress: Counts) -> None:
        """Move the task."""
        done, total = amounts(progress)
        self._bar.update(self._task, completed=done, total=total, description=progress.kind)

    def note(self, text: str) -> None:
        """Print the note above the bars."""
        self._bar.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Draw the last state."""
        self._bar.refresh()


class GivenTqdm:
    """A bar of tqdm, which the caller closes."""

    def __init__(self, bar: TqdmBar) -> None:
        """Take the caller's bar."""
        self._bar = bar
        self._tracker = Tracker()

    def update(self, progress: Counts) -> None:
        """Move the bar, and say behind it what is not a count."""
        self._tracker.update(progress)
        self._bar.n, self._bar.total = amounts(progress)
        self._bar.set_postfix_str(self._tracker.words, refresh=False)
        self._bar.refresh()

    def note(self, text: str) -> None:
        """Show the note behind the bar until the next change."""
        self._bar.set_postfix_str(text)

    def close(self) -> None:
        """Leave the bar to its owner."""


def amounts(progress: Counts) -> tuple[int, int]:
    """Return what is done and what there is: items where their number is known, else chunks."""
    if progress.items_total:
        return progress.items_processed, max(progress.items_total, progress.items_processed)
    return progress.ended_chunks, progress.total_chunks
