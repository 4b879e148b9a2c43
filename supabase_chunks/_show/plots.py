"""The pictures of a job, drawn with matplotlib: who worked when, and how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from supabase_chunks._show.palette import AXIS, DARK_GREEN, GREEN, GRID, INK, OF_STATE, RED, SOFT_INK
from supabase_chunks.errors import ConfigurationError
from supabase_chunks.states import ChunkStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_LEGEND = {
    ChunkStatus.COMPLETED: "completed",
    ChunkStatus.FAILED: "failed",
    ChunkStatus.CANCELLED: "cancelled",
    ChunkStatus.PROCESSING: "running",
    ChunkStatus.PENDING: "waits for its next attempt",
}
_AGAIN = "after a retry"
_NAMED_WORKERS = 12
_BINS = 48


class SpanView(Protocol):
    """When a chunk ran; a `Span` of a `Timeline`."""

    @property
    def status(self) -> ChunkStatus:
        """The chunk's state."""
        ...

    @property
    def start(self) -> datetime:
        """When its last attempt began."""
        ...

    @property
    def end(self) -> datetime | None:
        """When it ended; None while it runs."""
        ...

    @property
    def worker_id(self) -> str | None:
        """Who had it."""
        ...

    @property
    def attempts(self) -> int:
        """How many there were."""
        ...


class RateView(Protocol):
    """How fast a job's work was done; a `Throughput`."""

    failures: list[datetime]

    @property
    def start(self) -> datetime | None:
        """When the first chunk began."""
        ...

    @property
    def seconds(self) -> float:
        """From the first chunk's begin to the last one's end."""
        ...

    @property
    def amount(self) -> int:
        """How many items there were."""
        ...

    @property
    def rate(self) -> float | None:
        """How many a second on the average."""
        ...

    def rates(self, bins: int) -> list[float]:
        """Return how many a second in each of so many parts of the time."""
        ...


def draw_timeline(spans: Sequence[SpanView], ax: Axes | None) -> Axes:
    """Draw a bar a chunk, in as many lines as chunks ran at once, grouped by worker."""
    workers: dict[str, list[list[SpanView]]] = {}
    for span in spans:
        _put(workers.setdefault(span.worker_id or "?", []), span)
    lines = [line for worker in workers.values() for line in worker]
    named = len(workers) <= _NAMED_WORKERS
    if not named:  # such as an invocation a chunk: the lines are then who worked at the same time
        lines = []
        for span in spans:
            _put(lines, span)
    ax = _axes(ax, height=max(2.2, min(9.0, 1.2 + 0.34 * len(lines))))
    if not spans:
        return _say(ax, "no chunk has started yet")
    start = min(span.start for span in spans)
    now = max(span.end or span.start for span in spans)
    whole = max((now - start).total_seconds(), 1e-6)
    drawn: dict[str, Artist] = {}  # what the legend names
    for row, line in enumerate(lines):
        for span in line:
            left = (span.start - start).total_seconds()
            width = max(((span.end or now) - span.start).total_seconds(), whole * 0.002)
            colour, word = OF_STATE[span.status], _LEGEND[span.status]
            bar = ax.barh(row, width, 0.72, left, color=colour, edgecolor="white", linewidth=0.8)
            drawn.setdefault(word, bar[0])
            if span.attempts > 1:
                ring: dict[str, Any] = {"marker": "o", "ms": 5.5, "mfc": "white", "mec": INK, "mew": 1.1}
                drawn.setdefault(_AGAIN, *ax.plot(left + width / 2, row, ls="", **ring))
            if span.status is ChunkStatus.FAILED:  # not by the colour alone
                ax.plot(left + width / 2, row, marker="x", ms=6, mec="white", mew=1.8, ls="")
    _label_rows(ax, workers if named else {"": lines})
    ax.set(xlim=(-0.01 * whole, 1.01 * whole), ylim=(len(lines) - 0.4, -0.6), xlabel="seconds")
    ax.set_title(f"{len(spans):,} chunks in {whole:.1f} s", loc="left", color=INK, fontweight="bold")
    ax.xaxis.grid(visible=True, color=GRID)
    words = [*_LEGEND.values(), _AGAIN]
    handles = dict(sorted(drawn.items(), key=lambda item: words.index(item[0])))
    where: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": 6, "frameon": False}
    look: dict[str, Any] = {
        "fontsize": "small",
        "handlelength": 1.0,
        "columnspacing": 1.2,
        "borderaxespad": 0.3,
    }
    ax.legend(list(handles.values()), list(handles), **where, **look)
    return ax


def draw_throughput(throughput: RateView, unit: str, ax: Axes | None) -> Axes:
    """Draw the rate as an area, and on the right axis the sum as a line."""
    ax = _axes(ax, height=3.0)
    if throughput.start is None or throughput.rate is None:
        ax.text(
            0.5, 0.5, "no chunk has been completed yet", transform=ax.transAxes, ha="center", color=SOFT_INK
        )
        return ax
    width = throughput.seconds / _BINS
    rates = throughput.rates(_BINS)
    edges = [index * width for index in range(_BINS + 1)]
    sums = [0.0]
    for rate in rates:
        sums.append(sums[-1] + rate * width)
    ax.stairs(rates, edges, fill=True, color=GREEN, alpha=0.55)
    ax.axhline(throughput.rate, color=DARK_GREEN, lw=1, ls=(0, (4, 3)))
    ax.set(xlim=(0, throughput.seconds), ylim=(0, max(rates) * 1.15), xlabel="seconds")
    ax.set_ylabel(f"{unit} a second", color=DARK_GREEN)
    ax.yaxis.grid(visible=True, color=GRID)
    total = ax.twinx()
    total.plot(edges, sums, color=INK, lw=1.8)
    total.set_ylim(0, throughput.amount * 1.15)
    total.set_ylabel(f"{unit} in all", color=INK)
    _plain(total)
    for axis in (ax.yaxis, total.yaxis):
        axis.set_major_formatter("{x:,.0f}")
    for failure in throughput.failures:
        at = (failure - throughput.start).total_seconds()
        ax.plot(at, 0, marker="x", color=RED, ms=7, mew=2, ls="", clip_on=False, zorder=5)
    title = f"{throughput.amount:,} {unit} in {throughput.seconds:.1f} s: {throughput.rate:,.0f} a second"
    if throughput.failures:
        title += f" ({len(throughput.failures):,} failed)"
    ax.set_title(title, loc="left", color=INK, fontweight="bold")
    return ax


def _say(ax: Axes, text: str) -> Axes:
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", color=SOFT_INK)
    return ax


def _put(lines: list[list[SpanView]], span: SpanView) -> None:
    """Put a span into the first line that is free at its start; spans come in the order of their start."""
    for line in lines:
        end = line[-1].end
        if end is not None and end <= span.start:
            line.append(span)
            return
    lines.append([span])


def _label_rows(ax: Axes, workers: dict[str, list[list[SpanView]]]) -> None:
    """Write each worker's name beside the middle of its lines, with a thin line between workers."""
    ticks, names, row = [], [], 0
    for worker, lines in workers.items():
        ticks.append(row + (len(lines) - 1) / 2)
        names.append(_short(worker))
        if row:
            ax.axhline(row - 0.5, color=GRID, lw=0.8, zorder=0)
        row += len(lines)
    ax.set_yticks(ticks, names, fontsize="small")
    ax.tick_params(axis="y", length=0)
    if list(workers) == [""]:
        ax.set_ylabel("at the same time", color=SOFT_INK)


def _short(worker: str) -> str:
    """The name without the long random part that invocations have."""
    name, _, number = worker.partition("/")
    name = f"{name}/{number[:4]}" if number else name
    return name if len(name) <= 32 else f"…{name[-31:]}"


def _axes(ax: Axes | None, *, height: float) -> Axes:
    if ax is None:
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise ConfigurationError(
                "pictures need matplotlib: pip install 'supabase-chunks[plots]'"
            ) from error
        _, ax = pyplot.subplots(figsize=(9.5, height), dpi=110, layout="constrained")
    _plain(ax)
    return ax


def _plain(ax: Axes) -> None:
    """Take away what carries no information."""
    ax.set_axisbelow(True)
    for spine in ("top", "left", "right"):
        ax.spines[spine].set_visible(False)
    ax.spines["bottom"].set_color(AXIS)
    ticks: dict[str, Any] = {"colors": SOFT_INK, "labelsize": "small"}
    ax.tick_params(**ticks)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.label.set_color(SOFT_INK)
