"""What a worker's handler gets and gives: a `Chunk`, a `Result`, and two exceptions that steer retries."""
# ruff: noqa: N818 - RetryLater and PermanentFailure are instructions to the worker, not errors of ours.

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ._claim_life import ClaimLife

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from .models import Claim


class Chunk:
    """A claimed chunk in a worker's hands.

    A chunk may run more than once, as after a worker's death; exactly one completion is accepted. So write
    handlers that may be repeated, with `idempotency_key` where another system is told something.

    Example:
        >>> def handler(chunk: Chunk) -> dict[str, int]:
        ...     for number, row in enumerate(chunk.payload["rows"], start=1):
        ...         if chunk.cancel_requested:
        ...             break
        ...         chunk.report(number)
        ...     return {"rows": len(chunk.payload["rows"])}
    """

    def __init__(self, claim: Claim) -> None:
        """Take the claim."""
        self._claim = claim
        self._life = ClaimLife(claim)

    @property
    def id(self) -> int:
        """The chunk's id."""
        return self._claim.chunk_id

    @property
    def job_id(self) -> UUID:
        """The job it belongs to."""
        return self._claim.parent_sync_job_id

    @property
    def kind(self) -> str:
        """The job's kind."""
        return self._claim.kind

    @property
    def index(self) -> int:
        """Its number in the job, from 0."""
        return self._claim.chunk_index

    @property
    def payload(self) -> Any:
        """What to do, a JSON object."""
        return self._claim.payload

    @property
    def job_payload(self) -> Any:
        """What every chunk of the job may need."""
        return self._claim.job_payload

    @property
    def owner_id(self) -> UUID | None:
        """The user whose job it is; None for the service's own."""
        return self._claim.owner_id

    @property
    def attempt(self) -> int:
        """1 for the first attempt."""
        return self._claim.attempt

    @property
    def max_attempts(self) -> int:
        """The number of the last attempt that there can be."""
        return self._claim.max_attempts

    @property
    def idempotency_key(self) -> str:
        """A text that names this chunk and stays the same across its attempts."""
        return f"{self.job_id}:{self.index}"

    @property
    def cancel_requested(self) -> bool:
        """Whether the result is no longer wanted: the job was cancelled, or the lease was lost.

        Known with the next heartbeat, so after a third of the lease at most.
        """
        return self._life.is_cancelled or self._life.is_lost

    def report(self, items: int) -> None:
        """Say how many items of this chunk are done so far: shown by a heartbeat, counted at the end.

        Args:
            items: Their number; below 0 counts as 0, above 2^53 - 1 as that.
        """
        self._life.progressed(items)

    def __repr__(self) -> str:
        """Return which chunk it is."""
        return f"<Chunk {self.index} of {self.job_id}, attempt {self.attempt} of {self.max_attempts}>"


class Result:
    """A handler's result with more than a value.

    Example:
        >>> Result({"pages": 3}, next_chunks=[{"page": n} for n in range(3)])
        Result({'pages': 3}, next_chunks=3)
    """

    def __init__(
        self,
        value: object = None,
        *,
        next_chunks: Iterable[object] = (),
        items_processed: int | None = None,
        items_total: int | None = None,
    ) -> None:
        """Take what a completed chunk leaves behind.

        Args:
            value: What is kept as the chunk's result, as JSON.
            next_chunks: Payloads of chunks to add to the job.
            items_processed: How many items the chunk dealt with; what was last reported unless given.
            items_total: What it adds to the job's total of items.
        """
        self.value = value
        self.next_chunks: list[object] = list(next_chunks)
        self.items_processed = items_processed
        self.items_total = items_total

    def __repr__(self) -> str:
        """Return the value, and how many chunks follow."""
        return f"Result({self.value!r}, next_chunks={len(self.next_chunks)})"


class RetryLater(Exception):
    """Raised by a handler: try this chunk again, not before so many seconds. It costs an attempt.

    Example:
        >>> raise RetryLater(60, "the API asks for a pause")
        Traceback (most recent call last):
        supabase_chunks.chunk.RetryLater: the API asks for a pause
    """

    def __init__(self, seconds: float, reason: str | None = None) -> None:
        """Take the seconds (more than a week count as a week), and what to keep as the chunk's error."""
        self.seconds: float = float(seconds)
        if math.isnan(self.seconds):
            raise ValueError("the seconds of a RetryLater are not a number")
        super().__init__(reason or f"asked for another try in {self.seconds:g} s")


class PermanentFailure(Exception):
    """Raised by a handler: this chunk has failed for good; do not try it again.

    Example:
        >>> raise PermanentFailure("there is no such folder")
        Traceback (most recent call last):
        supabase_chunks.chunk.PermanentFailure: there is no such folder
    """
