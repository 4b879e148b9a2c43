"""When chunks ran, as a timeline's pictures need it: what each bar is called, and on which line it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from supabase_chunks._show.palette import OF_ATTEMPT, OF_STATE
from supabase_chunks.states import ChunkStatus

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

_OF_STATE = {
    ChunkStatus.COMPLETED: "completed",
    ChunkStatus.FAILED: "failed",
    ChunkStatus.CANCELLED: "cancelled",
    ChunkStatus.PROCESSING: "running",
    ChunkStatus.PENDING: "waits for its next attempt",
}
_OF_ATTEMPT = {
    "retrying": "failed, then tried again",
    "failed": "failed, then tried again",
    "lost": "failed, then tried again",
    "released": "given back",
    "cancelled": "cancelled",
}
WORDS = list(dict.fromkeys([*_OF_STATE.values(), *_OF_ATTEMPT.values()]))
"""What bars are called, in the order of a legend."""


class SpanView(Protocol):
    """When an attempt at a chunk ran; a `Span` of a `Timeline`."""

    @property
    def status(self) -> ChunkStatus:
        """The chunk's state."""
        ...

    @property
    def start(self) -> datetime:
        """When it began."""
        ...

    @property
    def end(self) -> datetime | None:
        """When it ended; None while it runs."""
        ...

    @property
    def worker_id(self) -> str | None:
        """Who had it."""
        ...

    @property
    def attempts(self) -> int:
        """How many there were."""
        ...

    @property
    def outcome(self) -> str | None:
        """What came of an attempt that another one followed; None for the last one."""
        ...


S = TypeVar("S", bound=SpanView)


def word(span: SpanView) -> str:
    """Return what a bar is called."""
    return _OF_STATE[span.status] if span.outcome is None else _OF_ATTEMPT.get(span.outcome, span.outcome)


def colour(span: SpanView) -> str:
    """Return a bar's colour."""
    return OF_STATE[span.status] if span.outcome is None else OF_ATTEMPT.get(span.outcome, OF_ATTEMPT["lost"])


def by_worker(spans: Iterable[S]) -> dict[str, list[list[S]]]:
    """Return each worker's lines; spans come in the order of their start."""
    workers: dict[str, list[list[S]]] = {}
    for span in spans:
        _put(workers.setdefault(span.worker_id or "?", []), span)
    return workers


def together(spans: Iterable[S]) -> list[list[S]]:
    """Return as many lines as ran at once, whoever had them."""
    lines: list[list[S]] = []
    for span in spans:
        _put(lines, span)
    return lines


def _put(lines: list[list[S]], span: S) -> None:
    """Put a span into the first line that is free at its start."""
    for line in lines:
        end = line[-1].end
        if end is not None and end <= span.start:
            line.append(span)
            return
    lines.append([span])
