"""Histories told by hand, for the tests of what reads them: seconds are written as they come, and all wall clocks show 1970."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from tests.torture.history import History, Operation

JOB = "job-1"
STATES = ("total", "pending", "processing", "completed", "failed", "cancelled")


class Story:
    """A history of one job with three chunks, a cap of two and leases of ten seconds; each line is an operation."""

    def __init__(
        self,
        *,
        chunks: int = 3,
        cap: int = 2,
        limit_key: str | None = None,
        start: tuple[float, float] = (0, 1),
    ) -> None:
        """Begin with the start of the job."""
        self.operations: list[Operation] = []
        self.limit_key = limit_key
        self.chunks: dict[int, dict[str, Any]] = {}
        self.job: dict[str, Any] = {"id": JOB, "status": "running", "cap": cap, "events": [], "chunks": []}
        self.broken: list[str] = []
        payloads = [self._chunk() for _ in range(chunks)]
        arguments = {"kind": "calls", "chunks": payloads, "request_id": "r", "max_concurrency": cap}
        self.ask("start_sync_job", start, arguments, self._counts(total=chunks, pending=chunks))

    def ask(
        self,
        function: str,
        at: tuple[float, float],
        arguments: dict[str, Any],
        answer: Any = None,
        *,
        outcome: str = "ok",
    ) -> None:
        """Any operation."""
        number = len(self.operations) + 1
        self.operations.append(Operation(f"teller-1:{number}", function, arguments, *at, outcome, answer))  # type: ignore[arg-type]

    def lost(self, function: str, start: float, arguments: dict[str, Any]) -> None:
        """An operation that nobody answered."""
        self.ask(function, (start, math.inf), arguments, outcome="unknown")

    def claim(
        self,
        token: str,
        chunk: int,
        at: tuple[float, float],
        *,
        claim_id: str | None = None,
        lease: float = 10,
        attempt: int = 1,
    ) -> None:
        """A claim that got a chunk."""
        self.ask(
            "claim_next_chunk_job_safe",
            at,
            {"claim_id": claim_id},
            [self.taken(token, chunk, at[1] + lease, attempt)],
        )

    def taken(self, token: str, chunk: int, until: float, attempt: int = 1) -> dict[str, Any]:
        """What a claim tells of a chunk."""
        return {
            "chunk_id": chunk,
            "parent_sync_job_id": JOB,
            "claim_token": token,
            "locked_until": _stamp(until),
            "attempt": attempt,
            "max_attempts": 3,
            "limit_key": self.limit_key,
        }

    def report(
        self,
        token: str,
        chunk: int,
        at: tuple[float, float],
        outcome: str = "completed",
        *,
        ends: bool = True,
        **more: Any,
    ) -> None:
        """A report, of a success unless its outcome is another; the tables hold what it says unless told otherwise."""
        following = more.pop("next", None)
        success = outcome in {"completed", "stale"}
        arguments = {
            "chunk_id": chunk,
            "claim_token": token,
            "success": success,
            "items_processed": 2 if success else None,
            **more,
        }
        self.ask("complete_chunk_job_safe", at, arguments, {"outcome": outcome, "next": following})
        if ends and outcome == "completed":
            self.chunks[chunk] |= {
                "status": "completed",
                "token": token,
                "result": {"m": self.chunks[chunk]["marker"]},
            }

    def give_back(self, token: str, chunk: int, at: tuple[float, float], outcome: str = "released") -> None:
        """A chunk is given back."""
        self.ask("release_chunk_job", at, {"chunk_id": chunk, "claim_token": token}, {"outcome": outcome})

    def beat(self, token: str, chunk: int, at: tuple[float, float], *, ok: bool = True) -> None:
        """A heartbeat."""
        answer = {"ok": ok, "locked_until": _stamp(at[1] + 10) if ok else None}
        self.ask("extend_chunk_lease", at, {"chunk_id": chunk, "claim_token": token}, answer)

    def progress(self, at: tuple[float, float], **counts: int) -> None:
        """Somebody looks."""
        self.ask("get_sync_job_progress_safe", at, {"parent_sync_job_id": JOB}, self._counts(**counts))

    def steer(self, function: str, at: tuple[float, float], status: str, **counts: int) -> None:
        """Pause, resume, cancel or retry."""
        self.ask(function, at, {"parent_sync_job_id": JOB}, self._counts(**counts) | {"status": status})

    def append(self, at: tuple[float, float], *, there: int = 1) -> None:
        """Two chunks are appended, of which some are there."""
        marks = [f"appended-{number}" for number in range(2)]
        arguments = {"parent_sync_job_id": JOB, "chunks": [{"m": mark} for mark in marks], "request_id": "a"}
        self.lost("append_sync_chunks", at[0], arguments) if at[1] == math.inf else self.ask(
            "append_sync_chunks", at, arguments, self._counts(total=5, pending=5)
        )
        for mark in marks[:there]:
            self._chunk(mark)

    def look(self, at: tuple[float, float], held: dict[int, str], *, counts: list[int] | None = None) -> None:
        """The observer looks at the tables."""
        rows = [3, 3 - len(held), len(held), 0, 0, 0]
        job = {
            "id": JOB,
            "counts": counts or rows,
            "rows": rows,
            "held": {str(chunk): token for chunk, token in held.items()},
        }
        self.ask("observe", at, {}, {"jobs": [job]})

    def end(self, status: str, *events: str) -> None:
        """How the job stands in the tables."""
        self.job |= {"status": status, "events": list(events)}

    def told(self) -> History:
        """The history."""
        job = self.job | {"chunks": list(self.chunks.values())}
        return History(
            sorted(self.operations, key=lambda each: each.start), {"jobs": [job], "broken": self.broken}
        )

    def _chunk(self, mark: str | None = None) -> dict[str, Any]:
        number = len(self.chunks) + 1
        mark = mark or f"mark-{number}"
        self.chunks[number] = {
            "id": number,
            "status": "pending",
            "marker": mark,
            "token": None,
            "result": None,
        }
        return {"m": mark}

    def _counts(self, **counts: int) -> dict[str, Any]:
        answer: dict[str, Any] = {f"{state}_chunks": counts.get(state, 0) for state in STATES}
        return answer | {
            "id": JOB,
            "status": "running",
            "items_processed": counts.get("items", 2 * counts.get("completed", 0)),
        }


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
