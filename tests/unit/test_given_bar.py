"""`wait(progress=…)` with a bar that the caller brings."""

from __future__ import annotations

import io
import re
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console
from rich.progress import Progress as RichProgress

from supabase_chunks import Progress
from supabase_chunks.progress import open_display

tqdm = pytest.importorskip("tqdm").tqdm


def snapshot(**fields: Any) -> Progress:
    values = {"id": UUID(int=1), "kind": "email", "status": "running", "total_chunks": 8, **fields}
    return Progress.model_validate(values)


def test_a_bar_of_tqdm_shows_chunks_and_what_is_not_a_count() -> None:
    stream = io.StringIO()
    with tqdm(file=stream, ncols=100, mininterval=0) as bar:
        display = open_display(bar)
        display.update(snapshot(completed_chunks=2, failed_chunks=1, retrying_chunks=3))
        display.close()
        assert (bar.n, bar.total) == (3, 8)
    assert re.search(r"3/8 .*1 failed · 3 retrying", stream.getvalue())


def test_a_bar_of_rich_gets_a_task_of_its_own_and_its_total_may_grow() -> None:
    console = Console(file=io.StringIO(), width=100)
    with RichProgress(console=console) as bars:
        other = bars.add_task("download", total=10)
        display = open_display(bars)
        display.update(snapshot(items_processed=100, items_total=400))
        display.update(snapshot(items_processed=300, items_total=2000))
        display.note("the sync is paused [x]")
        display.close()
        mine = bars.tasks[1]
        assert (mine.description, mine.completed, mine.total) == ("email", 300, 2000)
        assert bars.tasks[0].id == other
    assert "the sync is paused [x]" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("wrong", ["yes", 1, object()])
def test_anything_else_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="progress= takes"):
        open_display(wrong)
