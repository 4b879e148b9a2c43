"""The bars of a timeline, drawn as few collections however many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from supabase_chunks._show.palette import OF_STATE
from supabase_chunks.states import ChunkStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

    from supabase_chunks._show.spans import SpanView

_HEIGHT = 0.72
# In pixels: what a bar alone in its place has at least, how far from others that is, and what a failure has.
_LEAST, _ALONE, _LEAST_FAILED = 1.0, 4.0, 2.0
_WIDE, _EDGE = 24.0, 0.8

S = TypeVar("S", bound="SpanView")


class Bar(NamedTuple):
    """A bar: its row, its left edge and its width in seconds."""

    row: int
    left: float
    width: float


def bars_of(
    line: Sequence[S], row: int, start: datetime, now: datetime, pixel: float
) -> Iterator[tuple[Bar, S]]:
    """Give the bars of a line, each with its span.

    Args:
        line: The spans in the order of their start.
        row: Which line it is.
        start: When the picture begins.
        now: Where a span ends that runs.
        pixel: How many seconds a pixel is.
    """
    edges = [
        ((span.start - start).total_seconds(), ((span.end or now) - start).total_seconds()) for span in line
    ]
    for index, (span, (left, right)) in enumerate(zip(line, edges, strict=True)):
        width = max(0.0, right - left)
        before = edges[index - 1][1] if index else left - _ALONE * pixel
        after = edges[index + 1][0] if index + 1 < len(edges) else right + _ALONE * pixel
        if span.status is ChunkStatus.FAILED and span.outcome is None:
            width = max(width, _LEAST_FAILED * pixel)
        elif min(left - before, after - right) >= (_ALONE - 1e-6) * pixel:
            width = max(width, _LEAST * pixel)
        yield Bar(row, left, width), span


def draw_bars(ax: Axes, bars: dict[tuple[str, str], list[Bar]], pixel: float) -> None:
    """Draw bars by what they are called and their colour, what failed above the others.

    Wide bars have an edge of the background's colour, which parts those that touch; on thin ones it would be
    all that is seen.
    """
    from matplotlib.collections import PolyCollection

    half = _HEIGHT / 2
    for (name, colour), each in bars.items():
        corners = [
            (
                (bar.left, bar.row - half),
                (bar.left + bar.width, bar.row - half),
                (bar.left + bar.width, bar.row + half),
                (bar.left, bar.row + half),
            )
            for bar in each
        ]
        above = 3 if colour == OF_STATE[ChunkStatus.FAILED] else 2
        edges = [_EDGE if bar.width > _WIDE * pixel else 0.0 for bar in each]
        drawn = PolyCollection(corners, facecolors=colour, linewidths=edges, zorder=above, label=name)
        drawn.set_edgecolor(ax.get_facecolor())
        # Edges are rounded to whole pixels: half covered ones, one above the other, would be too pale.
        drawn.set_snap(True)
        drawn.set_antialiased(False)
        ax.add_collection(drawn, autolim=False)


def swatch(colour: str) -> Patch:
    """Return what stands for a colour in a legend."""
    from matplotlib.patches import Patch

    return Patch(color=colour, linewidth=0)
