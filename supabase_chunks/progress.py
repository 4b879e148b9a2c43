"""What a person sees while a sync runs: a bar in a terminal or a notebook, plain lines in a log.

A sync's total often grows while it runs, as when a planning chunk finds out what there is to do. A bar
therefore never goes back and never stands at 100 % before the job has ended; the counts beside it are true.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol, TextIO, TypeAlias

from ._loop import in_notebook
from ._show.characters import is_terminal
from ._show.given import GivenRich, GivenTqdm, TqdmBar
from ._show.notebook import Notebook
from ._show.terminal import Bar, Lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress as RichProgress

    from .models import Progress

ProgressOption: TypeAlias = "bool | Callable[[Progress], None] | RichProgress | TqdmBar"


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
        return _given(option)
    stream = stream or sys.stderr
    if in_notebook():
        return Notebook()
    if stream is None:  # as under pythonw
        return Silent()
    return Bar(stream) if is_terminal(stream) else Lines(stream)


def _given(option: RichProgress | TqdmBar) -> Display:
    """Return the display for a bar of the caller's."""
    if isinstance(option, TqdmBar):
        return GivenTqdm(option)
    rich = sys.modules.get("rich.progress")
    if rich is not None and isinstance(option, rich.Progress):
        return GivenRich(option)
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
