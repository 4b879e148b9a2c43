"""`make demo` and `make test` as the first commands after a clone, on machines that lack something."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .processes import Traces

ROOT = Path(__file__).parents[2]
_LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "dist", "tests")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What git clone gives, on a path with a space."""
    folder = tmp_path / "my clone"
    shutil.copytree(ROOT, folder, ignore=_LEFT_OUT)
    return folder


# What a make that runs these tests hands down, and the inner one must not take up.
_FROM_MAKE = ("MAKE", "MFLAGS", "ARGS")


def make(folder: Path, *arguments: str, path: str | None = None, **environment: str) -> tuple[int, str]:
    """The exit code and all that was printed."""
    # The Makefile under test is not a part of the one that may have started the tests.
    names = {name: value for name, value in os.environ.items() if not name.startswith(_FROM_MAKE)}
    done = subprocess.run(
        ["make", "-C", str(folder), "--no-print-directory", *arguments],
        env={**names, "PATH": path or os.environ["PATH"], **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout


def tools(folder: Path, *names: str, **scripts: str) -> str:
    """A PATH with these programs of the system, and with these scripts, only."""
    folder.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    for name, body in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_help_is_what_make_says_alone(clone: Path) -> None:
    code, text = make(clone)
    assert code == 0
    assert re.findall(r"^make (\w+) ", text, re.M) == [
        "demo",
        "test",
        "quick",
        "lint",
        "migrations",
        "reference",
        "bench",
        "soak",
        "torture",
        "clean",
    ]


@pytest.mark.parametrize("command", ["demo", "test"])
def test_an_old_python_is_one_sentence(clone: Path, tmp_path: Path, command: str) -> None:
    old = 'case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac'
    path = tools(tmp_path / "bin", "make", "sh", "echo", "rm", "touch", python3=old)
    code, text = make(clone, command, path=path)
    assert code != 0
    said = [line for line in text.splitlines() if not line.startswith("make")]
    assert said == [
        "supabase-chunks needs Python 3.11 or newer; Python 3.9.2."
        f" Install a newer one, or name it: make {command} PYTHON=/path/to/python3.12"
    ]
    assert not (clone / ".venv").exists()


def test_no_python_is_one_sentence(clone: Path, tmp_path: Path) -> None:
    code, text = make(clone, "demo", path=tools(tmp_path / "bin", "make", "sh", "echo", "rm", "touch"))
    assert code != 0
    assert "needs Python 3.11 or newer; there is none on PATH." in text


def test_a_newer_python_of_another_name_is_found(clone: Path, tmp_path: Path) -> None:
    old = "exit 1"
    path = tools(tmp_path / "bin", "make", "sh", "echo", "rm", "touch", python3=old)
    (tmp_path / "bin" / "python3.12").symlink_to(sys.executable)
    code, text = make(clone, "-n", "demo", path=path)
    assert code == 0, text
    assert "python3.12 -m venv" in text


def test_without_a_network_pip_is_not_left_to_speak_alone(clone: Path) -> None:
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}
    nowhere |= {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
    code, text = make(clone, "demo", **nowhere)
    assert code != 0
    assert "The packages could not be installed: the first run needs the Python package index" in text
    assert not (clone / ".venv" / ".demo").exists()


@pytest.fixture
def _installed() -> None:
    """Only where these tests run in the environment that make has made."""
    programs = Path(sys.executable).parent
    if not (programs / "supabase-chunks").exists() or programs.parent != ROOT / ".venv":
        pytest.skip("needs the environment that make test has made")


@pytest.mark.usefixtures("_installed")
def test_quick_runs_tests_of_both_suites_side_by_side() -> None:
    assert "-n auto --dist worksteal tests/unit tests/sql" in make(ROOT, "-n", "quick")[1]
    # Of what it runs one file each: to find all tests, three times, takes half a minute.
    few = "QUICK=tests/unit/test_local_postgres.py tests/sql/arguments/test_refused.py"
    code, text = make(
        ROOT, "quick", few, "ARGS=-rp -k 'test_a_report_on_no_chunk or test_temporary_cluster_is_gone'"
    )
    assert code == 0, text
    assert set(re.findall(r"PASSED tests/(\w+)/", text)) == {"unit", "sql"}, text


@pytest.mark.usefixtures("_installed")
def test_ctrl_c_in_the_terminal_ends_make_and_all_it_started() -> None:
    names = {name: value for name, value in os.environ.items() if not name.startswith(_FROM_MAKE)}
    running = subprocess.Popen(
        ["make", "-C", str(ROOT), "demo"],
        env=names,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    traces = Traces()
    assert running.stdout is not None
    said = ""
    while "Ready after" not in said:
        line = running.stdout.readline()
        assert line, said
        said += line
        traces.gather(running.pid)
    # As a terminal does it: to the whole group in the foreground.
    os.killpg(running.pid, signal.SIGINT)
    rest = running.stdout.read()
    assert running.wait(30) != 0
    assert "nothing is left running" in rest
    assert "Traceback" not in rest
    assert len(traces.processes) > 5
    assert traces.left_after(10) == []
