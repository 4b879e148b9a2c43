"""`supabase-chunks local`: a whole project in the foreground."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import httpx
import pytest
from click.testing import CliRunner

from supabase_chunks import ChunksClient
from supabase_chunks.cli import cli

from .hello import eventually
from .processes import Traces

if TYPE_CHECKING:
    from collections.abc import Iterator


ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that root's helper, the user postgres, may enter; pytest's own are private."""
    with TemporaryDirectory(prefix="chunks-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def start(folder: Path, *arguments: str) -> tuple[subprocess.Popen[str], dict[str, str]]:
    running = subprocess.Popen(
        [sys.executable, "-m", "supabase_chunks.cli", "local", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    lines = [running.stdout.readline() for _ in range(4)]
    return running, dict(re.findall(r"^export (\w+)='(.*)'$", "".join(lines), re.M))


def test_keys_ports_and_data_stay_from_run_to_run(folder: Path) -> None:
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(str(probe.getsockname()[1]))
    arguments = ("--port", ports[0], "--db-port", ports[1])
    first, before = start(folder, *arguments)
    try:
        client = ChunksClient(before["SUPABASE_URL"], before["SUPABASE_SECRET_KEY"])
        job = client.trigger_sync("custom", chunks=[{"n": 1}])
        traces = Traces()
        traces.gather(first.pid)
    finally:
        first.send_signal(signal.SIGINT)
    assert first.wait(20) == 130
    assert "Stopped" in first.communicate()[1]
    traces.folders.clear()  # they are meant to stay
    assert traces.left_after(5) == []

    second, after = start(folder, *arguments)
    try:
        assert after == before
        client = ChunksClient(after["SUPABASE_URL"], after["SUPABASE_SECRET_KEY"])
        assert client.job(job.id).progress().total_chunks == 1
        second.kill()
        third, _ = start(folder, *arguments)
        second.communicate()
        assert client.job(job.id).progress().total_chunks == 1
        third.send_signal(signal.SIGTERM)
        assert third.wait(20) == 128 + signal.SIGTERM
        third.communicate()
    finally:
        second.kill()
    assert (folder / ".supabase-chunks" / ".gitignore").read_text() == "*\n"


def test_a_second_one_is_told_how_to_run_beside_the_first(folder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    arguments = ("--port", port, "--db-port", "0", "--data-dir")
    running, _ = start(folder, *arguments, "one")
    try:
        second, _ = start(folder, *arguments, "two")
        said = second.communicate(timeout=30)[1]
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=20)
    assert second.returncode == 1
    assert f"Error: Port {port} for the gateway is taken" in said
    assert "on the command line --port and --db-port" in said


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root needs a helper")
def test_a_folder_that_only_root_can_enter_is_refused_before_anything_is_written(folder: Path) -> None:
    closed = folder / "root's own"
    (closed / "work").mkdir(parents=True)
    closed.chmod(0o700)
    done = subprocess.run(
        [sys.executable, "-m", "supabase_chunks.cli", "local", "--port", "0", "--db-port", "0"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=closed / "work",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"cannot enter {closed}: choose a data folder elsewhere" in done.stderr
    assert "--data-dir /" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list((closed / "work").iterdir()) == []


def test_the_functions_of_a_project_are_served_and_followed(folder: Path) -> None:
    (folder / "supabase").mkdir()
    (folder / "supabase" / "config.toml").write_text(
        'project_id = "mine"\n[functions.hello]\nverify_jwt = false\n'
    )
    done = CliRunner().invoke(cli, ["init", str(folder)])
    assert done.exit_code == 0, done.output
    hello = folder / "supabase" / "functions" / "hello" / "index.ts"
    hello.parent.mkdir()
    hello.write_text('export default { fetch: () => new Response("one") };\n')
    running, environment = start(folder, "--port", "0", "--db-port", "0")
    try:
        url = f"{environment['SUPABASE_URL']}/functions/v1/hello"
        assert httpx.get(url).text == "one"
        hello.write_text('export default { fetch: () => new Response("two") };\n')
        eventually(lambda: httpx.get(url).text == "two")
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(20)
        running.communicate()


def test_an_ordinary_project_runs_and_what_it_lacks_is_noted(folder: Path) -> None:
    files = {
        "migrations/1_people.sql": "create extension postgis;\n"
        "create table people (id uuid primary key default uuid_generate_v4(), name text);\n"
        "grant select on people to service_role;\n",
        "seed.sql": "insert into people (name) values ('Ada');\n",
        "functions/broken/index.ts": "const = 1;\n",
    }
    for name, text in files.items():
        (folder / "supabase" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "supabase" / name).write_text(text)
    running, environment = start(folder, "--port", "0", "--db-port", "0")
    try:
        headers = {"apikey": environment["SUPABASE_SECRET_KEY"]}
        answer = httpx.get(f"{environment['SUPABASE_URL']}/rest/v1/people?select=name", headers=headers)
        assert answer.json() == [{"name": "Ada"}]
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(20)
    said = running.communicate()[1]
    assert "Note: Migration 1_people.sql, line 1: the extension postgis is not to be had" in said
    assert "Note: The function broken did not start: " in said
    assert "Note: This project has no syncs yet: `supabase-chunks init` adds them." in said
    assert f"Running no function of {Path('supabase')}; logs are in" in said
