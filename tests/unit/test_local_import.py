"""Importing the local stack where its extra is not installed."""

from __future__ import annotations

import subprocess
import sys


def test_missing_extra_says_what_to_install() -> None:
    program = (
        "import importlib.util as u; real = u.find_spec;"
        "u.find_spec = lambda name, *rest: None if name == 'psycopg' else real(name, *rest);"
        "import supabase_chunks.local"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "needs the package psycopg: run pip install 'supabase-chunks[local]'" in done.stderr
