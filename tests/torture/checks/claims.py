"""From operations to claims: who certainly held which chunk, from when until when.

An operation takes effect at one moment between its start and its end. So a claim certainly holds from the end of the first
answer that told of it, until the earliest moment at which something may have ended it: a report or a give-back with its token,
a cancel of its job, or the end of its lease. A report that was accepted shows that nothing else had ended it before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from tests.torture.history import History, Operation

# By how much a lease's end may be misjudged: clocks are compared once.
SLACK = 0.05
ENDS_BY_A_WORKER = {"completed", "retrying", "failed", "throttled", "released"}
CLAIMS = ("claim_next_chunk_job_safe", "claim_chunk_jobs_safe")
REPORTS = ("complete_chunk_job_safe", "complete_chunk_jobs_safe", "release_chunk_job")


@dataclass(frozen=True)
class Report:
    """What one operation says of one chunk.

    Attributes:
        operation: It.
        arguments: Those of this chunk.
        outcome: What it was answered; None when that is unknown.
        next: The chunk claimed with it.
    """

    operation: Operation
    arguments: dict[str, Any]
    outcome: str | None = None
    next: dict[str, Any] | None = None

    @property
    def token(self) -> str:
        """The claim's token."""
        return str(self.arguments["claim_token"])

    @property
    def chunk_id(self) -> int:
        """The chunk."""
        return int(self.arguments["chunk_id"])

    @property
    def is_release(self) -> bool:
        """Whether it gives the chunk back."""
        return self.operation.function == "release_chunk_job"

    @property
    def succeeds(self) -> bool:
        """Whether it says that the chunk is done."""
        return not self.is_release and self.arguments.get("success", True) is not False


@dataclass
class Claim:
    """A token and what is known of it.

    Attributes:
        chunk: The first answer that told of it.
        told: The operations that did.
        first: When it may have been made at the earliest.
        lease: When its lease ends, by all that was answered.
        cancelled: When its job may have been cancelled at the earliest.
        reports: What was said with its token.
    """

    chunk: dict[str, Any]
    told: list[Operation]
    first: float
    lease: float
    cancelled: float = math.inf
    reports: list[Report] = field(default_factory=list)

    @property
    def token(self) -> str:
        """Its token."""
        return str(self.chunk["claim_token"])

    @property
    def chunk_id(self) -> int:
        """Its chunk."""
        return int(self.chunk["chunk_id"])

    @property
    def job_id(self) -> str:
        """Its chunk's job."""
        return str(self.chunk["parent_sync_job_id"])

    @cached_property
    def known(self) -> float:
        """Since when it was certainly made."""
        return min(operation.end for operation in self.told)

    @cached_property
    def reported(self) -> float:
        """When it may have been reported on at the earliest."""
        return min((report.operation.start for report in self.reports), default=math.inf)

    @cached_property
    def outcome(self) -> str | None:
        """How its worker ended it; None when it did not, or nobody knows."""
        return next((report.outcome for report in self.reports if report.outcome in ENDS_BY_A_WORKER), None)

    @cached_property
    def until(self) -> float:
        """Until when it certainly held."""
        if self.outcome is not None:
            return self.reported
        return min(self.reported, self.cancelled, self.lease - SLACK)

    def held(self, start: float, end: float) -> bool:
        """Whether it certainly held all the time between."""
        return self.known <= start and end <= self.until

    def __str__(self) -> str:
        return (
            f"chunk {self.chunk_id} of {self.job_id} by {min(self.told, key=lambda operation: operation.end)}"
        )


_read_before: WeakKeyDictionary[History, dict[str, Claim]] = WeakKeyDictionary()


def claims(history: History) -> dict[str, Claim]:
    """All claims that anybody was told of, by token."""
    if history not in _read_before:
        _read_before[history] = _read(history)
    return _read_before[history]


def reports(history: History) -> list[Report]:
    """All that was said of chunks' ends."""
    found: list[Report] = []
    for operation in history.of(*REPORTS):
        if operation.function == "complete_chunk_jobs_safe":
            answers = operation.answer if operation.ok else [None] * len(operation.arguments["completions"])
            for arguments, answer in zip(operation.arguments["completions"], answers, strict=True):
                found.append(_report(operation, arguments, answer))
        else:
            found.append(_report(operation, operation.arguments, operation.answer if operation.ok else None))
    return [report for report in found if report.outcome != "error"]


def told_by(operation: Operation) -> list[dict[str, Any]]:
    """The chunks that a claim's answer tells of."""
    if operation.function in CLAIMS and operation.ok:
        return list(operation.answer or [])
    if operation.function == "complete_chunk_job_safe" and operation.ok and operation.answer.get("next"):
        return [operation.answer["next"]]
    return []


def _report(operation: Operation, arguments: dict[str, Any], answer: dict[str, Any] | None) -> Report:
    if answer is None:
        return Report(operation, arguments)
    return Report(operation, arguments, answer["outcome"], answer.get("next"))


def _read(history: History) -> dict[str, Claim]:
    found: dict[str, Claim] = {}
    # Repeated with the same id, a claim may have been made by the first that asked: of a claim_next its token is the id.
    first: dict[str, float] = {}
    for operation in history.of(*CLAIMS, "complete_chunk_job_safe"):
        name = operation.arguments.get("claim_id") or operation.arguments.get("claim_token")
        if name is not None:
            first[str(name)] = min(operation.start, first.get(str(name), math.inf))
    for operation in history.of(*CLAIMS, "complete_chunk_job_safe"):
        name = operation.arguments.get("claim_id") or operation.arguments.get("claim_token")
        for chunk in told_by(operation):
            began = first.get(str(name), operation.start)
            lease = history.moment(chunk["locked_until"])
            claim = found.setdefault(str(chunk["claim_token"]), Claim(chunk, [], began, lease))
            claim.told.append(operation)
            claim.first = min(claim.first, began)
            claim.lease = max(claim.lease, lease)
    for report in reports(history):
        if report.token in found:
            found[report.token].reports.append(report)
    for _, asked, answer in heartbeats(history):
        if answer is not None and answer["ok"] and str(asked["claim_token"]) in found:
            claim = found[str(asked["claim_token"])]
            claim.lease = max(claim.lease, history.moment(answer["locked_until"]))
    for operation in history.of("cancel_sync_job"):
        for claim in found.values():
            if claim.job_id == operation.arguments["parent_sync_job_id"]:
                claim.cancelled = min(claim.cancelled, operation.start)
    return found


def heartbeats(history: History) -> list[tuple[Operation, dict[str, Any], dict[str, Any] | None]]:
    """Each heartbeat of each chunk: the operation, the item, its answer."""
    found: list[tuple[Operation, dict[str, Any], dict[str, Any] | None]] = []
    for operation in history.of("extend_chunk_lease", "extend_chunk_leases"):
        many = operation.function == "extend_chunk_leases"
        items = operation.arguments["leases"] if many else [operation.arguments]
        answers = (operation.answer if many else [operation.answer]) if operation.ok else [None] * len(items)
        found += [(operation, item, answer) for item, answer in zip(items, answers, strict=True)]
    return found
