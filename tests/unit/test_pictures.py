"""The pictures of a job: which bar is where, what is marked, and what they say in words."""

from __future__ import annotations

import io
import re
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from supabase_chunks import (
    ChunkRecord,
    ChunksClient,
    ChunkStatus,
    ConfigurationError,
    JobStatus,
    Progress,
    Throughput,
    Timeline,
)
from supabase_chunks._show.html import ChunkList, JobList
from supabase_chunks._show.palette import OF_STATE
from supabase_chunks._show.terminal import bar_colour
from supabase_chunks.jobs import _dataframe
from tests.unit.drawn import attempt, bars, chunk

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib.colors import to_hex  # noqa: E402 - once it is known to be there

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes


@pytest.fixture(autouse=True)
def _no_figure_stays_open() -> Iterator[None]:
    yield
    from matplotlib import pyplot

    pyplot.close("all")


def legend(ax: Axes) -> list[str]:
    box = ax.get_legend()
    assert box is not None
    return [text.get_text() for text in box.get_texts()]


def test_chunks_that_ran_at_once_are_on_different_lines_of_their_worker() -> None:
    ax = Timeline.of([chunk(0, 0, 2), chunk(1, 1, 3), chunk(2, 2, 4), chunk(3, 0, 4, "b")]).plot()
    # In the order of their workers: chunk 2 began when chunk 0's line was free again.
    assert bars(ax) == [(0, 0, 2), (0, 2, 2), (1, 1, 2), (2, 0, 4)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert ax.get_title("left") == "4 chunks in 4.0 s"


def test_failures_and_retries_are_marked() -> None:
    ax = Timeline.of([chunk(0, 0, 1), chunk(1, 1, 2, status="failed"), chunk(2, 2, 3, attempts=2)]).plot()
    assert legend(ax) == ["completed", "failed", "after a retry"]
    assert [line.get_marker() for line in ax.lines] == ["x", "o"]


def test_a_running_chunk_reaches_to_the_last_thing_known() -> None:
    ax = Timeline.of([chunk(0, 0, 5), chunk(1, 1, None, "b")]).plot()
    assert bars(ax) == [(0, 0, 5), (1, 1, 4)]
    assert legend(ax) == ["completed", "running"]


def test_many_workers_share_lines() -> None:
    ax = Timeline.of([chunk(n, n, n + 1, f"invocation/{n}") for n in range(40)]).plot()
    assert {row for row, _, _ in bars(ax)} == {0}


def test_the_attempts_before_the_last_are_drawn_too() -> None:
    chunks = [chunk(0, 3, 5, attempts=2), chunk(1, 0.5, 2.5, "b", status="failed")]
    timeline = Timeline.of(chunks, [attempt(0, 0, 1), attempt(1, 0.5, 2.5, "failed"), attempt(9, 0, 9)])
    assert [(span.chunk_index, span.seconds) for span in timeline.before] == [(0, 1.0)]
    ax = timeline.plot()
    assert bars(ax) == [(0, 0, 1), (0, 3, 2), (1, 0.5, 2)]
    assert legend(ax) == ["completed", "failed", "failed, then tried again", "after a retry"]
    assert (
        timeline.summary == "2 chunks in 5.0 s by 2 workers: 1 failed, 1 completed, 1 attempt before the last"
    )
    assert re.search(r"     0 │▒{12} {24}█{24}│ completed, 2.00 s, attempt 2\n", str(timeline))


def test_a_chunk_that_waits_for_its_next_attempt_ended_its_last() -> None:
    timeline = Timeline.of([chunk(0, 0, None, status="pending"), chunk(1, 0, 10)], [attempt(0, 0, 2)])
    assert [span.seconds for span in timeline] == [2.0, 10.0]
    assert timeline.before == []


def test_who_does_not_see_a_picture_is_told_what_is_on_it() -> None:
    shown = Timeline.of([chunk(0, 0, 1, "<b>")])._repr_html_()
    assert 'role="img" aria-label="1 chunk in 1.0 s by 1 worker: 1 completed"' in shown
    assert "<b>" not in shown
    assert "no chunk has started yet" in Timeline([])._repr_html_()


def test_the_rate_counts_a_chunk_evenly_over_its_time() -> None:
    throughput = Throughput([chunk(0, 0, 4, items_processed=40), chunk(1, 2, 4, items_processed=20)])
    assert throughput.rates(4) == pytest.approx([10, 10, 20, 20])
    assert (throughput.unit, throughput.amount, throughput.seconds, throughput.rate) == (
        "items",
        60,
        4.0,
        15.0,
    )
    assert "60 items in 4.0 s: 15 a second" in str(throughput)


def test_the_sum_at_the_end_is_the_amount() -> None:
    ax = Throughput([chunk(0, 0, 1), chunk(1, 0.5, 3), chunk(2, 1, 2, status="failed")]).plot(unit="pages")
    (line,) = ax.figure.axes[1].lines
    points: Any = line.get_xydata()
    assert list(points[-1]) == pytest.approx([3, 2])
    assert ax.get_title("left") == "2 pages in 3.0 s: 0.67 a second (1 failed)"


@pytest.mark.parametrize("picture", [Timeline([]), Throughput([]), Throughput([chunk(0, 0, None)])])
def test_what_has_not_begun_is_said(picture: Timeline | Throughput) -> None:
    (text,) = picture.plot().texts
    assert text.get_text().startswith("no chunk has")
    assert str(picture) == f"{text.get_text()}"


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "ascii", "iso-8859-1", "utf-8"])
def test_pictures_are_printed_with_the_characters_that_the_output_has(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    chunks = [chunk(index, index, index + 2, items_processed=index) for index in range(70)]
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    print(Timeline.of(chunks))
    print(Throughput(chunks))
    out.flush()
    written = out.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]  # a BytesIO
    first, *_, rates = written.splitlines()
    assert ("█" in first) is (encoding in ("utf-8", "cp437"))
    assert ("#" in first) is ("█" not in first)
    assert "?" not in written
    assert rates.count("|") == (0 if "│" in rates else 2)


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigurationError, match=r"supabase-chunks\[plots\]"):
        Timeline([]).plot()


@pytest.mark.parametrize("chunks", [[], [chunk(0, 0, 1), chunk(1, 1, None, items_processed=7)]])
def test_a_frame_has_the_types_of_its_columns_whatever_is_in_it(chunks: list[ChunkRecord]) -> None:
    pytest.importorskip("pandas")
    frame = _dataframe(chunks)
    kinds = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert kinds["chunk_index"] == "int64"
    assert kinds["items_processed"] == "Int64"
    assert kinds["status"] == "string"
    assert kinds["completed_at"] == "datetime64[us, UTC]"
    assert (
        list((frame["completed_at"] - frame["started_at"]).dt.total_seconds().dropna()) == [1.0][: len(frame)]
    )


def progress(**fields: Any) -> Progress:
    return Progress.model_validate({"id": UUID(int=7), "kind": "pages", "status": "running"} | fields)


def test_a_notebook_shows_progress_with_its_failures_and_what_went_wrong() -> None:
    shown = progress(
        total_chunks=10, completed_chunks=6, failed_chunks=2, percent_complete=80.0, last_error="<b>404</b>"
    )._repr_html_()
    assert "width:60.0%" in shown  # completed
    assert "width:20.0%" in shown  # failed, in a colour of its own
    assert "6/10 chunks · 2 failed" in shown
    assert "&lt;b&gt;404&lt;/b&gt;" in shown


def test_a_job_in_a_notebook_says_when_it_was_seen() -> None:
    client = ChunksClient("https://abc.supabase.co", "sb_secret_FOR-TESTS-ONLY")
    job = client.job(UUID(int=7))
    assert "not looked at yet" in job._repr_html_()
    before = datetime.now().astimezone().replace(microsecond=0)
    job.snapshot = progress(total_chunks=4, completed_chunks=3, failed_chunks=1, status="failed")
    assert job.seen_at is not None
    assert before <= job.seen_at
    shown = job._repr_html_()
    assert f"seen at {job.seen_at:%H:%M:%S}" in shown
    assert 'role="img" aria-label="failed, 3 of 4 chunks completed, 1 failed"' in shown
    assert f"seen at {job.seen_at:%H:%M:%S}" in JobList([job])._repr_html_()


def test_a_notebook_shows_lists_as_tables_that_end_somewhere() -> None:
    chunks = ChunkList(chunk(n, 0, 1, payload={"page": "<i>"}, result={"rows": n}) for n in range(1000))
    shown = chunks._repr_html_()
    assert shown.count("<tr>") == 51  # with its head
    assert "… and 950 more" in shown
    assert "&lt;i&gt;" in shown
    assert "<i>" not in shown
    assert JobList([])._repr_html_().count("<tr>") == 1


def test_a_table_of_chunks_has_their_checkpoints_if_there_are_any() -> None:
    assert "checkpoint" not in ChunkList([chunk(0, 0, 1)])._repr_html_()
    shown = ChunkList([chunk(0, 0, 1), chunk(1, 0, 1, checkpoint={"cursor": "<b>"})])._repr_html_()
    assert shown.count(">checkpoint</th>") == 1
    assert "<code>{&quot;cursor&quot;: &quot;&lt;b&gt;&quot;}</code>" in shown
    assert shown.count("<td") == 2 * 7


def test_failed_is_never_green_and_each_state_has_one_colour() -> None:
    assert set(OF_STATE) == {*JobStatus, *ChunkStatus}
    green = {state for state, colour in OF_STATE.items() if colour == OF_STATE["completed"]}
    assert green == {"completed"}
    job = progress(
        status="failed", total_chunks=4, completed_chunks=1, failed_chunks=1, cancelled_chunks=2,
        percent_complete=50.0,
    )  # fmt: skip
    assert bar_colour(job) == OF_STATE["failed"]
    shares = re.findall(r"width:([\d.]+)%;background:(#\w+)", job._repr_html_())
    colours = [OF_STATE[state] for state in ("completed", "failed", "cancelled")]
    assert shares == list(zip(["25.0", "25.0", "50.0"], colours, strict=True))
    timeline = Timeline.of([chunk(0, 0, 1, status="failed")])
    (drawn,) = timeline.plot().collections
    (colour,) = drawn.get_facecolor()  # type: ignore[misc]  # one of all its bars
    assert to_hex(colour) == OF_STATE["failed"]
    assert OF_STATE["failed"] in timeline._repr_html_()
