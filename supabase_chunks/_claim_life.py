"""A claim's life in a worker, from the claim to the answer to its report. Nobody else changes its state."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from ._bounds import MOST_ITEMS

if TYPE_CHECKING:
    from ._encode import JSON
    from .models import Claim, Lease


class Holder:
    """The worker that holds claims, as far as these must know it."""

    def __init__(self, lease_seconds: int | None = None) -> None:
        """Take how long it claims for; None: as the kind says."""
        self.lease_seconds: int | None = lease_seconds
        self.ends_at: float = math.inf
        """When it ends, on the monotonic clock: known once it has been told to."""


class ClaimLife:
    """What is known of one claim; the handler, the worker and the heartbeat tell it what happens."""

    def __init__(self, claim: Claim, holder: Holder) -> None:
        """Begin with the claim."""
        self.claim: Claim = claim
        self.holder: Holder = holder
        self.checkpoint: Any = claim.checkpoint
        """Where to go on: as claimed, then as saved."""
        self.items: int | None = None
        """How many items the handler has said are done."""
        self.is_started: bool = False
        self.is_reported: bool = False
        self.is_lost: bool = False
        """Whether the lease ran out, and somebody else may have the chunk."""
        self.is_cancelled: bool = False
        """Whether its job was cancelled."""

    def start(self) -> None:
        """Note that the handler has been called."""
        self.is_started = True

    def progressed(self, items: int) -> None:
        """Keep how many items are done, within what the database takes."""
        self.items = min(max(0, int(items)), MOST_ITEMS)

    @property
    def time_left(self) -> float:
        """Seconds until the worker ends; infinity while nobody has told it to."""
        return max(0.0, self.holder.ends_at - time.monotonic())

    def heartbeat(self) -> dict[str, JSON]:
        """Return what a heartbeat says of it."""
        return self._signed() if self.items is None else {**self._signed(), "items_processed": self.items}

    def heard(self, answer: Lease) -> str | None:
        """Take the answer to a heartbeat; return what it has changed, or None."""
        if self.is_reported:
            return None  # on its way when the report was sent, so it may say what the report has changed
        if answer.cancel_requested and not self.is_cancelled:
            self.is_cancelled = True
            return "its job was cancelled"
        if not answer.ok and not self.is_lost:
            self.is_lost = True
            return "the lease was lost"
        return None

    def report(self, fields: dict[str, JSON]) -> dict[str, JSON]:
        """Return what a report says of it: the fields that are not None."""
        self.is_reported = True
        return {**self._signed(), **{name: value for name, value in fields.items() if value is not None}}

    def lose(self) -> None:
        """Note that the report was too late."""
        self.is_lost = True

    def _signed(self) -> dict[str, JSON]:
        return {"chunk_id": self.claim.chunk_id, "claim_token": str(self.claim.claim_token)}
