"""The commands against a running project."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from click.testing import CliRunner

from supabase_chunks import ChunksClient
from supabase_chunks.cli import cli
from tests.polling import until

if TYPE_CHECKING:
    from supabase_chunks.local import LocalStack

ROOT = Path(__file__).parents[2]
HANDLER = """
def handler(chunk):
    if chunk.payload["n"] < 0:
        raise ValueError("below zero")
    return {"square": chunk.payload["n"] ** 2}

def slow(chunk):
    import pathlib, time
    pathlib.Path("begun").touch()
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


def test_a_job_from_its_start_to_its_purge(shell: Shell, kind: str) -> None:
    lines = "\n".join(json.dumps({"n": number}) for number in (1, 2, -3, 4))
    job = shell.run("trigger", kind, "--chunks", "-", "--key", "nightly", stdin=lines).strip()
    assert shell.run("trigger", kind, "--key", "nightly").strip() == job
    assert "0 of 4 completed, 4 pending" in shell.run("status", job)

    done = shell.start("worker", "tasks:handler", "--kind", kind, "--until-idle")
    assert done.wait(30) == 0
    assert "3 completed, 1 failed." in done.communicate()[1]

    assert shell.json("status", job)["failed_chunks"] == 1
    listed = shell.run("status", "--kind", kind)
    assert re.search(rf"{job}  {kind}  failed +3/4 +1 +75% ", listed)
    assert shell.json("status", "--kind", kind, "--key", "nightly")[0]["id"] == job
    assert shell.run("status", "--kind", kind, "--key", "weekly") == ""
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
    shell.run("chunks", job, code=1)


def test_a_job_is_named_by_the_beginning_of_its_id(shell: Shell, kind: str, stack: LocalStack) -> None:
    client = ChunksClient(stack.url, stack.secret_key)
    jobs = [client.trigger_sync(kind, chunks=[{"n": n}]) for n in range(3)]
    with psycopg.connect(stack.db_url, autocommit=True) as connection:
        for number, begin in enumerate(("5eed1111-0000", "5eed1111-1111", "5eed2222-0000")):
            named = f"{begin}-4000-8000-{os.urandom(6).hex()}"
            connection.execute("set session_replication_role = replica")
            for table, column in (
                ("sync_jobs", "id"),
                ("chunk_processing_queue", "parent_sync_job_id"),
                ("chunk_private.job_counters", "job_id"),
                ("chunk_private.slots", "job_id"),
            ):
                connection.execute(
                    f"update {table} set {column} = %s where {column} = %s", (named, jobs[number].id)
                )
            jobs[number] = client.job(named)
    try:
        assert "0 of 1 completed" in shell.run("status", "5eed2")
        assert (
            json.loads(shell.run("pause", "5EED1111-0", "5eed2222", "--json").splitlines()[1])["status"]
            == "paused"
        )
        shell.run("resume", "5eed1111-00", str(jobs[2].id))
        assert shell.json("chunks", "5eed1111-1")[0]["payload"] == {"n": 1}
        for command in ("status", "watch", "chunks", "pause", "resume", "cancel", "retry"):
            done = CliRunner().invoke(cli, [command, "5eed1111"], env=shell.environment)
            assert done.exit_code == 2
            assert all(str(job.id) in done.output for job in jobs[:2])
            assert str(jobs[2].id) not in done.output
            assert f"({kind}, pending)" in done.output
        # Where one of several is not there or not alone, none is touched.
        shell.run("cancel", "5eed2222", "5eed3333", code=1)
        shell.run("cancel", "5eed2222", "5eed1111", code=2)
        assert not jobs[2].progress().ended
    finally:
        for job in jobs:
            job.cancel()


def test_the_newest_job_is_watched_unless_one_is_given(shell: Shell, kind: str, stack: LocalStack) -> None:
    job = ChunksClient(stack.url, stack.secret_key).trigger_sync(kind, chunks=[{"n": 1}])
    job.cancel()
    done = CliRunner().invoke(cli, ["watch"], env=shell.environment)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"The newest job is {job.id}.\n")
    assert "cancelled" in done.stderr


def test_kinds_are_saved_listed_and_removed(shell: Shell) -> None:
    name = f"cli-kind-{os.urandom(3).hex()}"
    assert re.search(
        rf"^{name} +Python +8 +3 +90 s +10 s +no$",
        shell.run("save-kind", name, "--max-concurrency", "8", "--lease", "90s"),
        re.M,
    )
    saved = shell.json("save-kind", name, "--handler", "sync-photos", "--users", "--retry-delay", "0s")
    assert (saved["handler"], saved["user_startable"]) == ("sync-photos", True)
    assert (saved["max_concurrency"], saved["lease_seconds"], saved["retry_delay_seconds"]) == (8, 90, 0)
    assert shell.json("save-kind", name, "--python", "--no-users")["handler"] is None
    assert {name, "email", "custom"} <= {kind["kind"] for kind in shell.json("kinds")}
    assert "sync-emails" in shell.run("kinds")
    wrong = CliRunner().invoke(cli, ["remove-kind", f"{name}x"], env=shell.environment)
    assert wrong.exit_code == 1
    assert f"did you mean '{name}'?" in wrong.output
    mistyped = CliRunner().invoke(cli, ["trigger", "emial"], env=shell.environment)
    assert "did you mean 'email'?" in mistyped.output
    assert shell.json("remove-kind", name) == {"removed": name}
    assert name not in shell.run("kinds")


def test_hints_are_commands_here(shell: Shell, kind: str, stack: LocalStack) -> None:
    """Nobody types Python at a prompt."""
    job = ChunksClient(stack.url, stack.secret_key).trigger_sync(kind, chunks=[{"n": -1}])
    worker = shell.start("worker", "tasks:handler", "--kind", kind, "--until-idle")
    assert worker.wait(30) == 0
    worker.communicate()
    for command, words in (
        (["watch", str(job.id)], f"again with supabase-chunks retry {job.id}"),
        (
            ["trigger", "no-such-sync-of-anything"],
            "supabase-chunks save-kind no-such-sync-of-anything adds one",
        ),
    ):
        done = CliRunner().invoke(cli, command, env=shell.environment)
        assert words in done.output
        assert "client." not in done.output


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
    until(lambda: (shell.folder / "begun").exists())
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


def test_nothing_on_this_machine_is_asked_through_a_proxy(shell: Shell, kind: str) -> None:
    nobody = "http://127.0.0.1:9"
    shell.environment |= {"HTTP_PROXY": nobody, "https_proxy": nobody, "ALL_PROXY": "socks://127.0.0.1:9"}
    job = shell.run("trigger", kind, "--chunks", "-", stdin='{"n": 1}').strip()
    worker = shell.start("worker", "tasks:handler", "--kind", kind, "--until-idle")
    assert worker.wait(30) == 0
    assert "1 completed." in worker.communicate()[1]
    assert shell.json("status", job)["status"] == "completed"
    assert {check["name"]: check["ok"] for check in shell.json("doctor")}["function sync-emails"]


def test_a_worker_reads_payloads_as_the_type_that_is_named(shell: Shell, kind: str) -> None:
    (shell.folder / "typed.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Page:\n"
        "    n: int\n"
        "def handler(chunk):\n"
        "    return type(chunk.payload).__name__\n"
    )
    job = shell.run("trigger", kind, "--chunks", "-", stdin='{"n": 1}\n{"m": 2}').strip()
    worker = shell.start("worker", "typed:handler", "--kind", kind, "--payload", "typed:Page", "--until-idle")
    assert worker.wait(30) == 0
    assert "the payload does not fit Page: n: Field required" in worker.communicate()[1]
    assert [chunk["result"] for chunk in shell.json("chunks", job)] == ["Page", None]


def test_errors_of_the_server_are_said_without_a_traceback(shell: Shell) -> None:
    shell.run("trigger", "no-such-kind", code=1)
    shell.run("watch", "6f2c8d3e-0000-4000-8000-000000000000", code=1)
    shell.environment["SUPABASE_SECRET_KEY"] = "sb_secret_wrong"
    shell.run("status", code=1)
