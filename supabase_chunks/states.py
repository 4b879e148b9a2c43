"""The states of jobs and chunks, and the outcomes of reports."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

__all__ = ["ChunkStatus", "ChunkStatusName", "JobStatus", "JobStatusName", "Outcome"]

JobStatusName: TypeAlias = Literal["pending", "running", "paused", "completed", "failed", "cancelled"]
"""The states of a sync job as text, for type checkers."""
ChunkStatusName: TypeAlias = Literal["pending", "processing", "completed", "failed", "cancelled"]
"""The states of a chunk as text, for type checkers."""


class JobStatus(StrEnum):
    """The states of a sync job."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing happens any more without a retry."""
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


class ChunkStatus(StrEnum):
    """The states of a chunk."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing happens any more without a retry."""
        return self in (ChunkStatus.COMPLETED, ChunkStatus.FAILED, ChunkStatus.CANCELLED)


class Outcome(StrEnum):
    """What the database made of a report on a chunk."""

    COMPLETED = "completed"
    RETRYING = "retrying"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RELEASED = "released"
    THROTTLED = "throttled"
    """It was given back without an attempt, since what it works on asked for a pause."""
    STALE = "stale"
    """The claim token is not the present one: the lease was lost, and somebody else has the chunk."""
    ERROR = "error"
    """The report itself was not valid (bulk reports only); `code` and `message` say why."""
