"""When each chunk of a job ran, as text and as a picture in a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, overload

from ._show.characters import fitting
from ._show.palette import OF_STATE

if TYPE_CHECKING:
    from datetime import datetime

    from matplotlib.axes import Axes

    from .models import ChunkRecord
    from .states import ChunkStatus

_TEXT_WIDTH = 60
_ROWS_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Span:
    """One chunk's last attempt; `end` is None while it runs."""

    chunk_index: int
    status: ChunkStatus
    start: datetime
    end: datetime | None
    worker_id: str | None
    attempts: int

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        return None if self.end is None else (self.end - self.start).total_seconds()


class Timeline(Sequence[Span]):
    """The spans of a job's chunks in the order of their start; prints as a chart.

    Example:
        >>> str(Timeline([]))
        'no chunk has started yet'
    """

    def __init__(self, spans: Sequence[Span]) -> None:
        """Take the spans."""
        self._spans = sorted(spans, key=lambda span: (span.start, span.chunk_index))

    @classmethod
    def of(cls, chunks: Sequence[ChunkRecord]) -> Timeline:
        """Return the timeline of the chunks that have started."""
        return cls(
            [
                Span(c.chunk_index, c.status, c.started_at, c.completed_at, c.worker_id, c.attempts)
                for c in chunks
                if c.started_at is not None
            ]
        )

    def __len__(self) -> int:
        """Return the number of spans."""
        return len(self._spans)

    @overload
    def __getitem__(self, index: int) -> Span: ...

    @overload
    def __getitem__(self, index: slice) -> list[Span]: ...

    def __getitem__(self, index: int | slice) -> Span | list[Span]:
        """Return one span, or a list of them for a slice."""
        return self._spans[index]

    def __iter__(self) -> Iterator[Span]:
        """Go through the spans."""
        return iter(self._spans)

    def __str__(self) -> str:
        """Return the chart as text, a line a chunk."""
        if not self._spans:
            return "no chunk has started yet"
        lines = []
        for span, left, width in self._bars():
            bar = " " * round(left * _TEXT_WIDTH) + "█" * max(1, round(width * _TEXT_WIDTH))
            took = "running" if span.seconds is None else f"{span.seconds:.2f} s"
            again = f", attempt {span.attempts}" if span.attempts > 1 else ""
            lines.append(
                f"{span.chunk_index:>6} │{bar[:_TEXT_WIDTH]:<{_TEXT_WIDTH}}│ {span.status}, {took}{again}"
            )
        return fitting("\n".join(lines + self._left_out()))

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw who worked when with matplotlib (the extra `plots`), and return the axes.

        Args:
            ax: Where to draw; a new figure unless given.

        Raises:
            ConfigurationError: matplotlib is not installed.
        """
        from ._show.plots import draw_timeline

        return draw_timeline(self._spans, ax)

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<div title="chunk {span.chunk_index}, {escape(span.worker_id or "")}, attempt {span.attempts}" '
            f'style="margin:1px 0 0 {left * 100:.2f}%;width:{max(width * 100, 0.3):.2f}%;height:6px;'
            f'background:{OF_STATE[span.status]}"></div>'
            for span, left, width in self._bars()
        )
        note = "".join(f"<small>{escape(line)}</small>" for line in self._left_out())
        return f'<div style="max-width:60em">{rows or escape(str(self))}</div>{note}'

    def _bars(self) -> Iterator[tuple[Span, float, float]]:
        """Give each span with its left edge and width as parts of the whole."""
        if not self._spans:
            return
        start = self._spans[0].start
        end = max(span.end or span.start for span in self._spans)
        whole = max((end - start).total_seconds(), 1e-6)
        for span in self._spans[:_ROWS_SHOWN]:
            left = (span.start - start).total_seconds() / whole
            until = ((span.end or end) - start).total_seconds() / whole
            yield span, left, max(0.0, until - left)

    def _left_out(self) -> list[str]:
        more = len(self._spans) - _ROWS_SHOWN
        return [f"… and {more} more"] if more > 0 else []
