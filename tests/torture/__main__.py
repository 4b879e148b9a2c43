"""`make torture`: ten seeds, or those that are named; exits with 1 when anything was found."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.torture.checks import Finding, findings
from tests.torture.history import load
from tests.torture.mutations import MUTATIONS
from tests.torture.nemesis import plan
from tests.torture.project import Project, running
from tests.torture.run import BOUND, Run, torture

SHOWN = 20


def main() -> int:
    """Read the options, run, say what was found."""
    options = _options()
    if options.check is not None:
        return _show(findings(load(options.check)), str(options.check))
    seeds = options.seed or [str(seed) for seed in range(1, options.seeds + 1)]
    failed: list[Run] = []
    with ExitStack() as stacks:
        project: Project | None = None
        for seed in seeds:
            if project is None:
                project = stacks.enter_context(running())
                if options.mutate is not None:
                    stacks.enter_context(MUTATIONS[options.mutate].made(project.stack.db_url))
            if options.seed:
                print("\n".join(map(str, plan(seed, options.seconds))), flush=True)
            began = time.monotonic()
            run = torture(project, seed, options.seconds, options.keep / f"seed-{seed}", bound=options.bound)
            print(f"{run.summary()} ({time.monotonic() - began:.0f} s)", flush=True)
            if run.findings:
                _show(run.findings, str(run.folder))
                failed.append(run)
                # What it has left behind is not for the next one.
                stacks.close()
                project = None
            else:
                shutil.rmtree(run.folder)
    broken = f" --mutate {options.mutate}" if options.mutate else ""
    for run in failed:
        again = f"--seed {run.seed} --seconds {options.seconds:g}{broken}"
        print(f'Again: make torture ARGS="{again}"; its history: {run.folder}')
    return int(bool(failed))


def _show(found: list[Finding], folder: str) -> int:
    for finding in found[:SHOWN]:
        print(f"  {finding}")
    if len(found) > SHOWN:
        print(f"  … and {len(found) - SHOWN} more: python -m tests.torture --check {folder}")
    return int(bool(found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", action="append", help="this seed only; may be given more than once")
    parser.add_argument("--seeds", type=int, default=10, help="how many seeds, from 1 on (10)")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each has faults (30)")
    parser.add_argument(
        "--bound", type=float, default=BOUND, help=f"seconds within which all must end after that ({BOUND:g})"
    )
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path(tempfile.gettempdir()) / "supabase-chunks-torture",
        help="where the histories of failed seeds stay",
    )
    parser.add_argument(
        "--mutate", choices=sorted(MUTATIONS), help="break the queue in this way before, to see it found"
    )
    parser.add_argument(
        "--check", type=Path, metavar="FOLDER", help="check a history that was kept, and run nothing"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
