"""The queue's own calls, for workers of another make than `Worker`: `client.queue`."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from . import operations
from ._encode import encode, encode_object, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._driver import AsyncDriver, Driver
    from ._encode import JSON
    from ._flow import Flow
    from .models import Claim, Completion, Lease


class Queue:
    """Claim chunks and report on them. Needs a secret key.

    Example:
        >>> while (claim := client.queue.claim("worker-1", kinds=["reports"])) is not None:
        ...     answer = client.queue.complete(claim, {"page": claim.payload["page"]})
        >>> job.progress().completed_chunks
        2
    """

    def __init__(self, driver: Driver) -> None:
        """Take what sends the calls."""
        self._driver = driver

    def claim(
        self,
        worker_id: str,
        *,
        kinds: Sequence[str] | None = None,
        job_id: UUID | None = None,
        lease_seconds: int | None = None,
    ) -> Claim | None:
        """Claim one chunk; None when there is none.

        Args:
            worker_id: Who claims, shown beside the chunk.
            kinds: Of which kinds; None means those that have a handler.
            job_id: Of which job only.
            lease_seconds: For how long; None means as the kind says.

        Example:
            >>> client.queue.claim("worker-1", kinds=["reports"]).payload
            {'page': 1}
        """
        return self._driver.run(_claim(worker_id, kinds, job_id, lease_seconds))

    def claim_batch(
        self,
        worker_id: str,
        size: int,
        *,
        kinds: Sequence[str] | None = None,
        job_id: UUID | None = None,
        lease_seconds: int | None = None,
    ) -> list[Claim]:
        """Claim up to `size` chunks, at most 100.

        Example:
            >>> [claim.chunk_index for claim in client.queue.claim_batch("worker-1", 10, kinds=["reports"])]
            [0, 1]
        """
        return self._driver.run(_claim_batch(worker_id, size, kinds, job_id, lease_seconds))

    def complete(
        self,
        claim: Claim,
        result: object = None,
        *,
        next_chunks: Sequence[object] | None = None,
        items_processed: int | None = None,
        items_total: int | None = None,
        claim_next: bool = False,
        next_state: object = None,
    ) -> Completion:
        """Report a chunk as done.

        Args:
            claim: The chunk.
            result: What is kept of it, as JSON.
            next_chunks: Payloads of chunks to add to the job.
            items_processed: How many items it dealt with.
            items_total: What it adds to the job's total.
            claim_next: Whether to claim the job's next chunk in the same call.
            next_state: A JSON object, merged into what the job leaves for the next one if it completes.

        Returns:
            The outcome; `stale` when the lease was lost and somebody else has the chunk.

        Raises:
            PayloadError: The result or a next chunk cannot be sent.

        Example:
            >>> claim = client.queue.claim("worker-1", kinds=["reports"])
            >>> answer = client.queue.complete(claim, {"rows": 12}, next_chunks=[{"page": 3}])
            >>> answer.outcome, answer.remaining
            (<Outcome.COMPLETED: 'completed'>, 2)
        """
        return self._driver.run(
            _complete(claim, result, next_chunks, items_processed, items_total, claim_next, next_state)
        )

    def fail(
        self,
        claim: Claim,
        error: str,
        *,
        retryable: bool = True,
        retry_after_seconds: int | None = None,
        throttled_seconds: int | None = None,
    ) -> Completion:
        """Report that a chunk failed: try it again, not before so many seconds (a week at most), or never.

        With `throttled_seconds` it is no failure: the chunk goes back without an attempt, and its limit key
        is blocked for as long (an hour at most).

        Example:
            >>> claim = client.queue.claim("worker-1", kinds=["reports"])
            >>> client.queue.fail(claim, "the API is down", retry_after_seconds=60).outcome
            <Outcome.RETRYING: 'retrying'>
        """
        return self._driver.run(_fail(claim, error, retryable, retry_after_seconds, throttled_seconds))

    def extend(
        self,
        claim: Claim,
        *,
        lease_seconds: int | None = None,
        items_processed: int | None = None,
        checkpoint: object = None,
    ) -> Lease:
        """Send a heartbeat.

        Args:
            claim: The chunk.
            lease_seconds: For how long the claim shall hold from now on; as before unless given.
            items_processed: How many items are done so far.
            checkpoint: Where a later attempt goes on, a JSON object of at most 8 KB; stored if `ok`.

        Example:
            >>> claim = client.queue.claim("worker-1", kinds=["reports"])
            >>> client.queue.extend(claim, items_processed=40).ok
            True
        """
        return self._driver.run(_extend(claim, lease_seconds, items_processed, checkpoint))

    def release(
        self,
        claim: Claim,
        *,
        reason: str | None = None,
        checkpoint: object = None,
        items_processed: int | None = None,
    ) -> Completion:
        """Give a chunk back unfinished.

        It costs no attempt with a new checkpoint, and a bounded number of times without.

        Example:
            >>> claim = client.queue.claim("worker-1", kinds=["reports"])
            >>> client.queue.release(claim).outcome
            <Outcome.RELEASED: 'released'>
        """
        return self._driver.run(_release(claim, reason, checkpoint, items_processed))


class AsyncQueue:
    """Claim chunks and report on them; see `Queue`."""

    def __init__(self, driver: AsyncDriver) -> None:
        """Take what sends the calls."""
        self._driver = driver

    async def claim(
        self,
        worker_id: str,
        *,
        kinds: Sequence[str] | None = None,
        job_id: UUID | None = None,
        lease_seconds: int | None = None,
    ) -> Claim | None:
        """Claim one chunk; None when there is none."""
        return await self._driver.run(_claim(worker_id, kinds, job_id, lease_seconds))

    async def claim_batch(
        self,
        worker_id: str,
        size: int,
        *,
        kinds: Sequence[str] | None = None,
        job_id: UUID | None = None,
        lease_seconds: int | None = None,
    ) -> list[Claim]:
        """Claim up to `size` chunks, at most 100."""
        return await self._driver.run(_claim_batch(worker_id, size, kinds, job_id, lease_seconds))

    async def complete(
        self,
        claim: Claim,
        result: object = None,
        *,
        next_chunks: Sequence[object] | None = None,
        items_processed: int | None = None,
        items_total: int | None = None,
        claim_next: bool = False,
        next_state: object = None,
    ) -> Completion:
        """Report a chunk as done."""
        return await self._driver.run(
            _complete(claim, result, next_chunks, items_processed, items_total, claim_next, next_state)
        )

    async def fail(
        self,
        claim: Claim,
        error: str,
        *,
        retryable: bool = True,
        retry_after_seconds: int | None = None,
        throttled_seconds: int | None = None,
    ) -> Completion:
        """Report that a chunk failed."""
        flow = _fail(claim, error, retryable, retry_after_seconds, throttled_seconds)
        return await self._driver.run(flow)

    async def extend(
        self,
        claim: Claim,
        *,
        lease_seconds: int | None = None,
        items_processed: int | None = None,
        checkpoint: object = None,
    ) -> Lease:
        """Send a heartbeat."""
        return await self._driver.run(_extend(claim, lease_seconds, items_processed, checkpoint))

    async def release(
        self,
        claim: Claim,
        *,
        reason: str | None = None,
        checkpoint: object = None,
        items_processed: int | None = None,
    ) -> Completion:
        """Give a chunk back unfinished."""
        return await self._driver.run(_release(claim, reason, checkpoint, items_processed))


def _claim(
    worker_id: str, kinds: Sequence[str] | None, job_id: UUID | None, lease_seconds: int | None
) -> Flow[Claim | None]:
    return operations.claim_next_chunk_job_safe(
        worker_id=worker_id,
        kinds=kinds,
        parent_sync_job_id=job_id,
        lease_seconds=lease_seconds,
        claim_id=uuid4(),
    )


def _claim_batch(
    worker_id: str, size: int, kinds: Sequence[str] | None, job_id: UUID | None, lease_seconds: int | None
) -> Flow[list[Claim]]:
    batch = yield from operations.claim_chunk_jobs_safe(
        worker_id=worker_id,
        batch_size=size,
        kinds=kinds,
        parent_sync_job_id=job_id,
        lease_seconds=lease_seconds,
        claim_id=uuid4(),
    )
    return batch.claims


def _complete(
    claim: Claim,
    result: object,
    next_chunks: Sequence[object] | None,
    items_processed: int | None,
    items_total: int | None,
    claim_next: bool,
    next_state: object,
) -> Flow[Completion]:
    following = (
        None
        if next_chunks is None
        else [encode_object(chunk, f"next_chunks[{index}]") for index, chunk in enumerate(next_chunks)]
    )
    return operations.complete_chunk_job_safe(
        chunk_id=claim.chunk_id,
        claim_token=claim.claim_token,
        result=encode(result, "result"),
        next_chunks=None if following is None else list(following),
        items_processed=items_processed,
        items_total=items_total,
        claim_next=claim_next or None,
        next_state=_object(next_state, "next_state"),
    )


def _fail(
    claim: Claim,
    error: str,
    retryable: bool,
    retry_after_seconds: int | None,
    throttled_seconds: int | None,
) -> Flow[Completion]:
    return operations.complete_chunk_job_safe(
        chunk_id=claim.chunk_id,
        claim_token=claim.claim_token,
        success=False,
        error=printable(error),
        retryable=retryable,
        retry_after_seconds=retry_after_seconds,
        throttled_seconds=throttled_seconds,
    )


def _extend(
    claim: Claim, lease_seconds: int | None, items_processed: int | None, checkpoint: object
) -> Flow[Lease]:
    return operations.extend_chunk_lease(
        chunk_id=claim.chunk_id,
        claim_token=claim.claim_token,
        lease_seconds=lease_seconds,
        items_processed=items_processed,
        checkpoint=_object(checkpoint, "checkpoint"),
    )


def _release(
    claim: Claim, reason: str | None, checkpoint: object, items_processed: int | None
) -> Flow[Completion]:
    return operations.release_chunk_job(
        chunk_id=claim.chunk_id,
        claim_token=claim.claim_token,
        reason=reason,
        checkpoint=_object(checkpoint, "checkpoint"),
        items_processed=items_processed,
    )


def _object(value: object, path: str) -> dict[str, JSON] | None:
    return None if value is None else encode_object(value, path)
