"""Reports of a worker on their way: in bulk, cut where they must be, and what the answers mean."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from . import operations
from ._bounds import MOST_REPORTED
from ._flow import logger, sleep, stopped_once
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
    from collections.abc import Callable
    from uuid import UUID

    from ._encode import JSON
    from ._flow import Flow
    from .models import Completion

_MOST_TRIES = 5
_AFTER_STOP = 0.5


class Outbox:
    """The reports that are not delivered yet, and the flows that deliver them."""

    def __init__(self, drop: Callable[[HeldChunk], None]) -> None:
        """Take what to call for each chunk whose report is done with."""
        self.reports: list[Report] = []
        self.reported = 0
        """How many reports the database has taken."""
        self.outcomes: Counter[Outcome] = Counter()
        """Of these, how many came to what."""
        self._drop = drop
        self._stopped: dict[UUID, int] = {}
        """Jobs whose reports were stopped the last time, and how many of these to send at once."""

    def summary(self) -> str:
        """Return what the worker did so far, as in `3 completed, 5 failed`."""
        counts = [f"{count:,} {outcome}" for outcome, count in sorted(self.outcomes.items()) if count]
        return ", ".join(counts) or "nothing to do"

    def deliver(self) -> Flow[None]:
        """Send reports in batches until each is answered; the delivered ones are forgotten.

        A batch that is too large, or that the database cannot do as a whole, is cut. A report that is refused
        or too large even alone becomes a failure of its chunk. One that the database cannot do even alone is
        put at the end, and after a few tries left to the lease, so that it does not keep the others waiting.

        Where the database stops, as when somebody holds a job's lock for long, each job's reports are sent by
        themselves; those that are stopped even so stay, for as long as heartbeats keep the lease.
        """
        size = MOST_REPORTED
        late: set[UUID] = set()
        for report in [report for report in self.reports if report.gives_back]:
            try:
                yield from stopped_once(self._continue_later(report))
            except StatementTimeout as error:
                late |= self._note_stopped([report], error)
            else:
                self.reports.remove(report)
        while batch := self._next_batch(size, late):
            try:
                items: list[JSON] = [report.item for report in batch]
                answers = yield from stopped_once(operations.complete_chunk_jobs_safe(completions=items))
            except StatementTimeout as error:
                late |= self._note_stopped(batch, error)
                continue
            except (RequestTooLarge, ServerError) as error:
                if error.retryable:
                    raise
                if len(batch) > 1:
                    size = len(batch) // 2
                    continue
                (report,) = batch
                self.reports.remove(report)
                report.tries += 1
                if isinstance(error, RequestTooLarge) and not report.is_failure:
                    self.reports.insert(0, self._refused(report, error))
                    continue
                if report.tries >= _MOST_TRIES:
                    logger.error("%r: its report cannot be delivered: %s", report.chunk, error)
                    self._drop(report.chunk)
                    continue
                self.reports.append(report)
                raise
            for report in batch:
                self.reports.remove(report)
                self._stopped.pop(report.chunk.job_id, None)
            self.reports.extend(self._answered(batch, answers))
        if late:
            yield from sleep(_AFTER_STOP)

    def _next_batch(self, size: int, late: set[UUID]) -> list[Report]:
        """Return what to send next: of all jobs together, then by itself of each that was stopped."""
        waiting = [report for report in self.reports if not report.gives_back]
        if quick := [report for report in waiting if report.chunk.job_id not in self._stopped]:
            return first_batch(quick, size)
        for first in waiting:
            job_id = first.chunk.job_id
            if job_id not in late:
                of_job = [report for report in waiting if report.chunk.job_id == job_id]
                return first_batch(of_job, min(size, self._stopped[job_id]))
        return []

    def _note_stopped(self, batch: list[Report], error: StatementTimeout) -> set[UUID]:
        """Note that these were stopped; return the job whose reports have to wait, if it is one's."""
        jobs = {report.chunk.job_id for report in batch}
        if len(jobs) > 1:
            self._stopped.update(dict.fromkeys(jobs, MOST_REPORTED))
            return set()
        logger.warning("%d reports of the job %s have to wait: %s", len(batch), *jobs, error)
        self._stopped.update(dict.fromkeys(jobs, max(1, len(batch) // 2)))
        # The others of the job come first the next time: it may be one chunk that is held.
        for report in batch:
            self.reports.remove(report)
            self.reports.append(report)
        return jobs

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
        self._drop(chunk)

    def deliver_until(self, deadline: float) -> Flow[None]:
        """Deliver what is reported at the end; what fails is pardoned, and repeated by the next call.

        Args:
            deadline: Until when there is a next call, on the monotonic clock.
        """
        try:
            yield from self.deliver()
        except ChunksError as error:
            logger.warning("reports could not be delivered: %s", error)
            yield from sleep(max(0.0, min(1.0, deadline - time.monotonic())))

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
            self._drop(chunk)
        return again

    def _tell(self, report: Report, outcome: Outcome) -> None:
        """Log what became of a chunk: a failure for good with its reason, a retry in a few words."""
        chunk, fields = report.chunk, log_fields(report.chunk, outcome=outcome)
        reason = str(report.item.get("error", "")).partition("\n")[0]
        if outcome is Outcome.FAILED:
            logger.error("%r failed for good: %s", chunk, reason, extra=fields)
        elif outcome is Outcome.RETRYING:
            logger.warning("%r will be tried again: %s", chunk, reason, extra=fields)
        elif outcome is Outcome.THROTTLED:
            logger.warning("%r was throttled: %s", chunk, reason, extra=fields)
        else:
            logger.debug("%r: %s", chunk, outcome, extra=fields)

    def _refused(self, report: Report, error: ChunksError) -> Report:
        return failed(report.chunk, PermanentFailure(f"the result cannot be stored: {error.message}"))
