"""The supabase CLI on our migrations: push, lint and advisors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from supabase_chunks.local import platform
from tests.sql.database import Database
from tests.sql.server import MIGRATIONS, ROOT, Cluster

VERSION = "2.117.0"
CACHE = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    / "supabase-chunks-tests"
    / f"supabase-{VERSION}"
)


@pytest.fixture(scope="session")
def cli() -> Path:
    """The CLI from npm, installed once."""
    program = CACHE / "node_modules" / ".bin" / "supabase"
    if not program.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm is missing")
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [
            npm,
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(CACHE),
            f"supabase@{VERSION}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode != 0:
            pytest.skip(f"npm could not install supabase@{VERSION}: {done.stderr[-300:]}")
    return program


class Project:
    """A folder as `supabase init` makes it, with our migrations, and a database."""

    def __init__(self, cli: Path, folder: Path, database: Database) -> None:
        self._cli = cli
        self._folder = folder
        (folder / "supabase").mkdir()
        shutil.copy(ROOT / "supabase" / "config.toml", folder / "supabase")
        shutil.copytree(MIGRATIONS, folder / "supabase" / "migrations")
        platform.install(database.dsn, passwords={"postgres": "for-the-cli"})
        dsn = database.server.dsn_for(database.name, user="postgres", password="for-the-cli")
        self._url = f"{dsn}?sslmode=disable"
        self.database = database

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the database."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "SUPABASE_TELEMETRY_DISABLED": "1",
            "DO_NOT_TRACK": "1",
            "SUPABASE_NO_UPDATE_NOTIFIER": "1",
        }
        command = [str(self._cli), *arguments, "--db-url", self._url]
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done


@pytest.fixture
def project(cli: Path, tmp_path: Path, cluster: Cluster) -> Iterator[Project]:
    """On PostgreSQL 18."""
    with cluster.database(template=None) as database:
        yield Project(cli, tmp_path, database)


@pytest.fixture
def project_15(cli: Path, tmp_path: Path, cluster_15: Cluster) -> Iterator[Project]:
    """On PostgreSQL 15."""
    with cluster_15.database(template=None) as database:
        yield Project(cli, tmp_path, database)


def test_push_applies_every_migration_and_again_none(project: Project) -> None:
    project.run("db", "push", "--yes")
    with psycopg.connect(project.database.dsn) as connection:
        rows = connection.execute(
            "select version from supabase_migrations.schema_migrations order by 1"
        ).fetchall()
    assert [row[0] for row in rows] == sorted(
        path.name.partition("_")[0] for path in MIGRATIONS.glob("*.sql")
    )
    again = project.run("db", "push", "--yes")
    assert "up to date" in (again.stdout + again.stderr).lower()
    session = project.database.connect()
    session.call("save_sync_kind", kind="plain")
    job = session.start(chunks=[{}])["id"]
    assert session.drain(job) == 1


def test_advisors_find_nothing_of_ours(project: Project) -> None:
    project.run("db", "push", "--yes")
    done = project.run("db", "advisors", "--level", "info")
    findings = json.loads(done.stdout) if done.stdout.strip() else []
    ours = [
        f"{finding.get('level')} {finding.get('name')}: {finding.get('detail')}"
        for finding in findings
        if (finding.get("metadata") or {}).get("schema") in ("public", "chunk_private")
        # In a database of which nothing was asked yet no index has been used.
        and finding.get("name") != "unused_index"
    ]
    assert not ours, "\n".join(ours)


def test_lint_finds_nothing(project_15: Project) -> None:
    with psycopg.connect(project_15.database.dsn) as connection:
        available = "select 1 from pg_available_extensions where name = 'plpgsql_check'"
        if connection.execute(available).fetchone() is None:
            pytest.skip("plpgsql_check for PostgreSQL 15 is missing")
        connection.execute("create extension plpgsql_check with schema extensions")
    project_15.run("db", "push", "--yes")
    done = project_15.run("db", "lint", "--level", "warning", "--schema", "public,chunk_private")
    found = json.loads(done.stdout) if done.stdout.strip() else []
    assert found == [], json.dumps(found, indent=1)
