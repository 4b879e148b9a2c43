"""`make bench`: run the measurements named on the command line, or all, and print the table.

    python tests/benchmarks [cycles] [growth] [progress] [idle]
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import sql
from ground import Report, server

from supabase_chunks.local.postgres import PostgresServer

MEASUREMENTS: dict[str, Callable[[PostgresServer, Report], None]] = {
    "cycles": sql.cycles,
    "growth": sql.growth,
    "progress": sql.progress_and_start,
    "idle": sql.nothing_to_do,
}


def main(names: list[str]) -> int:
    """Run and print; 1 when a goal was missed."""
    report = Report()
    with server() as postgres:
        for name, measure in MEASUREMENTS.items():
            if not names or name in names:
                measure(postgres, report)
    missed = [line.what for line in report.lines if line.reached is False]
    if missed:
        print("missed: " + "; ".join(missed), file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
