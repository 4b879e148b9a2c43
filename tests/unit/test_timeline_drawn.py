"""A timeline as it is seen: how much is green, whether letters can be read, where the axis has its marks."""

from __future__ import annotations

import random
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from supabase_chunks import Throughput, Timeline
from supabase_chunks._show.palette import OF_STATE
from tests.unit.drawn import START, bars, chunk

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.style  # noqa: E402 - once it is known to be there
import matplotlib.text  # noqa: E402 - as above
import numpy as np  # noqa: E402 - it comes with matplotlib

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _no_figure_stays_open() -> Iterator[None]:
    yield
    from matplotlib import pyplot

    pyplot.close("all")


@pytest.mark.parametrize("invocations", [False, True])
def test_what_is_green_is_what_was_busy(invocations: bool) -> None:
    """Five thousand chunks of a few workers, or of an invocation each, of less than a pixel."""
    draw = random.Random(1)
    chunks, busy, workers = [], 0.0, 8
    for worker in range(workers):
        now = 0.0
        for index in range(5000 // workers):
            seconds = draw.uniform(0.5, 1.5)
            failed = draw.random() < 0.01
            number = worker * 10_000 + index
            name = f"invocation/{number}" if invocations else f"host:{worker}"
            chunks.append(chunk(number, now, now + seconds, name, status="failed" if failed else "completed"))
            busy += seconds
            now += seconds / 0.53
    started = time.process_time()
    ax = Timeline.of(chunks).plot()
    figure: Any = ax.figure
    figure.canvas.draw()
    assert time.process_time() - started < 2
    box = ax.get_window_extent()
    picture = np.asarray(figure.canvas.buffer_rgba())[::-1, :, :3].astype(int)
    height, width = picture.shape[:2]
    assert width > box.x1
    assert height > box.y1
    inside = picture[round(box.y0) + 2 : round(box.y1), round(box.x0) : round(box.x1)]
    whole = max(chunk.completed_at for chunk in chunks if chunk.completed_at) - START
    lines = len({round(y) for y, _, _ in bars(ax)})
    expected = busy / (whole.total_seconds() * lines)

    def share(state: str) -> float:
        """How much of the time is in a state's colour: of the lines' pixels, which are less high than a row."""
        colour = np.array(matplotlib.colors.to_rgb(OF_STATE[state])) * 255
        return float((abs(inside - colour).sum(axis=2) < 60).mean()) * 1.02 * (lines + 0.2) / lines / 0.72

    assert share("completed") == pytest.approx(expected, rel=0.12)
    assert 0.005 < share("failed") < 0.08


@pytest.mark.parametrize("style", ["default", "dark_background"])
@pytest.mark.parametrize("picture", [Timeline.of([chunk(0, 0, 1)]), Throughput([chunk(0, 0, 1)])])
def test_every_letter_can_be_read_on_its_background(picture: Timeline | Throughput, style: str) -> None:
    with matplotlib.style.context(style):
        figure: Any = picture.plot().figure
        figure.canvas.draw()
        texts = [
            text for text in figure.findobj(matplotlib.text.Text) if text.get_text() and text.get_visible()
        ]
        assert len(texts) > 5
        behind = luminance(figure.get_facecolor())
        for text in texts:
            lighter, darker = sorted((behind, luminance(text.get_color())), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) > 3.5, text


def luminance(colour: Any) -> float:
    """As the guidelines for readable pages count it."""
    parts = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4
        for part in matplotlib.colors.to_rgb(colour)
    ]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_the_axis_has_round_times_and_the_chart_fits() -> None:
    timeline = Timeline.of([chunk(n, n * 3.7, n * 3.7 + 2) for n in range(12)])
    for width in (40, 60, 80, 200):
        lines = timeline.chart(width=width).splitlines()
        assert max(map(len, lines)) <= width
        marks, times = lines[-2:]
        assert marks.count("┴") == len(times.replace(" s", "").split()) >= 2
        for time_ in re.finditer(r"[\d.]+", times):
            assert marks[time_.start()] == "┴"
    assert times.split() == ["0", "s", "5", "10", "15", "20", "25", "30", "35", "40", "s"]
