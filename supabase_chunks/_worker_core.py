"""What both workers do without threads or tasks: room, claims, and the round that they go."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID, uuid4

from . import operations, reads
from ._backoff import Backoff
from ._bounds import MOST_CLAIMED
from ._claim_life import Holder
from ._flow import logger, sleep
from ._outbox import Outbox
from ._report import failed, log_fields
from .chunk import HeldChunk, PermanentFailure
from .errors import ChunksError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._flow import Flow
    from ._typed import Typed
    from .models import Claim
    from .operations import Batch

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
        payload: Typed[Any] | None = None,
    ) -> None:
        """Take the worker's options."""
        self.worker_id = worker_id
        self.kinds = list(kinds)
        self.room = concurrency + prefetch
        self.holder = Holder(lease_seconds)
        self.make_chunk: Callable[[Claim], HeldChunk] = HeldChunk
        self.outbox = Outbox(self.drop)
        self._payload = payload
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
        """Hold freshly claimed chunks; return those that can be run.

        One that cannot be read has failed for good: the handler would be told something else than was stored.
        So has one whose payload is not of the type that was asked for.
        """
        chunks = [self.make_chunk(claim) for claim in claims]
        with self._lock:
            self._held.update({chunk._claim.claim_token: chunk for chunk in chunks})
        good = []
        for chunk in chunks:
            try:
                self._read(chunk)
            except Exception as error:
                self.outbox.reports.append(failed(chunk, error))
            else:
                good.append(chunk)
        return good

    def _read(self, chunk: HeldChunk) -> None:
        """Make of the payload what was asked for."""
        if flaws := chunk._claim.unreadable:
            raise PermanentFailure(f"cannot be read: {'; '.join(flaws)}")
        if self._payload is not None:
            chunk._payload = self._payload.read(
                chunk._claim.payload, lambda misfit: PermanentFailure(f"the payload {misfit}")
            )

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
            if self.outbox.reports:
                yield from self.outbox.deliver()
                self._next_claim = time.monotonic()
            if self.free > 0 and time.monotonic() >= self._next_claim:
                batch = yield from self.claim()
                chunks = self.take(batch.claims)
                if chunks or self.outbox.reports:
                    self._backoff.worked()
                    self._next_claim = time.monotonic()
                    return Round(chunks, self._wait())
                yield from self.cleanup()
                if until_idle and not self.held() and not (yield from self._any_pending(batch)):
                    return Round(is_last=True)
                self._next_claim = time.monotonic() + self._idle(batch)
        except ChunksError as error:
            pause = self._backoff.trouble(error, "the worker's round")
            self._next_claim = time.monotonic() + pause
            if self.outbox.reports:
                yield from sleep(min(pause, 1.0))
                return Round(wait=0.0)
        return Round(wait=self._wait())

    def _any_pending(self, batch: Batch) -> Flow[bool]:
        """Return whether there is something to wait for, when there was nothing to claim."""
        return batch.ask_again is not None or (yield from reads.any_pending(kinds=self.kinds))

    def _idle(self, batch: Batch) -> float:
        """Return the seconds until the next claim when there was nothing: few if a place may soon be free."""
        pause = self._backoff.idle()
        return pause if batch.ask_again is None else min(pause, batch.ask_again)

    def _wait(self) -> float | None:
        if self.outbox.reports:
            return 0.0
        return None if self.free <= 0 else max(0.0, self._next_claim - time.monotonic())

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

    def claim(self) -> Flow[Batch]:
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
