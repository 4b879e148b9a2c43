"""Flows: bounded operations as generators that yield what they need and never do I/O themselves.

A flow yields a `Call`, a `Select` or a `Sleep`; a driver (`_driver.py`) does it and sends the answer back, or
throws the error in. Retry and paging are written once, here. Nothing of the user's
runs inside a flow: no callback, no iterable, no encoder.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field, replace
from types import coroutine
from typing import Any, NamedTuple, TypeAlias, TypeVar

from .errors import ChunksError, RequestTimeout, ResponseError, StatementTimeout

T = TypeVar("T")

logger = logging.getLogger("supabase_chunks")


@dataclass(frozen=True)
class Call:
    """One call of a database function. Arguments that are None are left to their SQL default."""

    function: str
    arguments: dict[str, Any] = field(repr=False)
    timeout: float | None = None
    """Seconds, when it must be shorter than the client's own."""
    is_stopped_once: bool = False
    """Whether the caller wants to hear of a `StatementTimeout` at once, instead of a repetition."""
    header: str | None = None
    """A header of the answer that is asked for too; the reply is then a `WithHeader`."""


class WithHeader(NamedTuple):
    """The reply to a call that asks for a header."""

    data: Any
    header: str | None
    """Its value; None when the answer has none."""


@dataclass(frozen=True)
class Select:
    """One read of a table or view."""

    table: str
    columns: str = "*"
    filters: tuple[tuple[str, str, str], ...] = ()
    """Column, operator and value, as PostgREST spells them."""
    order: tuple[str, ...] = ()
    """Columns; a leading minus means descending."""
    limit: int | None = None
    timeout: float | None = None
    for_service: bool = False
    """Whether what it is read for needs a secret key, whoever may read it."""


@dataclass(frozen=True)
class Sleep:
    """A pause."""

    seconds: float


Request: TypeAlias = Call | Select
Flow: TypeAlias = Generator[Request | Sleep, Any, T]


def send(request: Request) -> Flow[Any]:
    """Do a request and return the decoded answer."""
    return (yield request)


def sleep(seconds: float) -> Flow[None]:
    """Pause."""
    yield Sleep(seconds)


@dataclass(frozen=True)
class Retry:
    """How often and how patiently a failed request is repeated.

    Repeated are lost connections, the statuses 429, 502, 503 and 504 (and Cloudflare's 520 to 524), and what
    the database has stopped, refused while it is read-only, or undone for the sake of others; everything this
    package sends is safe to repeat. The pause doubles from `first_delay` up to `max_delay`
    seconds, less a random part of up to a half; a Retry-After of the server counts instead, unless it is
    longer than `max_retry_after`.

    Example:
        >>> Retry(attempts=3).max_delay
        10.0
    """

    attempts: int = 6
    """Tries in all; 1 never repeats."""
    first_delay: float = 0.1
    max_delay: float = 10.0
    max_retry_after: float = 60.0
    timeouts: bool = False
    """Whether a request that timed out is repeated too."""

    def delay(self, attempt: int, error: ChunksError) -> float | None:
        """Return the seconds to wait after the failed try number `attempt`, or None to give up."""
        retryable = error.retryable or (self.timeouts and isinstance(error, RequestTimeout))
        if not retryable or attempt >= self.attempts:
            return None
        backoff = min(self.max_delay, self.first_delay * 2.0 ** min(attempt - 1, 30))
        delay = backoff * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
        asked = error.retry_after if isinstance(error, ResponseError) else None
        if asked is None:
            return delay
        return None if asked > self.max_retry_after else max(asked, delay)

    def patient(self) -> Retry:
        """Return the policy for polling: long enough for a server to restart."""
        return replace(
            self,
            attempts=max(self.attempts, 20),
            first_delay=max(self.first_delay, 0.05),
            max_delay=min(self.max_delay, 5.0),
            timeouts=True,
        )


def persist(request: Request, retry: Retry, *, deadline: float | None = None) -> Flow[Any]:
    """Do a request, repeating it as `retry` allows and not beyond the deadline (on the monotonic clock)."""
    attempt = 1
    while True:
        try:
            if deadline is not None:
                request = replace(request, timeout=max(0.001, deadline - time.monotonic()))
            return (yield from send(request))
        except ChunksError as error:
            delay = retry.delay(attempt, error)
            if isinstance(error, StatementTimeout) and isinstance(request, Call) and request.is_stopped_once:
                delay = None
            if delay is None:
                raise
            if deadline is not None and time.monotonic() + delay >= deadline:
                yield from sleep(max(0.0, deadline - time.monotonic()))
                raise
        yield from sleep(delay)
        attempt += 1


async def each_step(flow: Flow[T], do: Callable[[Request | Sleep], Awaitable[Any]]) -> T:
    """Take a flow to its end: do each of its steps, and send the outcome back or throw the error in.

    The one loop that drives flows. What `do` awaits decides where it may be used: nothing at all in a plain
    thread, an event loop, or again a flow.
    """
    reply, error = None, None
    try:
        while True:
            step = flow.send(reply) if error is None else flow.throw(error)
            reply, error = None, None
            try:
                reply = await do(step)
            except ChunksError as failure:
                error = failure
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        flow.close()


def retried(flow: Flow[T], retry: Retry, *, deadline: float | None = None) -> Flow[T]:
    """Run `flow` so that each of its requests is repeated as `retry` allows."""

    @coroutine
    def repeated(step: Request | Sleep) -> Flow[Any]:
        if isinstance(step, Sleep):
            return (yield step)
        return (yield from persist(step, retry, deadline=deadline))

    return (yield from each_step(flow, repeated).__await__())


def stopped_once(flow: Flow[T]) -> Flow[T]:
    """Run `flow` so that none of its calls is repeated when the database stops it."""

    @coroutine
    def marked(step: Request | Sleep) -> Flow[Any]:
        return (yield replace(step, is_stopped_once=True) if isinstance(step, Call) else step)

    return (yield from each_step(flow, marked).__await__())


def paged(
    page: Callable[[Any, int], Flow[list[T]]], key: Callable[[T], Any], *, limit: int | None
) -> Flow[list[T]]:
    """Read a list page by page, each page starting after the last key of the one before.

    Args:
        page: Gives the flow that reads at most n rows after a key (None for the first page).
        key: The key of a row, the one that pages are ordered by.
        limit: At most so many rows in all.
    """
    rows: list[T] = []
    while limit is None or len(rows) < limit:
        # A project returns 1,000 rows at most, or fewer if so set: only an empty page is surely the last.
        size = 1000 if limit is None else min(1000, limit - len(rows))
        found = yield from page(key(rows[-1]) if rows else None, size)
        if not found:
            break
        rows.extend(found)
    return rows
