"""The common ground of all measurements: one PostgreSQL on disk, a database each contender, pgbench as client.

Figures of different runs, or machines, cannot be compared; ratios within one run can. Contenders therefore take
turns on the same server, and a ratio is the median over the rounds. A round lasts longer than a turn of autovacuum (a
minute), for a queue runs for hours; its first seconds, on freshly vacuumed tables, are shown beside it.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from supabase_chunks.local import migrations, platform
from supabase_chunks.local.binaries import embedded_bin_dir
from supabase_chunks.local.postgres import PostgresServer

ROOT = Path(__file__).resolve().parents[2]
MIGRATIONS = ROOT / "supabase" / "migrations"
CLIENTS = 8
FRESH_SECONDS = 5


@dataclass
class Line:
    """One row of the table that a run prints."""

    what: str
    value: str
    ratio: float | None = None
    goal: str = ""
    reached: bool | None = None


@dataclass
class Report:
    """The table, filled while the measurements run."""

    lines: list[Line] = field(default_factory=list)

    def add(
        self,
        what: str,
        value: str,
        *,
        ratio: float | None = None,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Add a row; `at_least` and `at_most` are the goals for its ratio."""
        goal, reached = "", None
        if ratio is not None and at_least is not None:
            goal, reached = f">= {at_least:g}", ratio >= at_least
        elif ratio is not None and at_most is not None:
            goal, reached = f"<= {at_most:g}", ratio <= at_most
        line = Line(what, value, ratio, goal, reached)
        self.lines.append(line)
        print(self.format(line), flush=True)

    @staticmethod
    def format(line: Line) -> str:
        """One row as text."""
        ratio = "" if line.ratio is None else f"{line.ratio:.2f}"
        mark = {None: "", True: "ok", False: "MISSED"}[line.reached]
        return f"{line.what:<66} {line.value:>22} {ratio:>7} {line.goal:>8} {mark}"


@contextmanager
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL that writes to disk as a production one does (fsync on)."""
    folder = Path(tempfile.mkdtemp(prefix="supabase-chunks-bench-", dir="/var/tmp"))
    settings = {
        "shared_buffers": "512MB",
        "max_wal_size": "8GB",
        "checkpoint_timeout": "30min",
        "max_connections": "90",
    }
    folder.chmod(0o755)
    try:
        with PostgresServer(folder / "data", settings=settings) as postgres:
            platform.install(postgres.dsn)
            yield postgres
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def create_database(postgres: PostgresServer, name: str, *, with_queue: bool = False) -> str:
    """Make an empty database, or one with our migrations; returns its DSN."""
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"drop database if exists {name} with (force)")
        connection.execute(f"create database {name} owner postgres")
    dsn = postgres.dsn_for(name)
    if with_queue:
        platform.install(dsn)
        migrations.apply(dsn, MIGRATIONS)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("select public.save_sync_kind('bench', max_concurrency => 1000)")
    return dsn


def pgbench(dsn: str, script: str, *, seconds: int) -> tuple[float, float]:
    """Run a script, in pgbench's language, with CLIENTS connections for some seconds.

    Returns:
        Transactions a second: over all that time, and in its first FRESH_SECONDS.
    """
    done = _run_pgbench(dsn, script, "-T", str(seconds), "-P", str(FRESH_SECONDS))
    sustained = re.search(r"tps = ([\d.]+)", done.stdout)
    fresh = re.search(r"progress: [\d.]+ s, ([\d.]+) tps", done.stderr)
    if sustained is None or fresh is None:
        raise RuntimeError(done.stdout + done.stderr)
    return float(sustained[1]), float(fresh[1])


def pgbench_transactions(dsn: str, script: str, transactions: int, *, clients: int = CLIENTS) -> float:
    """Run a script so many times, shared between the connections; returns transactions a second."""
    done = _run_pgbench(dsn, script, "-t", str(transactions // clients), clients=clients)
    speed = re.search(r"tps = ([\d.]+)", done.stdout)
    if speed is None:
        raise RuntimeError(done.stdout + done.stderr)
    return float(speed[1])


def _run_pgbench(
    dsn: str, script: str, *options: str, clients: int = CLIENTS
) -> subprocess.CompletedProcess[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        command = [
            str(embedded_bin_dir() / "pgbench"),
            "-n",
            *("-M", "prepared"),
            *("-c", str(clients)),
            *("-j", "2"),
            *("-D", "chunk_id=0"),
            *("-f", file.name),
            *options,
            dsn,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or "aborted" in done.stderr:
        raise RuntimeError(f"pgbench failed:\n{done.stderr[-2000:]}")
    return done


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the ratios of rounds that ran next to each other."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
