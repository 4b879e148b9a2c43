"""What both workers do without threads or tasks: slots, claims, reports, and what the answers mean."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from . import operations, reads
from ._flow import logger
from ._report import MOST_REPORTED, Report, failed, first_batch, log_fields
from .chunk import Chunk, PermanentFailure
from .errors import (
    ChunksError,
    PayloadError,
    RequestTimeout,
    RequestTooLarge,
    ServerError,
    StatementTimeout,
    UnexpectedResponse,
    UnknownKind,
)
from .states import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._encode import JSON
    from ._flow import Flow
    from .models import Claim, Completion

_MOST_CLAIMED = 100
_MOST_TRIES = 5
_FIRST_IDLE = 0.05
_LAST_IDLE = 1.0
_LAST_TROUBLE = 10.0
_CLEANUP_EVERY = 30.0


class WorkerCore:
    """The chunks a worker holds, and its flows."""

    def __init__(
        self,
        *,
        worker_id: str,
        kinds: Sequence[str],
        concurrency: int,
        prefetch: int,
        lease_seconds: int | None,
    ) -> None:
        """Take the worker's options."""
        self.worker_id = worker_id
        self.kinds = list(kinds)
        self.slots = concurrency + prefetch
        self.lease_seconds = lease_seconds
        self.reported = 0
        self._held: dict[UUID, Chunk] = {}
        self._lock = threading.Lock()
        self._idle = _FIRST_IDLE
        self._trouble = 0
        self._cleanup_at = time.monotonic() + _CLEANUP_EVERY * random.uniform(0.2, 1.0)  # noqa: S311 - jitter

    @property
    def free(self) -> int:
        """How many chunks may be claimed now."""
        return self.slots - len(self._held)

    def held(self) -> list[Chunk]:
        """Return the chunks whose report has not been delivered."""
        with self._lock:
            return list(self._held.values())

    def take(self, claims: Sequence[Claim]) -> list[Chunk]:
        """Hold freshly claimed chunks."""
        chunks = [Chunk(claim) for claim in claims]
        with self._lock:
            self._held.update({chunk._claim.claim_token: chunk for chunk in chunks})
        return chunks

    def drop(self, chunk: Chunk) -> None:
        """Hold a chunk no longer."""
        with self._lock:
            self._held.pop(chunk._claim.claim_token, None)

    # Flows

    def lease(self) -> Flow[float]:
        """Read how long a claim holds, in seconds.

        Raises:
            UnknownKind: One of the worker's kinds is not there.
        """
        kinds = yield from reads.list_kinds(kinds=self.kinds)
        missing = sorted(set(self.kinds) - {kind.kind for kind in kinds})
        if missing:
            raise UnknownKind(f"no such kind: {', '.join(missing)}; client.save_kind() adds one")
        return float(self.lease_seconds or min(kind.lease_seconds for kind in kinds))

    def claim(self) -> Flow[list[Claim]]:
        """Claim for the free slots."""
        return (
            yield from operations.claim_chunk_jobs_safe(
                worker_id=self.worker_id,
                batch_size=min(self.free, _MOST_CLAIMED),
                kinds=self.kinds,
                lease_seconds=self.lease_seconds,
                claim_id=uuid4(),
            )
        )

    def deliver(self, reports: list[Report]) -> Flow[None]:
        """Send reports in batches until each is answered; the delivered ones are removed from the list.

        A batch that is too large, or that the database cannot do as a whole, is cut. A report that is refused
        or too large even alone becomes a failure of its chunk. One that the database cannot do even alone is
        put at the end, and after a few tries left to the lease, so that it does not keep the others waiting.
        """
        size = MOST_REPORTED
        while reports:
            batch = first_batch(reports, size)
            try:
                items: list[JSON] = [report.item for report in batch]
                answers = yield from operations.complete_chunk_jobs_safe(completions=items)
            except (RequestTooLarge, StatementTimeout, ServerError) as error:
                if error.retryable:
                    raise
                if len(batch) > 1:
                    size = len(batch) // 2
                    continue
                report = reports.pop(0)
                report.tries += 1
                if isinstance(error, RequestTooLarge) and not report.is_failure:
                    reports.insert(0, self._refused(report, error))
                    continue
                if report.tries >= _MOST_TRIES:
                    logger.error("%r: its report cannot be delivered: %s", report.chunk, error)
                    self.drop(report.chunk)
                    continue
                reports.append(report)
                raise
            del reports[: len(batch)]
            reports.extend(self._answered(batch, answers))

    def release(self, chunk: Chunk) -> Flow[None]:
        """Give a chunk back that was not started; the lease does it when this fails."""
        claim = chunk._claim
        try:
            yield from operations.release_chunk_job(
                chunk_id=claim.chunk_id, claim_token=claim.claim_token, reason="the worker is shutting down"
            )
        except ChunksError as error:
            logger.warning("%r could not be given back: %s", chunk, error, extra=log_fields(chunk))
        self.drop(chunk)

    def cleanup(self) -> Flow[None]:
        """Do the watchdog's work now and then, for databases without pg_cron."""
        if time.monotonic() < self._cleanup_at:
            return
        self._cleanup_at = time.monotonic() + _CLEANUP_EVERY * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        try:
            recovered = yield from operations.cleanup_stuck_chunks()
        except ChunksError as error:
            logger.warning("stuck chunks could not be cleaned up: %s", error)
        else:
            if recovered:
                logger.info("recovered %d stuck chunks", recovered)

    # Pauses

    def worked(self) -> None:
        """Note that there was something to do."""
        self._idle = _FIRST_IDLE
        self._trouble = 0

    def idle_pause(self) -> float:
        """Return the seconds until the next claim when there was nothing: growing, a second at most."""
        seconds = self._idle
        self._idle = min(_LAST_IDLE, seconds * 2)
        self._trouble = 0
        return seconds * random.uniform(0.7, 1.0)  # noqa: S311 - jitter

    def trouble_pause(self, error: ChunksError, what: str) -> float:
        """Return the seconds to wait after a failure that may pass; raise one that will not."""
        passing = ServerError | RequestTimeout | StatementTimeout | UnexpectedResponse
        if not (error.retryable or isinstance(error, passing)):
            raise error
        self._trouble += 1
        seconds = min(_LAST_TROUBLE, 0.25 * 2.0 ** min(self._trouble, 10))
        logger.warning("%s failed, next try in %.1f s: %s", what, seconds, error)
        return seconds * random.uniform(0.7, 1.0)  # noqa: S311 - jitter

    # Answers

    def _answered(self, batch: list[Report], answers: list[Completion]) -> list[Report]:
        """Take note of the answers to reports; return the reports to send instead of those refused."""
        again = []
        for report, answer in zip(batch, answers, strict=True):
            chunk = report.chunk
            if answer.outcome is Outcome.ERROR:
                reason = PayloadError(f"the report was refused: {answer.message} ({answer.code})")
                if report.is_failure:
                    logger.error("%r: %s", chunk, reason, extra=log_fields(chunk))
                else:
                    again.append(self._refused(report, reason))
                    continue
            elif answer.outcome is Outcome.STALE:
                chunk._lost = True
                logger.warning(
                    "%r: the lease was lost, its result is dropped",
                    chunk,
                    extra=log_fields(chunk, outcome="stale"),
                )
            else:
                self.reported += 1
                logger.debug("%r: %s", chunk, answer.outcome, extra=log_fields(chunk, outcome=answer.outcome))
            self.drop(chunk)
        return again

    def _refused(self, report: Report, error: ChunksError) -> Report:
        return failed(report.chunk, PermanentFailure(f"the result cannot be stored: {error.message}"))
