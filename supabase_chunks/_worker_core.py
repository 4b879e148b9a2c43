"""What both workers do without threads or tasks: room, claims, reports, and what the answers mean."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID, uuid4

from . import operations, reads
from ._backoff import Backoff
from ._bounds import MOST_CLAIMED, MOST_REPORTED
from ._claim_life import Holder
from ._flow import logger, sleep
from ._report import Report, failed, first_batch, log_fields
from .chunk import HeldChunk, PermanentFailure
from .errors import (
    ChunksError,
    InvalidArgument,
    LimitExceeded,
    PayloadError,
    RequestTooLarge,
    ServerError,
    StatementTimeout,
)
from .states import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._encode import JSON
    from ._flow import Flow
    from .models import Claim, Completion

_MOST_TRIES = 5
_CLEANUP_EVERY = 30.0
_LEASE = 45


class Round(NamedTuple):
    """What a round has brought."""

    chunks: list[HeldChunk] = []  # noqa: RUF012 - never changed
    """Claimed, to be started."""
    wait: float | None = None
    """Seconds in which a report may be waited for; None: until there is one."""
    is_last: bool = False
    """Whether there was nothing left to do, and the worker was to end then."""


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
        self.room = concurrency + prefetch
        self.holder = Holder(lease_seconds)
        self.make_chunk: Callable[[Claim], HeldChunk] = HeldChunk
        self.reported = 0
        """How many reports the database has taken."""
        self.outcomes: Counter[Outcome] = Counter()
        """Of these, how many came to what."""
        self.reports: list[Report] = []
        """Those that are not delivered yet."""
        self._held: dict[UUID, HeldChunk] = {}
        self._lock = threading.Lock()
        self._backoff = Backoff()
        self._next_claim = time.monotonic()
        self._cleanup_at = time.monotonic() + _CLEANUP_EVERY * random.uniform(0.2, 1.0)  # noqa: S311 - jitter

    @property
    def free(self) -> int:
        """How many chunks may be claimed now."""
        return self.room - len(self._held)

    def held(self) -> list[HeldChunk]:
        """Return the chunks whose report has not been delivered."""
        with self._lock:
            return list(self._held.values())

    def take(self, claims: Sequence[Claim]) -> list[HeldChunk]:
        """Hold freshly claimed chunks."""
        chunks = [self.make_chunk(claim) for claim in claims]
        with self._lock:
            self._held.update({chunk._claim.claim_token: chunk for chunk in chunks})
        return chunks

    def drop(self, chunk: HeldChunk) -> None:
        """Hold a chunk no longer."""
        with self._lock:
            self._held.pop(chunk._claim.claim_token, None)

    def abandon(self) -> None:
        """Hold nothing any longer: what is left runs out with its lease."""
        for chunk in self.held():
            logger.warning("%r did not finish in time; it is left to its lease", chunk)
            self.drop(chunk)

    # Flows

    def round(self, *, until_idle: bool) -> Flow[Round]:
        """Deliver what is reported, then claim for the room that is left: what a worker does again and again.

        Raises:
            ChunksError: Something that will not pass by itself.
        """
        try:
            if self.reports:
                yield from self.deliver(self.reports)
                self._next_claim = time.monotonic()
            if self.free > 0 and time.monotonic() >= self._next_claim:
                chunks = self.take((yield from self.claim()))
                if chunks:
                    self._backoff.worked()
                    self._next_claim = time.monotonic()
                    return Round(chunks, self._wait())
                yield from self.cleanup()
                if until_idle and not self.held() and not (yield from reads.any_pending(kinds=self.kinds)):
                    return Round(is_last=True)
                self._next_claim = time.monotonic() + self._backoff.idle()
        except ChunksError as error:
            pause = self._backoff.trouble(error, "the worker's round")
            self._next_claim = time.monotonic() + pause
            if self.reports:
                yield from sleep(min(pause, 1.0))
                return Round(wait=0.0)
        return Round(wait=self._wait())

    def _wait(self) -> float | None:
        return None if self.free <= 0 else max(0.0, self._next_claim - time.monotonic())

    def deliver_until(self, deadline: float) -> Flow[None]:
        """Deliver what is reported at the end; what fails is pardoned, and repeated by the next call.

        Args:
            deadline: Until when there is a next call, on the monotonic clock.
        """
        try:
            yield from self.deliver(self.reports)
        except ChunksError as error:
            logger.warning("reports could not be delivered: %s", error)
            yield from sleep(max(0.0, min(1.0, deadline - time.monotonic())))

    def lease(self) -> Flow[float]:
        """Read how long a claim holds, in seconds.

        Raises:
            UnknownKind: One of the worker's kinds is not there.
        """
        kinds = yield from reads.list_kinds(kinds=self.kinds, for_service=True)
        if len(kinds) < len(set(self.kinds)):
            yield from reads.check_kinds(self.kinds)
        if self.holder.lease_seconds is None:
            # Heartbeats are frequent, so it may be short: a dead worker's chunks come back soon.
            self.holder.lease_seconds = min(_LEASE, *(kind.lease_seconds for kind in kinds))
        return float(self.holder.lease_seconds)

    def claim(self) -> Flow[list[Claim]]:
        """Claim for the room that is left."""
        return (
            yield from operations.claim_chunk_jobs_safe(
                worker_id=self.worker_id,
                batch_size=min(self.free, MOST_CLAIMED),
                kinds=self.kinds,
                lease_seconds=self.holder.lease_seconds,
                claim_id=uuid4(),
            )
        )

    def deliver(self, reports: list[Report]) -> Flow[None]:
        """Send reports in batches until each is answered; the delivered ones are removed from the list.

        A batch that is too large, or that the database cannot do as a whole, is cut. A report that is refused
        or too large even alone becomes a failure of its chunk. One that the database cannot do even alone is
        put at the end, and after a few tries left to the lease, so that it does not keep the others waiting.
        """
        for report in [report for report in reports if report.gives_back]:
            yield from self._continue_later(report)
            reports.remove(report)
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

    def _continue_later(self, report: Report) -> Flow[None]:
        """Give a chunk back with its checkpoint; one that the database refuses is a failure of the chunk."""
        chunk, claim = report.chunk, report.chunk._claim
        try:
            answer = yield from operations.release_chunk_job(
                chunk_id=claim.chunk_id,
                claim_token=claim.claim_token,
                reason="goes on from its checkpoint",
                checkpoint=report.item["checkpoint"],  # type: ignore[arg-type]  # encoded as an object
                items_processed=report.item.get("items_processed"),  # type: ignore[arg-type]  # and as a number
            )
        except (InvalidArgument, LimitExceeded) as error:
            self.reports.append(
                failed(chunk, PermanentFailure(f"the checkpoint cannot be stored: {error.message}"))
            )
            return
        if answer.outcome is Outcome.STALE:
            chunk._life.lose()
            logger.warning(
                "%r: the lease was lost, its checkpoint is dropped", chunk, extra=log_fields(chunk)
            )
        self.drop(chunk)

    def release(self, chunk: HeldChunk) -> Flow[None]:
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
                chunk._life.lose()
                logger.warning(
                    "%r: the lease was lost, its result is dropped",
                    chunk,
                    extra=log_fields(chunk, outcome="stale"),
                )
            else:
                self.reported += 1
                self.outcomes[answer.outcome] += 1
                self._tell(report, answer.outcome)
            self.drop(chunk)
        return again

    def _tell(self, report: Report, outcome: Outcome) -> None:
        """Log what became of a chunk: a failure for good with its reason, a retry in a few words."""
        chunk, fields = report.chunk, log_fields(report.chunk, outcome=outcome)
        reason = str(report.item.get("error", "")).partition("\n")[0]
        if outcome is Outcome.FAILED:
            logger.error("%r failed for good: %s", chunk, reason, extra=fields)
        elif outcome is Outcome.RETRYING:
            logger.warning("%r will be tried again: %s", chunk, reason, extra=fields)
        else:
            logger.debug("%r: %s", chunk, outcome, extra=fields)

    def summary(self) -> str:
        """Return what the worker did so far, as in `3 completed, 5 failed`."""
        counts = [f"{count:,} {outcome}" for outcome, count in sorted(self.outcomes.items()) if count]
        return ", ".join(counts) or "nothing to do"

    def _refused(self, report: Report, error: ChunksError) -> Report:
        return failed(report.chunk, PermanentFailure(f"the result cannot be stored: {error.message}"))
