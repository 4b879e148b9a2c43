"""The palette in a terminal, in as many colours as it has, or in none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol, TextIO

from supabase_chunks._show.characters import is_terminal
from supabase_chunks._show.palette import AMBER, OF_STATE

if TYPE_CHECKING:
    from rich.color import ColorSystem


class Paint(Protocol):
    """Gives a text a colour of the palette, or leaves it."""

    def __call__(self, text: str, colour: str | None) -> str:
        """Return the text as it is written."""
        ...


def paint_for(stream: TextIO) -> Paint:
    """Return how a stream is painted: not at all where nobody looks, or NO_COLOR says so."""
    system = _colour_system(stream)
    if system is None:
        return lambda text, colour: text  # noqa: ARG005 - no colour is painted
    from rich.style import Style

    known: dict[str, Style] = {}

    def paint(text: str, colour: str | None) -> str:
        if colour is None:
            return text
        style = known.setdefault(colour, Style(color=colour))
        return style.render(text, color_system=system)

    return paint


def of_status(status: str) -> str | None:
    """Return a state's colour; that of what stands still and should not, too."""
    return AMBER if status == "stalled" else OF_STATE.get(status)


def _colour_system(stream: TextIO) -> ColorSystem | None:
    if not is_terminal(stream) or os.environ.get("NO_COLOR"):
        return None
    from rich.color import ColorSystem
    from rich.console import Console

    systems = {
        "standard": ColorSystem.STANDARD,
        "256": ColorSystem.EIGHT_BIT,
        "truecolor": ColorSystem.TRUECOLOR,
    }
    return systems.get(Console(file=stream).color_system or "")
