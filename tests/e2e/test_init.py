"""`supabase-chunks init`, deployed with the real Supabase CLI to PostgreSQL."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from click.testing import CliRunner

from supabase_chunks import ChunksClient, FunctionsNotInstalled, assets
from supabase_chunks.cli import cli
from supabase_chunks.local import LocalStack

if TYPE_CHECKING:
    from collections.abc import Iterator

_CACHED = "supabase-chunks-tests/supabase-{}/node_modules/.bin/supabase"


def _find_cli(variable: str, version: str) -> str | None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    named = os.environ.get(variable) or cache / _CACHED.format(version)
    return shutil.which(named)


# Most people have version 2; what it calls --db-url is --remote in version 3.
SUPABASE = _find_cli("SUPABASE_CLI", "2.117.0")
SUPABASE_3 = _find_cli("SUPABASE_CLI_3", "3.1.0")
_BOTH = [
    pytest.param(
        (program, flag),
        marks=pytest.mark.skipif(
            program is None, reason=f"the Supabase CLI is not there: name it in {variable}"
        ),
        id=f"version {number}",
    )
    for number, program, flag, variable in (
        (2, SUPABASE, "--db-url", "SUPABASE_CLI"),
        (3, SUPABASE_3, "--remote", "SUPABASE_CLI_3"),
    )
]


class Project:
    """A fresh project on the disk, and the CLI that is used on it."""

    def __init__(self, folder: Path, program: str, flag: str) -> None:
        self.folder = folder
        self.version = 3 if flag == "--remote" else 2
        self._program = program
        self._flag = flag
        folder.mkdir()
        self.supabase("init")

    def supabase(self, *arguments: str) -> str:
        quiet = {"SUPABASE_TELEMETRY_DISABLED": "1", "DO_NOT_TRACK": "1", "SUPABASE_NO_UPDATE_NOTIFIER": "1"}
        done = subprocess.run(
            [self._program, *arguments],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **quiet},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def init(self, *options: str) -> str:
        """Install, and return what was said."""
        done = CliRunner().invoke(cli, ["init", str(self.folder), *options])
        assert done.exit_code == 0, done.output
        return done.output

    def add_migration(self, name: str, sql: str) -> None:
        migrations = self.folder / "supabase" / "migrations"
        migrations.mkdir(exist_ok=True)
        (migrations / name).write_text(sql)


class Deployment(Project):
    """And the empty database that it is deployed to."""

    def __init__(self, folder: Path, program: str, flag: str, stack: LocalStack) -> None:
        super().__init__(folder, program, flag)
        self.stack = stack

    def push(self) -> list[str]:
        """Push, and return the migrations that were applied."""
        said = self.supabase("db", "push", "--yes", f"{self._flag}={self.stack.postgres_url}?sslmode=disable")
        return [
            line.split()[2].rstrip(".") for line in said.splitlines() if line.startswith("Applying migration")
        ]


@pytest.fixture(params=_BOTH)
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Project:
    """A fresh one."""
    return Project(tmp_path / "mein Projekt", *request.param)


@pytest.fixture(params=_BOTH)
def deployment(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """A fresh project, and a database with the platform's roles and nothing of ours."""
    with LocalStack(migrations=None, functions=None) as stack:
        yield Deployment(tmp_path / "mein Projekt", *request.param, stack)


def _works(stack: LocalStack) -> bool:
    client = ChunksClient(stack.url, stack.secret_key)
    deadline = time.monotonic() + 10
    while True:
        try:
            job = client.trigger_sync("custom", chunks=[{"n": 1}])
            break
        except FunctionsNotInstalled:  # PostgREST hears of the push a moment later
            assert time.monotonic() < deadline
            time.sleep(0.05)
    claim = client.queue.claim("a worker", kinds=["custom"])
    assert claim is not None
    client.queue.complete(claim, {"done": True})
    return job.wait(timeout=10).completed_chunks == 1


def test_a_fresh_project_is_deployed_and_works(deployment: Deployment) -> None:
    client = ChunksClient(deployment.stack.url, deployment.stack.secret_key)
    with pytest.raises(FunctionsNotInstalled, match="supabase db push"):
        client.trigger_sync("custom", chunks=[{"n": 1}])
    deployment.init()
    assert len(deployment.push()) == len(assets.migrations())
    assert _works(deployment.stack)
    deployment.init()
    assert deployment.push() == []


def test_the_commands_that_come_next_are_those_of_the_cli(project: Project) -> None:
    said = project.init()
    assert f"  cd {shlex.quote(str(project.folder))}\n" in said
    # Of the two forms of `db push` the one with --remote is for version 3.
    named = re.findall(r"supabase (db push|functions deploy)((?: --[a-z-]+)*)", said)
    assert named == [("db push", ""), ("db push", " --remote"), ("functions deploy", " --use-api")]
    for words, flags in named:
        known = project.supabase(*words.split(), "--help")
        if flags != " --remote" or project.version == 3:
            assert all(flag in known for flag in flags.split()), words


def test_our_own_migrations_are_pushed_as_they_are(deployment: Deployment) -> None:
    migrations = deployment.folder / "supabase" / "migrations"
    shutil.copytree(assets.migrations_dir(), migrations)
    assert deployment.push() == [path.name for path in assets.migrations()]
    assert _works(deployment.stack)


def test_a_project_with_a_history_goes_on_and_is_upgraded(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        deployment.add_migration(f"2026010100000{number}_theirs.sql", f"create table t{number} (id int);")
    # Newer than every migration of ours.
    deployment.add_migration("20300101000000_theirs.sql", "create table t4 (id int);")
    assert len(deployment.push()) == 5
    deployment.init("--no-email")
    first = deployment.push()
    assert len(first) == len(assets.migrations()) - 1
    assert min(first) > "20300101000000"
    assert _works(deployment.stack)
    deployment.add_migration("20310101000000_theirs.sql", "create table t5 (id int);")
    assert deployment.push() == ["20310101000000_theirs.sql"]

    newer = tmp_path / "newer"
    shutil.copytree(assets.bundle_dir(), newer, ignore=shutil.ignore_patterns("node_modules"))
    (newer / "migrations" / "20990101000000_chunks_more.sql").write_text("create table chunks_more (id int);")
    monkeypatch.setattr(assets, "bundle_dir", lambda: newer)
    deployment.init()
    second = deployment.push()
    assert [name.partition("_")[2] for name in second] == [
        next(path.name for path in assets.migrations() if path.name.endswith("_email.sql")).partition("_")[2],
        "chunks_more.sql",
    ]
    assert _works(deployment.stack)
    with psycopg.connect(deployment.stack.db_url) as database:
        tables = database.execute("select count(*) from pg_tables where tablename ~ '^t[0-5]$'").fetchone()
    assert tables == (6,)


def test_the_cli_reads_the_configuration(project: Project) -> None:
    assert "! " not in project.init(), "the CLI's own configuration is as it should be"
    config = project.folder / "supabase" / "config.toml"
    assert "[functions.background-sync-processor]" in config.read_text()
    # Any command that loads the project reads the file, and refuses one that it does not understand.
    project.supabase("migration", "new", "later")
    newest = sorted(path.name for path in (project.folder / "supabase" / "migrations").iterdir())[-1]
    assert newest.endswith("_later.sql")
