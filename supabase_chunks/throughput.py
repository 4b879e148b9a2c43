"""How fast a job's work was done, as text and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._show.characters import fitting
from .states import ChunkStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from matplotlib.axes import Axes

    from .models import ChunkRecord

_TEXT_BINS = 60
_HEIGHTS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Piece:
    """What one completed chunk did, and when; `amount` is in items, or 1 where the chunks count none."""

    start: datetime
    end: datetime
    amount: int


class Throughput:
    """The items of a job's completed chunks over time; of chunks where they count no items.

    Example:
        >>> Throughput([]).amount
        0
    """

    def __init__(self, chunks: Sequence[ChunkRecord]) -> None:
        """Take a job's chunks."""
        done = [chunk for chunk in chunks if chunk.status is ChunkStatus.COMPLETED]
        self.unit = "items" if any(chunk.items_processed for chunk in done) else "chunks"
        """What is counted: "items" or "chunks"."""
        self.pieces: list[Piece] = [
            Piece(
                chunk.started_at,
                chunk.completed_at,
                chunk.items_processed or 0 if self.unit == "items" else 1,
            )
            for chunk in done
            if chunk.started_at is not None and chunk.completed_at is not None
        ]
        self.failures: list[datetime] = sorted(
            chunk.completed_at
            for chunk in chunks
            if chunk.status is ChunkStatus.FAILED and chunk.completed_at is not None
        )
        """When chunks failed for good."""

    @property
    def amount(self) -> int:
        """How many there were."""
        return sum(piece.amount for piece in self.pieces)

    @property
    def start(self) -> datetime | None:
        """When the first chunk began; None when there is none."""
        return min((piece.start for piece in self.pieces), default=None)

    @property
    def seconds(self) -> float:
        """From the first chunk's begin to the last one's end."""
        if self.start is None:
            return 0.0
        return (max(piece.end for piece in self.pieces) - self.start).total_seconds()

    @property
    def rate(self) -> float | None:
        """How many a second on the average; None when there is none."""
        return self.amount / self.seconds if self.seconds > 0 else None

    def rates(self, bins: int) -> list[float]:
        """How many a second in each of so many parts of the time; a chunk counts evenly over its own."""
        counts = [0.0] * bins
        if self.start is None or self.seconds <= 0:
            return counts
        width = self.seconds / bins
        for piece in self.pieces:
            first = (piece.start - self.start).total_seconds() / width
            last = max((piece.end - self.start).total_seconds() / width, first + 1e-9)
            for index in range(int(first), min(int(last), bins - 1) + 1):
                share = max(0.0, min(last, index + 1) - max(first, index))
                counts[index] += piece.amount * share / (last - first)
        return [count / width for count in counts]

    def plot(self, *, unit: str | None = None, ax: Axes | None = None) -> Axes:
        """Draw the rate and the sum over time with matplotlib (the extra `plots`), and return the axes.

        Args:
            unit: What to call the items, such as "messages".
            ax: Where to draw; a new figure unless given.

        Raises:
            ConfigurationError: matplotlib is not installed.
        """
        from ._show.plots import describe, draw_throughput

        drawn = draw_throughput(self, unit or self.unit, ax)
        describe(drawn, self.words(unit or self.unit))
        return drawn

    @property
    def summary(self) -> str:
        """What the picture shows, in a sentence; good as the text beside an image.

        Example:
            >>> Throughput([]).summary
            'no chunk has been completed yet'
        """
        return self.words(self.unit)

    def words(self, unit: str) -> str:
        """Return the average in a sentence, with another name for the items.

        Example:
            >>> Throughput([]).words("messages")
            'no chunk has been completed yet'
        """
        if self.rate is None:
            return "no chunk has been completed yet"
        rate = f"{self.rate:,.0f}" if self.rate >= 10 else f"{self.rate:.2g}"
        failed = f" ({len(self.failures):,} failed)" if self.failures else ""
        return f"{self.amount:,} {unit} in {self.seconds:.1f} s: {rate} a second{failed}"

    def __str__(self) -> str:
        """Return the average, and the rate over time as one line of bars."""
        if self.rate is None:
            return self.summary
        rates = self.rates(_TEXT_BINS)
        most = max(rates) or 1.0
        line = "".join(_HEIGHTS[round(rate / most * (len(_HEIGHTS) - 1))] for rate in rates)
        return fitting(f"│{line}│ {self.summary}")

    def __repr__(self) -> str:
        """Return the average."""
        return f"<Throughput {self.amount:,} {self.unit} in {self.seconds:.1f} s>"
