"""What the local stack survives, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psycopg
import pytest

from supabase_chunks.local import LocalStack, LocalStackError
from tests.e2e.hello import eventually, gone, hello, post, refused, response

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_killed_parts_come_back(plain: LocalStack) -> None:
    before = plain.pids()
    with psycopg.connect(plain.postgres_url, autocommit=True) as owner:
        owner.execute("select cron.schedule('survivor', '1 second', 'select 1')")
    for part in ("hello", "postgrest", "postgres"):
        plain.kill(part)
        pid = before[part]
        assert pid is not None
        assert gone(pid)
    eventually(
        lambda: all(
            new not in {None, before[name]} for name, new in plain.pids().items() if name != "supervisor"
        )
    )
    plain.wait_until_ready()
    headers = {"apikey": plain.secret_key}
    url = f"{plain.url}/rest/v1/notes?id=eq.1"
    eventually(lambda: httpx.get(url, headers=headers).status_code == 200)
    assert httpx.get(f"{plain.url}/functions/v1/hello").status_code == 201
    with psycopg.connect(plain.db_url, autocommit=True) as database:
        # The sender of webhooks and the clock have found their way back, too.
        database.execute("delete from cron.job_run_details")
        ran = "select 1 from cron.job_run_details where command = 'select 1' and status = 'succeeded'"
        eventually(lambda: database.execute(ran).fetchone())
        database.execute("delete from cron.job where jobname = 'survivor'")
        assert response(database, post(database, f"{plain.url}/functions/v1/hello"))[0] == 201
    assert "postgres was ended by signal 9" in (plain.logs / "supervisor.log").read_text()


def test_restart_returns_when_the_part_serves_again(plain: LocalStack) -> None:
    before = plain.pids()["hello"]
    plain.restart("functions")
    assert plain.pids()["hello"] != before
    assert httpx.get(f"{plain.url}/functions/v1/hello").status_code == 201


def test_function_that_dies_while_it_answers_is_a_bad_gateway(plain: LocalStack) -> None:
    answer = httpx.post(f"{plain.url}/functions/v1/hello/die")
    assert answer.status_code == 502
    eventually(lambda: httpx.get(f"{plain.url}/functions/v1/hello").status_code == 201)


def test_unknown_part_is_named(plain: LocalStack) -> None:
    with pytest.raises(
        LocalStackError, match="There is no part 'redis'; there are hello, postgres, postgrest"
    ):
        plain.kill("redis")


def _running(stack: LocalStack) -> tuple[list[int], str, Path]:
    return [pid for pid in stack.pids().values() if pid is not None], stack.url, stack.data_dir


def test_nothing_is_left_after_the_block(project: Path) -> None:
    with hello(project) as stack:
        pids, url, folder = _running(stack)
        assert len(pids) == 4
        assert not refused(url)
    assert all(gone(pid) for pid in pids)
    assert refused(url)
    assert not folder.exists()
    with pytest.raises(LocalStackError, match="not running"):
        _ = stack.url


OWNER = """
import json, sys, time
from supabase_chunks.local import LocalStack
stack = LocalStack(migrations=sys.argv[1] + "/migrations", functions=sys.argv[1] + "/functions")
stack.start()
pids = list(stack.pids().values())
print(json.dumps([pids, stack.url, str(stack.data_dir), stack.pids()["supervisor"]]), flush=True)
time.sleep(600)
"""


@pytest.fixture
def owner(project: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns a stack."""
    program = [sys.executable, "-c", OWNER, str(project)]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, start_new_session=True)
    yield process
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


def _told(owner: subprocess.Popen[str]) -> tuple[list[int], str, Path, int]:
    assert owner.stdout is not None
    pids, url, folder, supervisor = json.loads(owner.stdout.readline())
    return pids, url, Path(folder), supervisor


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_owner_is_ended(
    owner: subprocess.Popen[str], number: signal.Signals
) -> None:
    pids, url, folder, _ = _told(owner)
    owner.send_signal(number)
    eventually(lambda: all(gone(pid) for pid in pids))
    eventually(lambda: not folder.exists())
    assert refused(url)


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's death signal")
def test_no_process_is_left_when_owner_and_supervisor_are_killed(owner: subprocess.Popen[str]) -> None:
    pids, url, folder, supervisor = _told(owner)
    owner.kill()
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: all(gone(pid) for pid in pids))
    assert refused(url)
    # Nobody was left to remove the folder; the next start does, once it is sure that nobody holds it.
    if folder.exists():
        past = time.time() - 3600
        os.utime(folder / "owner.lock", (past, past))
        with LocalStack(migrations=None, functions=None):
            assert not folder.exists()
