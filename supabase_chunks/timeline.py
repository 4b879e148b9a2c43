"""When each chunk of a job ran, as text and as a picture in a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from ._show.characters import fitting
from ._show.chart import Piece, Row, chart
from ._show.html import Strip, strips
from ._show.spans import colour, word
from ._show.words import number

if TYPE_CHECKING:
    from datetime import datetime

    from matplotlib.axes import Axes

    from ._show.colours import Paint
    from .models import Attempt, ChunkRecord
    from .states import ChunkStatus

_ROWS_SHOWN = 200
_EMPTY = "no chunk has started yet"


@dataclass(frozen=True, slots=True)
class Span:
    """One attempt at a chunk, as a rule its last; `end` is None while it runs."""

    chunk_index: int
    status: ChunkStatus
    start: datetime
    end: datetime | None
    worker_id: str | None
    attempts: int
    outcome: str | None = None
    """What came of an attempt that another one followed, as an `Attempt` has it; None for the last one."""

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

    def __init__(self, spans: Sequence[Span], before: Sequence[Span] = ()) -> None:
        """Take the spans: of each chunk its last attempt, and those before it."""
        self._spans = sorted(spans, key=lambda span: (span.start, span.chunk_index))
        self.before: list[Span] = sorted(before, key=lambda span: (span.start, span.chunk_index))
        """The attempts that others followed, in the order of their start."""

    @classmethod
    def of(cls, chunks: Sequence[ChunkRecord], attempts: Sequence[Attempt] = ()) -> Timeline:
        """Return the timeline of the chunks that have started.

        Args:
            chunks: The chunks.
            attempts: The attempts that did not complete, of these chunks and maybe others.
        """
        known = {chunk.id: chunk for chunk in chunks}
        ends: dict[int, datetime] = {}
        before: list[Span] = []
        for attempt in attempts:
            chunk = known.get(attempt.chunk_id)
            if chunk is None or attempt.started_at is None:
                continue
            if attempt.started_at == chunk.started_at:  # the chunk's last one, which waits or has failed
                ends[chunk.id] = attempt.ended_at
                continue
            span = Span(
                chunk.chunk_index,
                chunk.status,
                attempt.started_at,
                attempt.ended_at,
                attempt.worker_id,
                attempt.attempt,
                attempt.outcome,
            )
            before.append(span)
        spans = [
            Span(
                c.chunk_index,
                c.status,
                c.started_at,
                c.completed_at or ends.get(c.id),
                c.worker_id,
                c.attempts,
            )
            for c in chunks
            if c.started_at is not None
        ]
        return cls(spans, before)

    def __len__(self) -> int:
        """Return the number of chunks that have started."""
        return len(self._spans)

    @overload
    def __getitem__(self, index: int) -> Span: ...

    @overload
    def __getitem__(self, index: slice) -> list[Span]: ...

    def __getitem__(self, index: int | slice) -> Span | list[Span]:
        """Return one chunk's span, or a list of them for a slice."""
        return self._spans[index]

    def __iter__(self) -> Iterator[Span]:
        """Go through the chunks' spans."""
        return iter(self._spans)

    @property
    def summary(self) -> str:
        """What the picture shows, in a sentence; good as the text beside an image.

        Example:
            >>> Timeline([]).summary
            'no chunk has started yet'
        """
        if not self._spans:
            return _EMPTY
        counts: dict[str, int] = {}
        for span in self._spans:
            counts[word(span)] = counts.get(word(span), 0) + 1
        workers = len({span.worker_id for span in self._spans})
        parts = [f"{count:,} {name}" for name, count in counts.items()]
        if self.before:
            parts.append(f"{number(len(self.before), 'attempt')} before the last")
        chunks, by = number(len(self._spans), "chunk"), number(workers, "worker")
        return f"{chunks} in {self._seconds:.1f} s by {by}: {', '.join(parts)}"

    def __repr__(self) -> str:
        """Return the summary."""
        return f"<Timeline {self.summary}>"

    def __str__(self) -> str:
        """Return the chart as text, a line a chunk."""
        return self.chart()

    def chart(self, *, width: int | None = None) -> str:
        """Return the chart as text, a line a chunk, with an axis of seconds below it.

        Args:
            width: How many columns a line may have; as many as are needed for 60 of bars unless given.

        Example:
            >>> print(job.timeline().chart(width=80))
            no chunk has started yet
        """
        return self.painted(None, width)

    def painted(self, paint: Paint | None, width: int | None) -> str:
        """Return the chart with its bars in their colours.

        Args:
            paint: Gives a text a colour; None leaves it.
            width: As for `chart`.

        Example:
            >>> job.timeline().painted(None, 80)
            'no chunk has started yet'
        """
        if not self._spans:
            return _EMPTY
        rows = []
        for span, bars in self._rows():
            took = "" if span.seconds is None else f", {span.seconds:.2f} s"
            again = f", attempt {span.attempts}" if span.attempts > 1 else ""
            parts = [Piece(left, length, each.outcome is None, colour(each)) for each, left, length in bars]
            rows.append(Row(span.chunk_index, parts, f"{word(span)}{took}{again}"))
        lines = chart(rows, self._seconds, width=width, paint=paint)
        return fitting("\n".join(lines + self._left_out()))

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw who worked when with matplotlib (the extra `plots`), and return the axes.

        Args:
            ax: Where to draw; a new figure unless given.

        Raises:
            ConfigurationError: matplotlib is not installed.
        """
        from ._show.plots import describe, draw_timeline

        drawn = draw_timeline(self._spans, self.before, ax)
        describe(drawn, self.summary)
        return drawn

    def _repr_html_(self) -> str:
        rows = [
            [
                Strip(left, length, colour(each), f"chunk {each.chunk_index}, {each.worker_id}, {word(each)}")
                for each, left, length in bars
            ]
            for _, bars in self._rows()
        ]
        return strips(rows, self.summary, self._left_out())

    @property
    def _seconds(self) -> float:
        """From the first start to the last thing known."""
        everything = [*self._spans, *self.before]
        start = min(span.start for span in everything)
        return max((max(span.end or span.start for span in everything) - start).total_seconds(), 1e-6)

    def _rows(self) -> Iterator[tuple[Span, list[tuple[Span, float, float]]]]:
        """Give each chunk with its bars, the last one last: left edge and width as parts of the whole."""
        if not self._spans:
            return
        earlier: dict[int, list[Span]] = {}
        for span in self.before:
            earlier.setdefault(span.chunk_index, []).append(span)
        whole = self._seconds
        start = min(span.start for span in [*self._spans, *self.before])
        for span in self._spans[:_ROWS_SHOWN]:
            bars = []
            for each in [*earlier.get(span.chunk_index, ()), span]:
                left = (each.start - start).total_seconds() / whole
                seconds = whole if each.end is None else (each.end - start).total_seconds()
                bars.append((each, left, max(0.0, min(1.0, seconds / whole) - left)))
            yield span, bars

    def _left_out(self) -> list[str]:
        more = len(self._spans) - _ROWS_SHOWN
        return [f"… and {number(more, 'more chunk')}"] if more > 0 else []
