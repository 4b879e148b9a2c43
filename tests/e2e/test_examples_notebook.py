"""The notebook runs from top to bottom, and its saved outputs are its own.

After a change of the notebook save what it prints: `SAVE_NOTEBOOK=1 pytest tests/e2e/test_examples_notebook.py`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
for needed in ("ipykernel", "matplotlib", "pandas", "pymap"):
    pytest.importorskip(needed)

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "email_sync.ipynb"
NUMBERS = re.compile(r"0x[0-9a-f]+|[0-9a-f]{8}-[0-9a-f-]{27}|\d[\d.,:x]*")
ADDRESSES = re.compile(r"sb_secret|sb_publishable|eyJ|/home/|/root|/tmp|/work|/Users|site-packages|:\d{5}\b")


@pytest.fixture(scope="module")
def executed() -> Any:
    """The notebook after a run."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", record_timing=False).execute()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    # Which machine and which Python ran it is nobody's business.
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    if os.environ.get("SAVE_NOTEBOOK"):
        nbformat.write(notebook, NOTEBOOK)
    return notebook


def shape(notebook: Any) -> list[list[tuple[str, ...]]]:
    """What each cell has printed, without the figures that differ from run to run."""
    shown = []
    for cell in notebook.cells:
        outputs = []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text = output.get("text") or ("" if "text/html" in data else data.get("text/plain", ""))
            outputs.append((output.output_type, *sorted(data), NUMBERS.sub("0", text)))
        shown.append(outputs)
    return shown


def test_it_runs_and_says_what_happened(executed: Any) -> None:
    printed = "".join(output.get("text", "") for cell in executed.cells for output in cell.get("outputs", []))
    assert printed == "2,000 messages\n2,000 messages\n1 chunk; 0 new messages\n"


def test_the_bar_is_one_output_and_both_pictures_are_there(executed: Any) -> None:
    cells = {cell.source: cell.outputs for cell in executed.cells if cell.cell_type == "code"}
    (bar,) = next(outputs for source, outputs in cells.items() if "wait(progress=True" in source)
    assert "21/21 chunks" in bar.data["text/html"]
    assert "2,000/2,000 items" in bar.data["text/html"]
    pictures = [outputs for source, outputs in cells.items() if ".plot(" in source]
    assert len(pictures) == 2
    assert all(len(outputs) == 1 and len(outputs[0].data["image/png"]) > 10_000 for outputs in pictures)
    told = [outputs[0].metadata["image/png"]["alt"] for outputs in pictures]
    assert told[0].startswith("21 chunks in ")
    assert told[1].startswith("2,000 messages in ")
    assert "│ 100% 21/21 chunks" in bar.data["text/plain"]


def test_the_saved_outputs_are_those_of_a_run(executed: Any) -> None:
    assert shape(nbformat.read(NOTEBOOK, as_version=4)) == shape(executed)


def test_nothing_of_a_machine_is_saved() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            texts = [
                output.get("text", ""),
                *(v for k, v in output.get("data", {}).items() if k != "image/png"),
            ]
            assert not ADDRESSES.search("\n".join(texts))
            assert output.output_type != "error"
            assert output.get("name") != "stderr"


def test_waiting_in_a_cell_warns_of_nothing_though_a_loop_runs() -> None:
    cell = """
import asyncio, warnings
from supabase_chunks._loop import warn_of_blocking
warnings.simplefilter("error")
assert asyncio.get_running_loop()
warn_of_blocking("wait()", "another")
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3", record_timing=False).execute()
