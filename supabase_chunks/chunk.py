"""What a worker's handler gets and gives: a `Chunk`, a `Result` or `Continue`, and three exceptions."""
# ruff: noqa: N818 - these exceptions are instructions to the worker, not errors of ours.

from __future__ import annotations

import copyreg
import math
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import _pace, _saved
from ._claim_life import ClaimLife, Holder
from ._encode import encode_object

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from ._driver import AsyncDriver, Driver
    from ._encode import JSON
    from .models import Claim

if TYPE_CHECKING:
    # Python's own has no default before 3.13.
    from typing_extensions import TypeVar as TypeVarWithDefault

    P = TypeVarWithDefault("P", default=dict[str, Any])
else:
    P = TypeVar("P")


class HeldChunk(Generic[P]):
    """What `Chunk` and `AsyncChunk` have in common."""

    def __init__(self, claim: Claim, holder: Holder | None = None) -> None:
        """Take the claim, and who holds it."""
        self._claim = claim
        self._payload: Any = claim.payload
        self._life = ClaimLife(claim, holder or Holder())

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
    def payload(self) -> P:
        """What to do: a JSON object, or what the worker was told to make of it (`payload=`)."""
        payload: P = self._payload
        return payload

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

        Known with the next heartbeat, so after 15 seconds at most.
        """
        return self._life.is_cancelled or self._life.is_lost

    def report(self, items: int) -> None:
        """Say how many items of this chunk are done so far: shown by a heartbeat, counted at the end.

        Args:
            items: Their number; below 0 counts as 0, above 2^53 - 1 as that.
        """
        self._life.progressed(items)

    @property
    def checkpoint(self) -> Any:
        """Where to go on: what was saved last, in this attempt or an earlier one; None at first."""
        return self._life.checkpoint

    @property
    def time_left(self) -> float:
        """Seconds that this attempt still has: infinity, unless the worker was told to end."""
        return self._life.time_left

    def _to_save(self, checkpoint: object, items: int | None) -> dict[str, JSON]:
        encoded = encode_object(checkpoint, "checkpoint")
        if items is not None:
            self.report(items)
        return encoded

    def __repr__(self) -> str:
        """Return which chunk it is."""
        return f"<Chunk {self.index} of {self.job_id}, attempt {self.attempt} of {self.max_attempts}>"


class Chunk(HeldChunk[P]):
    """A claimed chunk in a worker's hands; a `Chunk[Page]`, if the worker makes a `Page` of each payload.

    A chunk may run more than once, as after a worker's death; exactly one completion is accepted. So write
    handlers that may be repeated, with `idempotency_key` where another system is told something, and save
    checkpoints where a chunk takes long.

    Example:
        >>> def handler(chunk: Chunk) -> dict[str, int]:
        ...     page = (chunk.checkpoint or {"page": 0})["page"]
        ...     while page < chunk.payload["pages"] and not chunk.cancel_requested:
        ...         page += 1
        ...         chunk.save({"page": page}, items=page)
        ...     return {"pages": page}
    """

    def __init__(self, claim: Claim, holder: Holder | None = None, driver: Driver | None = None) -> None:
        """Take the claim, who holds it, and what sends calls."""
        super().__init__(claim, holder)
        self._driver = driver

    def save(self, checkpoint: object, *, items: int | None = None) -> None:
        """Save where a later attempt goes on; returns when it is stored.

        A new checkpoint is progress: the attempts count anew.

        Args:
            checkpoint: A JSON object of at most 8 KB.
            items: How many items of this chunk are done so far; as last reported unless given.

        Raises:
            LeaseLost: The claim is no longer ours, so nothing was saved. Let it end the handler.
            PayloadError: It is no JSON object.
            LimitExceeded: It is too large.
        """
        self._sender().run(_saved.save_checkpoint(self._life, self._to_save(checkpoint, items)))

    def state(self) -> Any:
        """Return what the last completed sync of the same kind, `job_key` and owner has left, or None."""
        return self._sender().run(_saved.read_state(self._life))

    def pace(self, n: int = 1) -> None:
        """Wait until the job's limit key has room for `n` more requests; returns at once without a rate.

        What all who ask are let through together stays within the rate, in any window of its time.

        Args:
            n: How many requests follow, from 1 to the rate.

        Raises:
            LeaseLost: While it waited the claim was lost, or the job cancelled. Let it end the handler.
            InvalidArgument: More than the rate, or less than 1.
        """
        self._sender().run(_pace.wait_for_room(self._life, n))

    def _sender(self) -> Driver:
        if self._driver is None:
            raise RuntimeError("only a chunk that a worker has claimed can save, read and pace")
        return self._driver


class AsyncChunk(HeldChunk[P]):
    """What `AsyncWorker` gives to coroutine functions: a `Chunk` whose `save` and `state` are awaited.

    Example:
        >>> async def handler(chunk: AsyncChunk) -> dict[str, int]:
        ...     await chunk.save({"page": 1}, items=100)
        ...     return {"pages": 1}
    """

    def __init__(self, claim: Claim, holder: Holder, driver: AsyncDriver) -> None:
        """Take the claim, who holds it, and what sends calls."""
        super().__init__(claim, holder)
        self._driver = driver

    async def save(self, checkpoint: object, *, items: int | None = None) -> None:
        """Save where a later attempt goes on; returns when it is stored."""
        await self._driver.run(_saved.save_checkpoint(self._life, self._to_save(checkpoint, items)))

    async def state(self) -> Any:
        """Return what the last completed sync of the same kind, `job_key` and owner has left, or None."""
        return await self._driver.run(_saved.read_state(self._life))

    async def pace(self, n: int = 1) -> None:
        """Wait until the job's limit key has room for `n` more requests; see `Chunk.pace`."""
        await self._driver.run(_pace.wait_for_room(self._life, n))


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
        next_state: object = None,
    ) -> None:
        """Take what a completed chunk leaves behind.

        Args:
            value: What is kept as the chunk's result, as JSON.
            next_chunks: Payloads of chunks to add to the job.
            items_processed: How many items the chunk dealt with; what was last reported unless given.
            items_total: What it adds to the job's total of items.
            next_state: A JSON object that is merged into what the job leaves for the next one with its kind,
                `job_key` and owner, if it completes (64 KB in all); None leaves nothing.
        """
        self.value = value
        self.next_chunks: list[object] = list(next_chunks)
        self.items_processed = items_processed
        self.items_total = items_total
        self.next_state = next_state

    def __repr__(self) -> str:
        """Return the value, and how many chunks follow."""
        return f"Result({self.value!r}, next_chunks={len(self.next_chunks)})"


class Continue:
    """Returned by a handler that has used its time: the chunk goes on from here in a claim of its own.

    It costs no attempt while each checkpoint is a new one. Other chunks may come in between.

    Example:
        >>> Continue({"page": 41}, items=4100)
        Continue({'page': 41})
    """

    def __init__(self, checkpoint: object, *, items: int | None = None) -> None:
        """Take where to go on.

        Args:
            checkpoint: A JSON object of at most 8 KB.
            items: How many items of this chunk are done so far; what was last reported unless given.
        """
        self.checkpoint = checkpoint
        self.items = items

    def __repr__(self) -> str:
        """Return where it goes on."""
        return f"Continue({self.checkpoint!r})"


class _Later(Exception):
    """Not now, but after so many seconds."""

    def __init__(self, seconds: float, reason: str) -> None:
        self.seconds: float = float(seconds)
        """How long to wait, in seconds."""
        if math.isnan(self.seconds):
            raise ValueError(f"the seconds of a {type(self).__name__} are not a number")
        super().__init__(reason)

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process, as from a process pool, with the seconds."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]  # is there


class RetryLater(_Later):
    """Raised by a handler: try this chunk again, not before so many seconds. It costs an attempt.

    Example:
        >>> raise RetryLater(60, "the server is being restarted")
        Traceback (most recent call last):
        supabase_chunks.chunk.RetryLater: the server is being restarted
    """

    def __init__(self, seconds: float, reason: str | None = None) -> None:
        """Take the seconds (more than a week count as a week), and what to keep as the chunk's error."""
        super().__init__(seconds, reason or f"asked for another try in {float(seconds):g} s")


class Throttled(_Later):
    """Raised by a handler: what it works on asks for a pause. It costs no attempt.

    The chunk goes back, and until then no chunk with the same limit key is handed out, of any job; without a
    key only this chunk waits. After a hundred times without progress it does cost an attempt.

    Example:
        >>> raise Throttled(30, "429 Too Many Requests")
        Traceback (most recent call last):
        supabase_chunks.chunk.Throttled: 429 Too Many Requests
    """

    def __init__(self, seconds: float, reason: str | None = None) -> None:
        """Take the seconds (more than an hour count as an hour), and what is said of it meanwhile."""
        super().__init__(seconds, reason or f"asked for a pause of {float(seconds):g} s")


class PermanentFailure(Exception):
    """Raised by a handler: this chunk has failed for good; do not try it again.

    Example:
        >>> raise PermanentFailure("there is no such folder")
        Traceback (most recent call last):
        supabase_chunks.chunk.PermanentFailure: there is no such folder
    """
