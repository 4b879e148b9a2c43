"""The commands against a running project."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest
from click.testing import CliRunner

from supabase_chunks import ChunksClient
from supabase_chunks.cli import cli

from .processes import Traces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supabase_chunks.local import LocalStack

ROOT = Path(__file__).parents[2]
HANDLER = """
def handler(chunk):
    if chunk.payload["n"] < 0:
        raise ValueError("below zero")
    return {"square": chunk.payload["n"] ** 2}

def slow(chunk):
    import time
    time.sleep(chunk.payload["seconds"])
    return "done"
"""


class Shell:
    """Runs commands with the project's environment."""

    def __init__(self, stack: LocalStack, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SUPABASE_URL": stack.url, "SUPABASE_SECRET_KEY": stack.secret_key}

    def run(self, *arguments: str, stdin: str = "", code: int = 0) -> str:
        """What it printed as data; fails when it ends with another code."""
        done = CliRunner().invoke(cli, arguments, env=self.environment, input=stdin)
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done.stdout

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "supabase_chunks.cli", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **self.environment},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def shell(stack: LocalStack, tmp_path: Path) -> Shell:
    """A folder with handlers, and the environment of the running project."""
    (tmp_path / "tasks.py").write_text(HANDLER)
    return Shell(stack, tmp_path)


@pytest.fixture
def kind(stack: LocalStack, request: pytest.FixtureRequest) -> str:
    """A kind of its own for each test, worked in Python, without retries."""
    name = f"cli-{re.sub(r'[^a-z0-9]+', '-', request.node.name.lower())[:80]}"
    client = ChunksClient(stack.url, stack.secret_key)
    client.save_kind(name, max_concurrency=4, max_retries=0)
    return name


def until(look: Any, seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_a_job_from_its_start_to_its_purge(shell: Shell, kind: str) -> None:
    lines = "\n".join(json.dumps({"n": number}) for number in (1, 2, -3, 4))
    job = shell.run("trigger", kind, "--chunks", "-", "--key", "nightly", stdin=lines).strip()
    assert shell.run("trigger", kind, "--key", "nightly").strip() == job
    assert "0 of 4 completed, 4 pending" in shell.run("status", job)

    done = shell.start("worker", "tasks:handler", "--kind", kind, "--until-idle")
    assert done.wait(30) == 0
    assert "4 chunks done" in done.communicate()[1]

    assert shell.json("status", job)["failed_chunks"] == 1
    listed = shell.run("status", "--kind", kind)
    assert re.search(rf"{job}  {kind}  failed +4/4 ", listed)
    assert re.search(r"^2 +failed +1/1 .*below zero", shell.run("chunks", job, "--status", "failed"), re.M)
    results = [chunk["result"] for chunk in shell.json("chunks", job, "--status", "completed")]
    assert results == [{"square": 1}, {"square": 4}, {"square": 16}]
    assert len(shell.run("chunks", job, "--timeline").splitlines()) >= 4
    shell.run("watch", job, code=1)

    assert "1 failed" not in shell.run("retry", job)
    assert shell.json("status", job)["pending_chunks"] == 1
    shell.run("cancel", job)
    shell.run("watch", job, code=1)
    assert "Deleted" in shell.run("purge", "--older-than", "0s")
    shell.run("status", job, code=1)


def test_waiting_ends_with_the_job_or_the_time(shell: Shell, kind: str) -> None:
    (shell.folder / "chunks.jsonl").write_text('{"n": 3}\n')
    path = str(shell.folder / "chunks.jsonl")
    shell.run("trigger", kind, "--chunks", path, "--wait", "--timeout", "0.5s", code=3)
    job = shell.json("status", "--kind", kind)[0]["id"]
    shell.run("pause", job)
    assert shell.json("status", job)["status"] == "paused"
    shell.run("resume", job)
    worker = shell.start("worker", "tasks:handler", "--kind", kind, "--until-idle")
    lines = [json.loads(line) for line in shell.run("watch", job, "--json").splitlines()]
    assert lines[-1]["status"] == "completed"
    assert worker.wait(20) == 0
    worker.communicate()


def test_ctrl_c_while_watching_leaves_the_job_alone(shell: Shell, kind: str, stack: LocalStack) -> None:
    job = ChunksClient(stack.url, stack.secret_key).trigger_sync(kind, chunks=[{"n": 1}])
    watching = shell.start("watch", str(job.id))
    assert watching.stderr is not None
    assert watching.stderr.readline()
    watching.send_signal(signal.SIGINT)
    assert watching.wait(10) == 130
    assert f"supabase-chunks watch {job.id}" in watching.communicate()[1]
    assert not job.progress().ended


def test_a_worker_finishes_what_it_has_begun_when_it_is_told_to_end(
    shell: Shell, kind: str, stack: LocalStack
) -> None:
    job = ChunksClient(stack.url, stack.secret_key).trigger_sync(kind, chunks=[{"seconds": 1}] * 3)
    worker = shell.start("worker", "tasks:slow", "--kind", kind, "--concurrency", "1")
    until(lambda: job.progress().processing_chunks)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    worker.communicate()
    progress = job.progress()
    assert progress.completed_chunks >= 1
    assert progress.processing_chunks == 0
    assert progress.failed_chunks == 0
    job.cancel()


def test_a_watchdog_of_ones_own_takes_chunks_back(shell: Shell, kind: str, stack: LocalStack) -> None:
    client = ChunksClient(stack.url, stack.secret_key)
    job = client.trigger_sync(kind, chunks=[{"n": 1}], max_retries=1)
    claim = client.queue.claim("a worker that dies", kinds=[kind], lease_seconds=1)
    assert claim is not None
    watchdog = shell.start("cleanup", "--every", "0.2s")
    until(lambda: job.progress().retrying_chunks)
    watchdog.send_signal(signal.SIGTERM)
    assert watchdog.wait(10) == 128 + signal.SIGTERM
    assert watchdog.communicate()[0].split() in ([], ["1"])  # cron's watchdog may have been first
    job.cancel()


def test_configuring_writes_to_the_vault_and_shows_no_key(
    shell: Shell, stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHUNK_PROCESSOR_KEY", stack.service_role_key)
    answer = shell.run("configure", "--project-url", "http://api.internal:8000")
    assert "http://api.internal:8000" in answer
    with psycopg.connect(stack.db_url) as database:
        rows = database.execute("select name, decrypted_secret from vault.decrypted_secrets").fetchall()
    secrets: dict[str, str] = dict(rows)
    assert secrets["project_url"] == "http://api.internal:8000"
    assert secrets["chunk_processor_key"] == stack.service_role_key
    assert "api.supabase.internal:8000" in shell.run("configure", "--docker")
    with psycopg.connect(stack.db_url) as database:
        url = "select decrypted_secret from vault.decrypted_secrets where name = 'project_url'"
        assert database.execute(url.encode()).fetchone() == ("http://api.supabase.internal:8000",)
    monkeypatch.delenv("CHUNK_PROCESSOR_KEY")
    again = json.dumps(shell.json("configure"))
    assert stack.service_role_key not in answer + again
    assert stack.secret_key not in answer + again


def test_errors_of_the_server_are_said_without_a_traceback(shell: Shell) -> None:
    shell.run("trigger", "no-such-kind", code=1)
    shell.run("watch", "6f2c8d3e-0000-4000-8000-000000000000", code=1)
    shell.environment["SUPABASE_SECRET_KEY"] = "sb_secret_wrong"
    shell.run("status", code=1)


class TestLocal:
    """`supabase-chunks local`."""

    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        """A folder that root's helper, the user postgres, may enter; pytest's own are private."""
        with TemporaryDirectory(prefix="chunks-test-") as name:
            Path(name).chmod(0o755)
            yield Path(name)

    def _start(self, folder: Path, *arguments: str) -> tuple[subprocess.Popen[str], dict[str, str]]:
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

    def test_keys_ports_and_data_stay_from_run_to_run(self, folder: Path) -> None:
        ports = []
        for _ in range(2):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                ports.append(str(probe.getsockname()[1]))
        arguments = ("--port", ports[0], "--db-port", ports[1])
        first, before = self._start(folder, *arguments)
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

        second, after = self._start(folder, *arguments)
        try:
            assert after == before
            client = ChunksClient(after["SUPABASE_URL"], after["SUPABASE_SECRET_KEY"])
            assert client.job(job.id).progress().total_chunks == 1
            second.kill()
            third, _ = self._start(folder, *arguments)
            second.communicate()
            assert client.job(job.id).progress().total_chunks == 1
            third.send_signal(signal.SIGTERM)
            assert third.wait(20) == 128 + signal.SIGTERM
            third.communicate()
        finally:
            second.kill()
        assert (folder / ".supabase-chunks" / ".gitignore").read_text() == "*\n"

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root needs a helper")
    def test_a_folder_that_only_root_can_enter_is_refused_before_anything_is_written(
        self, folder: Path
    ) -> None:
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

    def test_the_functions_of_a_project_are_served_and_followed(self, folder: Path) -> None:
        (folder / "supabase").mkdir()
        (folder / "supabase" / "config.toml").write_text('project_id = "mine"\n')
        done = CliRunner().invoke(cli, ["init", str(folder)])
        assert done.exit_code == 0, done.output
        hello = folder / "supabase" / "functions" / "hello" / "index.ts"
        hello.parent.mkdir()
        hello.write_text('export default { fetch: () => new Response("one") };\n')
        running, environment = self._start(folder, "--port", "0", "--db-port", "0")
        try:
            url = f"{environment['SUPABASE_URL']}/functions/v1/hello"
            assert httpx.get(url).text == "one"
            hello.write_text('export default { fetch: () => new Response("two") };\n')
            until(lambda: httpx.get(url).text == "two")
        finally:
            running.send_signal(signal.SIGINT)
            running.wait(20)
            running.communicate()
