"""Waiting for room within the rate of a job's limit key, as a flow."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from . import operations
from ._flow import sleep
from .errors import LeaseLost

if TYPE_CHECKING:
    from ._claim_life import ClaimLife
    from ._flow import Flow

# How soon a waiting handler hears that it need not go on.
_LOOK_UP = 1.0


def wait_for_room(life: ClaimLife, n: int) -> Flow[None]:
    """Take room for `n` requests, and wait until it is there.

    Raises:
        LeaseLost: The claim was lost meanwhile, or the job cancelled.
    """
    key = life.claim.limit_key
    if key is None:
        return
    wait = yield from operations.pace_sync_limit(key=key, n=n)
    until = time.monotonic() + wait / 1000
    while (left := until - time.monotonic()) > 0:
        if life.is_lost or life.is_cancelled:
            raise LeaseLost("the result is no longer wanted: the lease was lost, or the job cancelled")
        yield from sleep(min(left, _LOOK_UP))
