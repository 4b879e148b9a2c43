"""The wheel with the oldest packages that it says it works with; all other suites run with the newest."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from supabase_chunks.local import LocalStack

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "supabase-chunks-tests"
# Compiled ones come as wheels for the Pythons of their time only, so not these in their oldest version.
_COMPILED = ["pydantic"]
_UNIT = ["test_client.py", "test_http.py", "test_progress.py", "wire.py"]

_PROGRAM = """
import asyncio, os, sys, uuid
import supabase
from supabase_chunks import AsyncChunksClient, AsyncWorker, ChunksClient, JobNotFound, Worker

url, key, kind = os.environ["SUPABASE_URL"], os.environ["SUPABASE_SECRET_KEY"], "k-" + uuid.uuid4().hex[:12]

def double(chunk):
    return chunk.payload["n"] * 2

def sync(client):
    client.save_kind(kind, max_concurrency=1000)
    job = client.trigger_sync(kind, chunks=[{"n": n} for n in range(1200)])
    Worker(client, double, kinds=[kind], concurrency=8, prefetch=92).run_until_idle()
    assert job.wait(timeout=30).completed_chunks == 1200
    assert job.results() == [n * 2 for n in range(1200)]
    assert client.jobs(kind=kind)[0].id == job.id
    try:
        client.job(uuid.uuid4()).progress()
    except JobNotFound as error:
        assert error.status == 400
    else:
        raise AssertionError("a job that nobody made was found")

async def asynchronous(client):
    job = await client.trigger_sync(kind, chunks=[{"n": n} for n in range(20)])
    await AsyncWorker(client, double, kinds=[kind]).run_until_idle()
    assert [progress.status async for progress in job.watch(timeout=30)] == ["completed"]
    assert len(await job.chunks(status="completed")) == 20

async def both():
    await asynchronous(AsyncChunksClient(url, key))
    await asynchronous(AsyncChunksClient.from_supabase(await supabase.acreate_client(url, key)))

sync(ChunksClient.from_env())
sync(ChunksClient.from_supabase(supabase.create_client(url, key)))
asyncio.run(both())
"""


def _requirements() -> list[str]:
    """The dependencies as they are written down."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["dependencies"])


def _oldest() -> dict[str, str]:
    """Each dependency and the lower bound that it is given."""
    return dict(re.split(">=", requirement, maxsplit=1) for requirement in _requirements())


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own, with the wheel, the oldest dependencies, and what unit tests need.

    It is kept from run to run, for those packages; the wheel is new each time.
    """
    oldest = [f"{name}=={bound}" for name, bound in _oldest().items() if name not in _COMPILED]
    tools = [f"{name}=={version(name)}" for name in ("pytest", "pytest-asyncio", "respx")]
    dist = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(dist)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = dist.iterdir()
    wanted = "\n".join([sys.executable, sys.version, *_requirements(), *tools])
    folder = CACHE / f"oldest-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}"
    found = folder / "bin" / "python"
    install = ("install", "-qq", "--no-user", "--only-binary", ":all:")
    if (folder / "complete").exists():
        _pip(found, *install, "--force-reinstall", "--no-deps", str(wheel))
    else:
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=False, symlinks=True)
        _pip(found, *install, str(wheel), *oldest, *tools)
        (folder / "complete").touch()
    return found


def _pip(python: Path, *arguments: str) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--python",
        str(python),
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _run(*command: str | Path, cwd: Path, **environment: str) -> None:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_they_suit_each_other(python: Path) -> None:
    _pip(python, "check")


def test_both_clients_and_workers_do_a_sync(python: Path, stack: LocalStack, tmp_path: Path) -> None:
    _run(
        python,
        "-c",
        _PROGRAM,
        cwd=tmp_path,
        SUPABASE_URL=stack.url,
        SUPABASE_SECRET_KEY=stack.secret_key,
    )


def test_the_command_line_starts_and_shows_a_sync(python: Path, stack: LocalStack, tmp_path: Path) -> None:
    command = python.parent / "supabase-chunks"
    project = {"SUPABASE_URL": stack.url, "SUPABASE_SECRET_KEY": stack.secret_key}
    _run(command, "trigger", "custom", "--total", "3", "--chunk-size", "1", cwd=tmp_path, **project)
    _run(command, "status", "--limit", "5", cwd=tmp_path, **project)
    _run(command, "trigger", "--help", cwd=tmp_path)


def test_requests_errors_and_bars_are_the_same(python: Path, tmp_path: Path) -> None:
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    for name in _UNIT:
        shutil.copy(ROOT / "tests" / "unit" / name, tmp_path / "tests" / "unit")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    _run(
        python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests",
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path),
    )
