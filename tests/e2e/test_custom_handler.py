"""The example with a handler of one's own runs as its README says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_syncs_every_page_once() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "custom_handler" / "run.py")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "95 items in 10 pages, each once: True" in done.stdout
