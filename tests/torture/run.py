"""One run: a seed, so many seconds of faults, then everything whole and the wait for the end, and the checks."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture import nemesis, tables
from tests.torture.checks import Finding, findings
from tests.torture.faults import ROLES, Field
from tests.torture.history import READ, TABLES, History, load
from tests.torture.processes import Processes
from tests.torture.project import Project
from tests.torture.recorder import Recorder
from tests.torture.settings import Settings
from tests.torture.steps import LIMITS
from tests.torture.steward import Steward

# Seconds from the last fault until every job must have ended: leases, retries that are due, and what is left to do.
BOUND = 45.0


@dataclass
class Run:
    """What came of a seed."""

    seed: str
    folder: Path
    strokes: list[nemesis.Stroke]
    history: History
    findings: list[Finding] = field(default_factory=list)
    settled: float = 0.0

    def summary(self) -> str:
        """In a line: how much happened, and what was found."""
        operations = [
            each
            for each in self.history.operations
            if each.function not in {"begin", "fault", "observe", "check_invariants", "settle"}
        ]
        counts = {
            outcome: sum(each.outcome == outcome for each in operations)
            for outcome in ("ok", "error", "unknown")
        }
        looks = len(self.history.of("observe"))
        return (
            f"seed {self.seed}: {len(operations)} operations ({counts['error']} refused, {counts['unknown']} unanswered) on"
            f" {len(self.history.jobs)} jobs with {len(self.history.chunks)} chunks, {len(self.strokes)} faults, {looks} looks;"
            f" all ended {self.settled:.1f} s after the last; {len(self.findings) or 'no'} findings"
        )


def torture(project: Project, seed: str, seconds: float, folder: Path, *, bound: float = BOUND) -> Run:
    """Hurt a project for so many seconds, on jobs of its own; the history stays in the folder.

    Args:
        project: The stack; what it had of jobs is deleted.
        seed: What the faults and the calls are drawn from.
        seconds: How long faults come.
        folder: Where the history is written; it is emptied before.
        bound: Seconds after the last fault within which every job must end.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    recorder = Recorder(folder, "harness")
    recorder.clock()
    project.empty()
    strokes = nemesis.plan(seed, seconds)
    stack = project.stack
    settings = Settings(
        folder=str(folder),
        seed=seed,
        url=project.clients.url,
        key=stack.secret_key,
        db_url=stack.db_url,
        calls_for=seconds,
        works_for=seconds + bound + 30,
        jobs=1 + round(seconds / 4),
    )
    processes = Processes(settings)
    steward = Steward(stack.db_url, recorder)
    for key, most in LIMITS.items():
        steward.call("save_sync_limit", key=key, max_concurrency=most)
    project.functions.recorder = Recorder(folder, "functions")
    try:
        with tables.Observer(stack.db_url, Recorder(folder, "observer")):
            recorder.ok(recorder.begin("begin", {"clients": ROLES}), None)
            processes.start(*ROLES)
            settings.begin(len(ROLES))
            nemesis.strike(Field(project, processes), strokes, recorder)
            settled = steward.settle(bound)
        processes.stop()
        # Recorded until after it: where not all has ended, functions are still at work.
        reading = recorder.begin(READ, {})
        (folder / TABLES).write_text(json.dumps(tables.read(stack.db_url), default=str), encoding="utf-8")
        recorder.ok(reading, None)
    finally:
        processes.stop()
        project.functions.recorder = None
    history = load(folder)
    return Run(seed, folder, strokes, history, findings(history), settled)
