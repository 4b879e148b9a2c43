"""What happened, as those saw it who asked: every operation with its start, its end and its answer.

A history is a folder. Each process appends to a file of its own, a line when it asks and a line when it hears; so what a killed
process had asked is there, with its end unknown. All times are of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

TABLES = "tables.json"
READ = "read_tables"
Outcome = Literal["ok", "error", "unknown"]


@dataclass(frozen=True)
class Operation:
    """A call of one of the queue's functions.

    Attributes:
        id: Who asked, and the how-manieth of theirs it is, as in `sql-1:17`.
        function: The SQL function's name.
        arguments: As they were sent.
        start: When it was sent.
        end: When its answer was there; infinite when there was none.
        outcome: `error`: it was refused, and so has changed nothing; `unknown`: nobody said whether it was done.
        answer: What the function returned, or the code of the error.
    """

    id: str
    function: str
    arguments: dict[str, Any]
    start: float
    end: float = math.inf
    outcome: Outcome = "unknown"
    answer: Any = None

    @property
    def ok(self) -> bool:
        """Whether it was done, and its answer is known."""
        return self.outcome == "ok"

    @property
    def possible(self) -> bool:
        """Whether it may have been done."""
        return self.outcome != "error"

    def __str__(self) -> str:
        told = {"ok": _short(self.answer), "error": f"error {self.answer}", "unknown": "no answer"}[
            self.outcome
        ]
        arguments = ", ".join(f"{name}={_short(value)}" for name, value in self.arguments.items())
        return f"[{self.id} {self.start:.3f} to {self.end:.3f} {self.function}({arguments}) → {told}]"


@dataclass(frozen=True, eq=False)
class History:
    """All operations of a run, and what the tables hold after it.

    Attributes:
        operations: By their start.
        tables: What `tables.py` has read in the end: jobs with their chunks, and what breaks the invariants.
        clock: What to add to the monotonic clock for the seconds of the wall's.
    """

    operations: list[Operation]
    tables: dict[str, Any] = field(default_factory=lambda: {"jobs": [], "broken": []})
    clock: float = 0.0

    def of(self, *functions: str) -> list[Operation]:
        """The operations of some functions that may have been done, by their start."""
        return [each for name in functions for each in self._possible.get(name, [])]

    def moment(self, timestamp: str) -> float:
        """A timestamp of the database on the monotonic clock."""
        return datetime.fromisoformat(timestamp).timestamp() - self.clock

    @cached_property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """The jobs in the tables."""
        return {job["id"]: job for job in self.tables["jobs"]}

    @cached_property
    def job_of(self) -> dict[int, str]:
        """Of which job each chunk in the tables is."""
        return {chunk["id"]: job["id"] for job in self.tables["jobs"] for chunk in job["chunks"]}

    @cached_property
    def chunks(self) -> dict[int, dict[str, Any]]:
        """The chunks in the tables."""
        return {chunk["id"]: chunk for job in self.tables["jobs"] for chunk in job["chunks"]}

    @cached_property
    def _possible(self) -> dict[str, list[Operation]]:
        found: dict[str, list[Operation]] = {}
        for operation in self.operations:
            if operation.possible:
                found.setdefault(operation.function, []).append(operation)
        return found


def load(folder: Path) -> History:
    """Read a history from its folder."""
    operations: list[Operation] = []
    clock = 0.0
    for path in sorted(folder.glob("*.jsonl")):
        asked: dict[str, Operation] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # what a killed process had not finished writing
                continue
            if "clock" in entry:
                clock = entry["clock"]
            elif "call" in entry:
                asked[entry["id"]] = Operation(entry["id"], entry["call"], entry["arguments"], entry["at"])
            else:
                asked[entry["id"]] = _answered(asked[entry["id"]], entry)
        operations += asked.values()
    operations = sorted(_before_the_tables(operations), key=lambda each: each.start)
    tables = folder / TABLES
    if not tables.exists():
        return History(operations, clock=clock)
    return History(operations, json.loads(tables.read_text(encoding="utf-8")), clock)


def _before_the_tables(operations: list[Operation]) -> Iterator[Operation]:
    """What came after the tables were read is none of their business; what was under way then may be in them or not."""
    reads = [operation for operation in operations if operation.function == READ]
    began = min((read.start for read in reads), default=math.inf)
    ended = min((read.end for read in reads), default=math.inf)
    for operation in operations:
        if operation.function == READ or operation.start > ended:
            continue
        under_way = operation.ok and operation.end > began
        yield replace(operation, end=math.inf, outcome="unknown", answer=None) if under_way else operation


def _answered(operation: Operation, entry: dict[str, Any]) -> Operation:
    for outcome in ("ok", "error"):
        if outcome in entry:
            return Operation(
                operation.id,
                operation.function,
                operation.arguments,
                operation.start,
                entry["at"],
                outcome,
                entry[outcome],
            )
    return operation


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 160 else text[:157] + "…"
