"""The pictures of a job, drawn with matplotlib: who worked when, and how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from supabase_chunks._show.bars import Bar, bars_of, draw_bars, swatch
from supabase_chunks._show.palette import DARK_GREEN, GREEN, ON_DARK, ON_LIGHT, RED, Ink
from supabase_chunks._show.spans import WORDS, by_worker, colour, together, word
from supabase_chunks._show.words import number
from supabase_chunks.errors import ConfigurationError
from supabase_chunks.states import ChunkStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from supabase_chunks._show.spans import SpanView

_AGAIN = "after a retry"
_NAMED_WORKERS = 12
_BINS = 48
# How many pixels wide a bar must be for a mark in it.
_MARKED = 9.0


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

    def words(self, unit: str) -> str:
        """Return the average in a sentence."""
        ...


def draw_timeline(spans: Sequence[SpanView], before: Sequence[SpanView], ax: Axes | None) -> Axes:
    """Draw a bar an attempt, in as many lines as ran at once, grouped by worker.

    What is green is what was busy: bars have no edges, and end where their pixels end. Only a bar that would
    not be seen at all, and a failure, are wider than their time.
    """
    everything = sorted([*spans, *before], key=lambda span: span.start)
    workers = by_worker(everything)
    # Such as an invocation a chunk: the lines are then what ran at the same time.
    named = len(workers) <= _NAMED_WORKERS
    lines = [line for worker in workers.values() for line in worker] if named else together(everything)
    ax = _axes(ax, height=max(2.2, min(9.0, 1.2 + 0.34 * len(lines))))
    if not everything:
        return _say(ax, "no chunk has started yet")
    ink = _ink(ax)
    start = everything[0].start
    now = max(span.end or span.start for span in everything)
    whole = max((now - start).total_seconds(), 1e-6)
    pixel = 1.02 * whole / max(1.0, ax.get_window_extent().width)
    bars: dict[tuple[str, str], list[Bar]] = {}
    marks: dict[str, list[tuple[float, float]]] = {"x": [], "o": []}
    for row, line in enumerate(lines):
        for bar, span in bars_of(line, row, start, now, pixel):
            bars.setdefault((word(span), colour(span)), []).append(bar)
            if bar.width >= _MARKED * pixel and span.outcome is None:
                if span.status is ChunkStatus.FAILED:
                    marks["x"].append((bar.left + bar.width / 2, row))
                elif span.attempts > 1:
                    marks["o"].append((bar.left + bar.width / 2, row))
    draw_bars(ax, bars, pixel)
    handles: dict[str, Artist] = {name: swatch(shade) for name, shade in sorted(bars, key=_in_order)}
    if marks["x"]:  # not by the colour alone
        ax.plot(*zip(*marks["x"], strict=True), marker="x", ms=6, mec="white", mew=1.8, ls="", zorder=4)
    if marks["o"]:
        ring: dict[str, Any] = {"marker": "o", "ms": 5.5, "mfc": "white", "mec": "#1c2a24", "mew": 1.1}
        (handles[_AGAIN],) = ax.plot(*zip(*marks["o"], strict=True), ls="", zorder=4, **ring)
    _label_rows(ax, workers if named else {"": lines}, ink)
    ax.set(xlim=(-0.01 * whole, 1.01 * whole), ylim=(len(lines) - 0.4, -0.6), xlabel="seconds")
    title = f"{number(len(spans), 'chunk')} in {whole:.1f} s"
    ax.set_title(title, loc="left", color=ink.strong, fontweight="bold")
    ax.xaxis.grid(visible=True, color=ink.grid)
    _legend(ax, handles, ink)
    return ax


def _in_order(bar: tuple[str, str]) -> int:
    return WORDS.index(bar[0]) if bar[0] in WORDS else len(WORDS)


def _legend(ax: Axes, handles: dict[str, Artist], ink: Ink) -> None:
    where: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": 6, "frameon": False}
    look: dict[str, Any] = {
        "fontsize": "small",
        "handlelength": 1.0,
        "columnspacing": 1.2,
        "borderaxespad": 0.3,
        "labelcolor": ink.strong,
    }
    ax.legend(list(handles.values()), list(handles), **where, **look)


def draw_throughput(throughput: RateView, unit: str, ax: Axes | None) -> Axes:
    """Draw the rate as an area, and on the right axis the sum as a line."""
    ax = _axes(ax, height=3.0)
    if throughput.start is None or throughput.rate is None:
        return _say(ax, "no chunk has been completed yet")
    ink = _ink(ax)
    green = DARK_GREEN if ink is ON_LIGHT else GREEN
    width = throughput.seconds / _BINS
    rates = throughput.rates(_BINS)
    edges = [index * width for index in range(_BINS + 1)]
    sums = [0.0]
    for rate in rates:
        sums.append(sums[-1] + rate * width)
    ax.stairs(rates, edges, fill=True, color=GREEN, alpha=0.55)
    ax.axhline(throughput.rate, color=green, lw=1, ls=(0, (4, 3)))
    ax.set(xlim=(0, throughput.seconds), ylim=(0, max(rates) * 1.15 or 1), xlabel="seconds")
    ax.set_ylabel(f"{unit} a second", color=green)
    ax.yaxis.grid(visible=True, color=ink.grid)
    total = ax.twinx()
    total.plot(edges, sums, color=ink.strong, lw=1.8)
    total.set_ylim(0, throughput.amount * 1.15 or 1)
    total.set_ylabel(f"{unit} in all", color=ink.strong)
    _plain(total, ink)
    for axis in (ax.yaxis, total.yaxis):
        axis.set_major_formatter("{x:,.0f}")
    failed = [(failure - throughput.start).total_seconds() for failure in throughput.failures]
    if failed:
        ax.plot(failed, [0] * len(failed), marker="x", color=RED, ms=7, mew=2, ls="", clip_on=False, zorder=5)
    ax.set_title(throughput.words(unit), loc="left", color=ink.strong, fontweight="bold")
    return ax


def _say(ax: Axes, text: str) -> Axes:
    """Say why there is nothing to see."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=_ink(ax).soft)
    return ax


def _label_rows(ax: Axes, workers: dict[str, list[list[SpanView]]], ink: Ink) -> None:
    """Write each worker's name beside the middle of its lines, with a thin line between workers."""
    ticks, names, row = [], [], 0
    for worker, lines in workers.items():
        ticks.append(row + (len(lines) - 1) / 2)
        names.append(_short(worker))
        if row:
            ax.axhline(row - 0.5, color=ink.grid, lw=0.8, zorder=0)
        row += len(lines)
    ax.set_yticks(ticks, names, fontsize="small")
    ax.tick_params(axis="y", length=0)
    if list(workers) == [""]:
        ax.set_ylabel("at the same time", color=ink.soft)


def _short(worker: str) -> str:
    """The name without the long random part that invocations have."""
    name, _, number = worker.partition("/")
    name = f"{name}/{number[:4]}" if number else name
    return name if len(name) <= 32 else f"…{name[-31:]}"


def _axes(ax: Axes | None, *, height: float) -> Axes:
    if ax is None:
        try:
            from matplotlib import pyplot

            from supabase_chunks._show.figure import DescribedFigure
        except ImportError as error:
            raise ConfigurationError(
                "pictures need matplotlib: pip install 'supabase-chunks[plots]'"
            ) from error
        look: dict[str, Any] = {"figsize": (9.5, height), "dpi": 110, "layout": "constrained"}
        drawn: Axes = pyplot.subplots(FigureClass=DescribedFigure, **look)[1]
        ax = drawn
    _plain(ax, _ink(ax))
    return ax


def describe(ax: Axes, alt: str) -> None:
    """Say what is on a figure of ours, for who hears it."""
    from supabase_chunks._show.figure import DescribedFigure

    figure = ax.get_figure(root=True)
    if isinstance(figure, DescribedFigure):
        figure.alt = alt


def _ink(ax: Axes) -> Ink:
    """Return what can be read on the background: the axes', or where that is none the figure's."""
    from matplotlib import rcParams
    from matplotlib.colors import to_rgba

    figure = ax.get_figure(root=True)
    for behind in (ax.get_facecolor(), "none" if figure is None else figure.get_facecolor()):
        red, green, blue, alpha = to_rgba(behind)
        if alpha > 0.5:
            return ON_LIGHT if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else ON_DARK
    # Nothing is behind it, as in a notebook with transparent pictures: as the style writes.
    return ON_DARK if sum(to_rgba(rcParams["text.color"])[:3]) > 1.5 else ON_LIGHT


def _plain(ax: Axes, ink: Ink) -> None:
    """Take away what carries no information."""
    ax.set_axisbelow(True)
    for spine in ("top", "left", "right"):
        ax.spines[spine].set_visible(False)
    ax.spines["bottom"].set_color(ink.axis)
    ticks: dict[str, Any] = {"colors": ink.soft, "labelsize": "small"}
    ax.tick_params(**ticks)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.label.set_color(ink.soft)
