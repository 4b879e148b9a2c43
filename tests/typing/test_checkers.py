"""The types of the package and of its use, as both type checkers see them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "command",
    [("mypy",), ("pyright", "--pythonpath", sys.executable)],
    ids=["mypy", "pyright"],
)
def test_a_type_checker_has_nothing_to_say(command: tuple[str, ...]) -> None:
    quiet = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}  # of a newer version of itself
    checked = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=quiet,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
