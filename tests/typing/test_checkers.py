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
    [
        ("mypy",),
        ("pyright",),
        # Of each public name it asks whether its type is written down, so that no checker has to guess.
        ("pyright", "--verifytypes", "supabase_chunks", "--ignoreexternal"),
    ],
    ids=" ".join,
)
def test_a_type_checker_has_nothing_to_say(command: tuple[str, ...]) -> None:
    checker, *options = command
    if checker == "pyright":
        options += ["--pythonpath", sys.executable]
    environment = {
        **os.environ,
        "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",  # of a newer version of itself
        "PYTHONPATH": str(ROOT),  # it does not look where an editable install points to
    }
    checked = subprocess.run(
        [sys.executable, "-m", checker, *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
