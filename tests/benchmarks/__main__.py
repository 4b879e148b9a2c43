"""`make bench`: run the measurements named on the command line, or all, and print the table.

make bench ARGS="cycles growth progress idle pinned many sdk import worker webhooks mail"
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from supabase_chunks.local.postgres import PostgresServer
from tests.benchmarks import end_to_end, mail, pinned, sdk, sql
from tests.benchmarks.ground import Report, server

ON_A_SERVER: dict[str, Callable[[PostgresServer, Report], None]] = {
    "cycles": sql.cycles,
    "growth": sql.growth,
    "progress": sql.progress_and_start,
    "idle": sql.nothing_to_do,
    "pinned": pinned.pinned,
    "many": pinned.elsewhere,
}
ON_A_STACK: dict[str, Callable[[Report], None]] = {
    "import": sdk.imports,
    "sdk": sdk.progress,
    "worker": sdk.worker,
    "webhooks": end_to_end.webhooks,
    "mail": mail.mail,
}


def main(names: list[str]) -> int:
    """Run and print; 1 when a goal was missed."""
    known = {*ON_A_SERVER, *ON_A_STACK}
    if unknown := set(names) - known:
        print(
            f"no measurement is named {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}",
            file=sys.stderr,
        )
        return 2
    wanted = set(names) or known
    report = Report()
    if wanted & set(ON_A_SERVER):
        with server() as postgres:
            for name, measure in ON_A_SERVER.items():
                if name in wanted:
                    measure(postgres, report)
    for name, run in ON_A_STACK.items():
        if name in wanted:
            run(report)
    missed = [line.what for line in report.lines if line.reached is False]
    if missed:
        print("missed: " + "; ".join(missed), file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
