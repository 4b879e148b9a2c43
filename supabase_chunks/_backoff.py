"""How long a worker pauses: when there is nothing to claim, and when something fails that may pass."""

from __future__ import annotations

import random

from ._flow import logger
from .errors import ChunksError, RequestTimeout, ServerError, StatementTimeout, UnexpectedResponse

_FIRST_IDLE = 0.05
_LAST_IDLE = 1.0
_FIRST_TROUBLE = 0.5
_LAST_TROUBLE = 10.0
_MAY_PASS = (ServerError, RequestTimeout, StatementTimeout, UnexpectedResponse)


class Backoff:
    """Pauses that grow while nothing changes."""

    def __init__(self) -> None:
        """Start with short ones."""
        self.next_idle = _FIRST_IDLE
        self._next_trouble = _FIRST_TROUBLE

    def worked(self) -> None:
        """Note that there was something to do."""
        self.next_idle = _FIRST_IDLE
        self._next_trouble = _FIRST_TROUBLE

    def idle(self) -> float:
        """Return the seconds until the next claim when there was nothing: growing, a second at most."""
        seconds = self.next_idle
        self.next_idle = min(_LAST_IDLE, seconds * 2)
        self._next_trouble = _FIRST_TROUBLE
        return seconds * random.uniform(0.7, 1.0)  # noqa: S311 - jitter

    def trouble(self, error: ChunksError, what: str) -> float:
        """Return the seconds to wait after a failure that may pass; raise one that will not."""
        if not (error.retryable or isinstance(error, _MAY_PASS)):
            raise error
        seconds = self._next_trouble
        self._next_trouble = min(_LAST_TROUBLE, seconds * 2)
        logger.warning("%s failed, next try in %.1f s: %s", what, seconds, error)
        return seconds * random.uniform(0.7, 1.0)  # noqa: S311 - jitter
