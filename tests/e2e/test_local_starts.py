"""Starting a local stack: what it keeps, what it refuses, and how it says so."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import psycopg
import pytest

from supabase_chunks.local import LocalStack, LocalStackError
from supabase_chunks.local.process import children_of
from tests.e2e.hello import eventually, gone, hello, let_others_in

if TYPE_CHECKING:
    from pathlib import Path


def test_named_folder_keeps_data_and_keys(project: Path, tmp_path: Path) -> None:
    let_others_in(tmp_path)
    with hello(project, data_dir=tmp_path / "kept") as stack:
        first = (stack.secret_key, stack.jwt_secret)
        httpx.post(f"{stack.url}/rest/v1/notes", headers={"apikey": stack.secret_key}, json={"id": 7777})
        stack.kill("postgres")
    with hello(project, data_dir=tmp_path / "kept") as stack:
        assert (stack.secret_key, stack.jwt_secret) == first
        answer = httpx.get(
            f"{stack.url}/rest/v1/notes?id=eq.7777&select=id", headers={"apikey": stack.secret_key}
        )
        assert answer.json() == [{"id": 7777}]
    assert (tmp_path / "kept" / "logs" / "supervisor.log").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's death signal")
def test_named_folder_starts_again_after_everything_was_killed(project: Path, tmp_path: Path) -> None:
    let_others_in(tmp_path)
    stack = hello(project, data_dir=tmp_path / "kept")
    stack.start()
    httpx.post(f"{stack.url}/rest/v1/notes", headers={"apikey": stack.secret_key}, json={"id": 7777})
    pids = [pid for pid in stack.pids().values() if pid is not None]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: all(gone(pid) for pid in pids))
    with pytest.raises(LocalStackError, match="supervisor"):
        stack.pids()
    stack.stop()
    with hello(project, data_dir=tmp_path / "kept") as again:
        answer = httpx.get(f"{again.url}/rest/v1/notes?id=eq.7777", headers={"apikey": again.secret_key})
        assert len(answer.json()) == 1


def test_named_folder_that_is_not_kept_loses_only_what_the_stack_made(tmp_path: Path) -> None:
    let_others_in(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    with LocalStack(data_dir=tmp_path, keep=False, migrations=None, functions=None):
        assert (tmp_path / "postgres").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_folder_of_a_running_stack_is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_others_in(tmp_path)
    monkeypatch.setattr("supabase_chunks.local.scratch._WAIT_SECONDS", 0.1)
    with LocalStack(data_dir=tmp_path / "one", migrations=None, functions=None) as stack:
        with pytest.raises(LocalStackError, match="in use by another local stack"):
            LocalStack(data_dir=tmp_path / "one", keep=False).start()
        with psycopg.connect(stack.db_url) as database:
            assert database.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize(("option", "part"), [("port", "the gateway"), ("db_port", "PostgreSQL")])
def test_taken_port_is_named_and_nothing_is_left(project: Path, option: str, part: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        stack = hello(project, **{option: port})
        with pytest.raises(LocalStackError, match=f"Port {port} for {part} is taken"):
            stack.start()
    assert not stack.data_dir.exists()


def test_folder_with_spaces_and_letters_beyond_ascii(project: Path, tmp_path: Path) -> None:
    let_others_in(tmp_path)
    with hello(project, data_dir=tmp_path / "mon projet été") as stack:
        answer = httpx.get(f"{stack.url}/rest/v1/notes?id=eq.1", headers={"apikey": stack.secret_key})
        assert answer.status_code == 200
        assert {path.name for path in stack.logs.iterdir()} == {
            "functions",
            "postgres.log",
            "postgrest.log",
            "supervisor.log",
        }


def test_a_private_folder_is_opened_for_the_servers_user(tmp_path: Path) -> None:
    let_others_in(tmp_path)
    (tmp_path / "private").mkdir(mode=0o700)
    with LocalStack(data_dir=tmp_path / "private", migrations=None, functions=None) as stack:
        assert stack.running


def test_ports_can_be_chosen(project: Path) -> None:
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    with hello(project, port=ports[0], db_port=ports[1]) as stack:
        assert stack.url == f"http://127.0.0.1:{ports[0]}"
        assert f":{ports[1]}/" in stack.db_url


def test_function_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "functions" / "broken").mkdir(parents=True)
    (tmp_path / "functions" / "broken" / "index.ts").write_text("const = 1;\n")
    with LocalStack(migrations=None, functions=tmp_path / "functions") as stack:
        (note,) = stack.notes
        assert re.match(r"The function broken did not start.*index\.ts", note)
        assert stack.functions == []


def test_function_of_this_package_that_cannot_start_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "index.ts").write_text("const = 1;\n")
    monkeypatch.setattr("supabase_chunks.assets.functions_dir", lambda: tmp_path)
    stack = LocalStack(migrations=None)
    with pytest.raises(LocalStackError, match=r"The function broken did not start.*index\.ts"):
        stack.start()
    assert not stack.data_dir.exists()


def test_migration_that_fails_says_where(tmp_path: Path) -> None:
    (tmp_path / "1_bad.sql").write_text("select 1;\nselect nothing;\n")
    with pytest.raises(LocalStackError, match=r'Migration 1_bad.sql, line 2 failed: column "nothing"'):
        LocalStack(migrations=tmp_path, functions=None).start()


def test_first_download_without_network_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{unheard.getsockname()[1]}/")
        monkeypatch.setenv("DENO_DIR", str(tmp_path / "deno"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("POSTGREST", raising=False)
        notes: list[str] = []
        stack = LocalStack(migrations=None, functions=None, on_note=notes.append)
        with pytest.raises(LocalStackError, match="PostgREST could not be downloaded; the first start needs"):
            stack.start()
    assert notes == ["Downloading PostgREST, this once"]


DOWNLOADER = """
import sys
from supabase_chunks.local import LocalStack
LocalStack(migrations=None, functions=None, on_note=lambda text: print(text, flush=True)).start()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_interrupt_during_a_download_that_hangs(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        changed = {
            "NPM_CONFIG_REGISTRY": f"http://127.0.0.1:{silent.getsockname()[1]}/",
            "DENO_DIR": str(tmp_path / "deno"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        }
        environment = {name: value for name, value in os.environ.items() if name != "POSTGREST"} | changed
        with subprocess.Popen(
            [sys.executable, "-c", DOWNLOADER],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        ) as owner:
            assert owner.stdout is not None
            assert owner.stdout.readline() == b"Downloading PostgREST, this once\n"
            supervisors = children_of(owner.pid)
            owner.send_signal(signal.SIGINT)
            owner.communicate(timeout=10)
            assert owner.returncode != 0
            assert supervisors
            assert all(gone(pid) for pid in supervisors)


def test_changed_function_is_served_anew(tmp_path: Path) -> None:
    (tmp_path / "hello").mkdir()
    source = tmp_path / "hello" / "index.ts"
    source.write_text("export default { fetch: () => new Response('old') };\n")
    with LocalStack(migrations=None, functions=tmp_path, watch=True) as stack:
        url = f"{stack.url}/functions/v1/hello"
        assert httpx.get(url).text == "old"
        source.write_text("export default { fetch: () => new Response('new') };\n")
        eventually(lambda: httpx.get(url).text == "new")
