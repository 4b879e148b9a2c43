"""A kind of one's own from its scaffold to its tests, and the fixtures that people test it with."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from click.testing import CliRunner

from supabase_chunks import ChunksClient
from supabase_chunks.cli import cli
from supabase_chunks.local import LocalStack

ROOT = Path(__file__).parents[2]
TEST = """
import pytest
from supabase_chunks import ChunksClient
from supabase_chunks.local import LocalStack

@pytest.mark.parametrize("page", [1, 2])
def test_orders_are_synced(supabase_chunks_client, page):
    job = supabase_chunks_client.trigger_sync("sync-orders", chunks=[{"page": page}])
    assert job.wait(timeout=30).completed_chunks == 1
    assert job.results() == [{"seen": {"page": page}}]

def test_users_see_their_own(supabase_stack):
    token = supabase_stack.user_token("2f1d3a0e-6f3f-4a44-9a57-c7f1f6a8a8aa")
    client = ChunksClient(supabase_stack.url, supabase_stack.publishable_key, access_token=token)
    assert client.jobs() == []
"""


def run(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    return done.exit_code, done.output


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with supabase-chunks installed."""
    (tmp_path / "supabase").mkdir()
    (tmp_path / "supabase" / "config.toml").write_text('project_id = "shop"\n')
    code, text = run("init", tmp_path)
    assert code == 0, text
    return tmp_path


def test_a_new_kind_works_as_it_is_scaffolded(project: Path) -> None:
    code, text = run("new", "sync-orders", project, "--max-concurrency", "2")
    assert code == 0, text
    assert "[functions.sync-orders]" in (project / "supabase" / "config.toml").read_text()
    folder = project / "supabase"
    with LocalStack(migrations=folder / "migrations", functions=folder / "functions") as stack:
        client = ChunksClient(stack.url, stack.secret_key)
        job = client.trigger_sync("sync-orders", chunks=[{"page": number} for number in range(5)])
        assert job.wait(timeout=30).completed_chunks == 5
        assert job.results()[3] == {"seen": {"page": 3}}
        (kind,) = [kind for kind in client.kinds() if kind.kind == "sync-orders"]
        assert (kind.handler, kind.max_concurrency) == ("sync-orders", 2)
    code, text = run("new", "sync-orders", project)
    assert code == 1
    assert "already" in text
    code, text = run("init", project)
    assert code == 0
    assert "nothing was changed" in text


@pytest.mark.parametrize("name", ["Sync", "1st", "a b", "a_b/../c", "-h-"])
def test_names_that_no_function_can_have_are_refused(project: Path, name: str) -> None:
    code, text = run("new", "--", name, project)
    assert code == 1
    assert "cannot name a function" in text


def test_a_project_without_supabase_chunks_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("")
    code, text = run("new", "sync-orders", tmp_path)
    assert code == 1
    assert "supabase-chunks init first" in text


def test_people_test_their_project_with_our_fixtures(project: Path) -> None:
    assert run("new", "sync-orders", project)[0] == 0
    (project / "pytest.ini").write_text("[pytest]\nsupabase_chunks_project = .\n")
    (project / "test_orders.py").write_text(TEST)
    installed = "supabase_chunks" in {point.name for point in entry_points(group="pytest11")}
    plugin = [] if installed else ["-p", "supabase_chunks.pytest_plugin"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
