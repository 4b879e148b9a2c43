"""What a person sees: a bar that never goes back, lines in a log, HTML in a notebook."""

from __future__ import annotations

import io
import logging
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from supabase_chunks import Progress
from supabase_chunks._show.notebook import Notebook, bar_html
from supabase_chunks._show.terminal import Bar, Lines
from supabase_chunks._show.tracker import Tracker
from supabase_chunks._show.words import duration
from supabase_chunks.progress import Silent, open_display
from tests.unit.wire import progress


def snapshot(status: str = "running", percent: float = 0.0, **fields: Any) -> Progress:
    return Progress.model_validate(progress(status, percent_complete=percent, **fields))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_growing_total_never_moves_the_bar_back() -> None:
    tracker, shown = Tracker(), []
    for percent, total in ((0, 1), (50, 100), (25, 200), (40, 200), (60, 200)):
        tracker.update(snapshot(percent=percent, total_chunks=total))
        shown.append(tracker.percent)
    assert shown == [0, 50, 50, 50, 60]


def test_a_hundred_percent_is_shown_only_at_the_end() -> None:
    tracker = Tracker()
    tracker.update(snapshot(percent=100.0))
    assert tracker.percent == 99
    tracker.update(snapshot("completed", percent=100.0))
    assert tracker.percent == 100


def test_a_failed_job_stops_where_it_is() -> None:
    tracker = Tracker()
    tracker.update(snapshot(percent=70.0))
    tracker.update(snapshot("cancelled", percent=70.0, cancelled_chunks=3))
    assert tracker.percent == 70
    assert tracker.words == "cancelled · 3 cancelled"


def test_rate_eta_retries_and_failures_are_told_in_words() -> None:
    clock = Clock()
    tracker = Tracker(clock)
    tracker.update(snapshot(items_processed=0, items_total=1000))
    clock.now = 10.0
    tracker.update(
        snapshot(items_processed=350, items_total=1000, eta_seconds=125, retrying_chunks=2, failed_chunks=1)
    )
    assert tracker.words == "1 failed · 2 retrying · 2 min left · 35 items/s"
    assert tracker.counts == "0/4 chunks · 350/1,000 items"


@pytest.mark.parametrize(
    ("done", "words"), [(1, "0.1 items/s"), (57, "5.7 items/s"), (25_000, "2,500 items/s")]
)
def test_rates_are_told_in_digits_that_mean_something(done: int, words: str) -> None:
    clock = Clock()
    tracker = Tracker(clock)
    tracker.update(snapshot())
    clock.now = 10.0
    tracker.update(snapshot(items_processed=done))
    assert tracker.words == words


def test_a_log_gets_few_lines() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, clock)
    for done in range(101):
        clock.now += 0.01
        lines.update(snapshot(percent=float(done), completed_chunks=done, total_chunks=100))
    lines.update(snapshot("completed", percent=100.0, completed_chunks=100, total_chunks=100))
    written = stream.getvalue().splitlines()
    assert len(written) == 11
    assert written[0].startswith("custom: 0% · 0/100 chunks")
    assert written[-1].startswith("custom: 100% · 100/100 chunks · completed")


class Writer:
    """What some programs put in place of stderr: it writes, and knows nothing else."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)


def test_whatever_takes_the_place_of_stderr_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    writer, closed = Writer(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", writer)
    display = open_display(True)
    assert isinstance(display, Lines)
    display.update(snapshot(percent=50.0))
    assert writer.text.startswith("custom: 50% · 0/4 chunks")
    closed.close()
    assert isinstance(open_display(True, closed), Lines)
    monkeypatch.setattr(sys, "stderr", None)
    assert isinstance(open_display(True), Silent)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("utf-8", "custom: 50% · 0/4"), ("cp1252", "custom: 50% · 0/4"), ("ascii", "custom: 50% - 0/4")],
)
def test_a_log_gets_the_characters_that_it_has(encoding: str, expected: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Lines(stream).update(snapshot(percent=50.0))
    Lines(stream).note("日本")
    written = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]  # a BytesIO
    assert written.startswith(expected)
    assert written.endswith("日本\n" if encoding == "utf-8" else "??\n")


def test_a_log_gets_a_line_every_ten_seconds_of_slow_progress() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, clock)
    for done in range(21):
        lines.update(snapshot(percent=done / 10))
        clock.now += 1.0
    assert len(stream.getvalue().splitlines()) == 3


def test_the_display_suits_where_the_output_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_display(True, io.StringIO()), Lines)
    bar = open_display(True, Terminal())
    assert isinstance(bar, Bar)
    bar.close()
    shown: list[dict[str, str]] = []

    class Handle:
        def update(self, html: Any) -> None:
            shown.append(html._repr_mimebundle_())

    ipython, ipython_display = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]  # as in a kernel
    ipython_display.display = lambda html, display_id: Handle()  # type: ignore[attr-defined]  # as above
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython_display)
    notebook = open_display(True, Terminal())
    assert isinstance(notebook, Notebook)
    notebook.update(snapshot(percent=25.0))
    notebook.note("paused")
    for form, bar in (
        ("text/html", "width:25.0%"),
        ("text/plain", "custom │██████                  │ 25% 0/4 chunks"),
    ):
        assert bar in shown[0][form]
        assert "paused" not in shown[0][form]
        assert "paused" in shown[1][form]


def test_a_terminal_shows_one_bar_with_its_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    terminal = Terminal()
    bar = Bar(terminal)
    bar.update(snapshot(percent=50.0, completed_chunks=2, failed_chunks=1))
    bar.note("somebody paused [it]")
    bar.close()
    text = terminal.getvalue()
    assert "50%" in text
    assert "2/4 chunks" in text
    assert "1 failed" in text
    assert "somebody paused [it]" in text


def test_a_notebooks_bar_escapes_what_comes_from_outside() -> None:
    tracker = Tracker()
    tracker.update(snapshot(percent=10.0, kind="<script>"))
    assert "<script>" not in bar_html(tracker, ["<script>"])


def test_without_a_display_notes_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "supabase_chunks"):
        open_display(False).note("the sync is paused")
    assert "the sync is paused" in caplog.text


@pytest.mark.parametrize(("seconds", "words"), [(5, "5 s"), (600, "10 min"), (9000, "2.5 h"), (-1, "0 s")])
def test_durations_are_told_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
