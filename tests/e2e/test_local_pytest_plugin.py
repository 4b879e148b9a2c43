"""The fixtures that other projects' test suites use."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CONFTEST = """
import pytest

@pytest.fixture(scope="session")
def supabase_chunks_stack_options():
    return {"functions": None, "migrations": None}
"""

TEST = """
import httpx

def test_one(supabase_chunks_stack):
    answer = httpx.get(
        supabase_chunks_stack.url + "/rest/v1/", headers={"apikey": supabase_chunks_stack.secret_key}
    )
    assert answer.status_code == 200

def test_functions_are_those_of_the_options(supabase_chunks_stack):
    assert supabase_chunks_stack.functions == []
"""


def test_fixture_gives_a_running_stack_with_ones_own_options(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_mine.py").write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-q", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
