"""What was added to the queue: the chunks of starts, appends and next_chunks, known again by the mark that each carries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tests.torture.checks.claims import reports
from tests.torture.history import History, Operation


@dataclass
class Addition:
    """Chunks that were to be added together, all or none; repeated, once.

    Attributes:
        marks: Those of its chunks.
        asked: The operations that asked for it.
        done: Since when it was certainly done; infinite when nobody knows.
        refused: Whether all that asked were told that their claim was not theirs.
    """

    marks: tuple[str, ...]
    asked: list[Operation]
    done: float = math.inf
    refused: bool = False

    @property
    def began(self) -> float:
        """When it may have been done at the earliest."""
        return min(operation.start for operation in self.asked)


def additions(history: History) -> list[Addition]:
    """All of them."""
    found: dict[str, Addition] = {}
    for operation in history.of("start_sync_job", "append_sync_chunks"):
        addition = _of(
            found,
            str(operation.arguments.get("request_id", operation.id)),
            operation.arguments.get("chunks"),
            operation,
        )
        if operation.ok:
            addition.done = min(addition.done, operation.end)
    for report in reports(history):
        if report.succeeds and report.arguments.get("next_chunks"):
            first = f"{report.chunk_id} {report.token}" not in found
            addition = _of(
                found, f"{report.chunk_id} {report.token}", report.arguments["next_chunks"], report.operation
            )
            addition.refused = (first or addition.refused) and report.outcome not in {None, "completed"}
            if report.outcome == "completed":
                addition.done = min(addition.done, report.operation.end)
    return list(found.values())


def marks(chunks: list[dict[str, Any]] | None) -> tuple[str, ...]:
    """The marks of payloads."""
    return tuple(chunk["m"] for chunk in chunks or [])


def _of(
    found: dict[str, Addition], name: str, chunks: list[dict[str, Any]] | None, operation: Operation
) -> Addition:
    addition = found.setdefault(name, Addition(marks(chunks), []))
    addition.asked.append(operation)
    return addition
