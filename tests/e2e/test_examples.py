"""The example scripts run as their first lines say."""

from __future__ import annotations

import csv
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from supabase_chunks import ChunksClient, UnknownKind
from tests.polling import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supabase_chunks.local import LocalStack

ROOT = Path(__file__).resolve().parents[2]
ROWS = 12_345
SECONDS = 60.0


@contextmanager
def running(stack: LocalStack, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program with the environment of the stack; it does not outlive the block."""
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT / "examples",
        env={**os.environ, **stack.environment(), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def output(process: subprocess.Popen[str]) -> str:
    printed, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    return printed


def write_orders(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "customer", "total"])
        writer.writerows([number, f"customer {number % 97}", number / 4] for number in range(ROWS))


def test_three_syncs_side_by_side(stack: LocalStack) -> None:
    with running(stack, "async_quickstart.py") as process:
        lines = output(process).splitlines()
    assert lines[-3:] == ["books: 300 orders", "records: 500 orders", "plants: 200 orders"]
    for shop, pages in {"books": 12, "records": 20, "plants": 8}.items():
        assert f"{shop:>8} 100.0 %  {pages}/{pages} pages" in lines


def test_computing_in_a_pool_of_processes(stack: LocalStack) -> None:
    with running(stack, "cpu_bound.py") as process:
        assert output(process) == "17,984 primes in 20 chunks\n"


def test_an_import_by_two_workers_of_which_one_is_stopped(stack: LocalStack, tmp_path: Path) -> None:
    source, database = tmp_path / "orders.csv", tmp_path / "orders.db"
    write_orders(source)
    with (
        running(stack, "python_worker.py", "import", str(source), str(database)) as importing,
        running(stack, "python_worker.py", "work") as first,
        ChunksClient(stack.url, stack.secret_key) as client,
    ):

        def has_begun() -> bool:
            with suppress(UnknownKind):  # until the import has saved the kind
                return any(job.snapshot and job.snapshot.completed_chunks for job in client.jobs(kind="csv"))
            return False

        until(has_begun, "a chunk is done", seconds=SECONDS)
        first.send_signal(signal.SIGTERM)
        done_by_first = int(output(first).split()[0])
        command = ["worker", "python_worker:handler", "--kind", "csv", "--until-idle"]
        with running(stack, "-m", "supabase_chunks.cli", *command) as second:
            output(second)
        printed = output(importing)
    assert f"{ROWS:,} rows in 14 chunks" in printed  # one plans, thirteen import
    assert 0 < done_by_first <= 14
    with closing(sqlite3.connect(database)) as orders:
        (count, total), *_ = orders.execute("select count(*), sum(total) from orders").fetchall()
    assert (count, total) == (ROWS, sum(range(ROWS)) / 4)


def test_an_import_of_a_file_that_is_not_there(stack: LocalStack, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.csv")
    with (
        running(stack, "python_worker.py", "work"),
        running(stack, "python_worker.py", "import", missing, str(tmp_path / "orders.db")) as importing,
    ):
        _, errors = importing.communicate(timeout=SECONDS)
    assert importing.returncode == 1
    assert f"there is no file {missing}" in errors
