"""Progress, jobs and chunks as plain HTML, for light and dark pages."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from supabase_chunks._show import words
from supabase_chunks._show.palette import GREEN, GREY, OF_STATE, TRACK
from supabase_chunks._show.words import Counts
from supabase_chunks.states import ChunkStatus, JobStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

_ROWS = 50
_TEXT = 80


class JobRow(Protocol):
    """What is shown of a job in a list; a `Progress` has it."""

    id: UUID
    kind: str
    job_key: str | None
    started_at: datetime | None


class JobView(Counts, JobRow, Protocol):
    """What is shown of a job; a `Progress` has it."""

    stalled_reason: str | None
    last_error: str | None


class JobHandle(Protocol):
    """A `Job` or an `AsyncJob`."""

    id: UUID

    @property
    def snapshot(self) -> JobView | None:
        """The progress seen last."""

    @property
    def seen_at(self) -> datetime | None:
        """When that was."""


class ChunkView(Protocol):
    """What is shown of a chunk; a `ChunkRecord` has it."""

    chunk_index: int
    status: ChunkStatus
    attempts: int
    payload: Any
    checkpoint: Any
    result: Any
    error: str | None

    @property
    def duration(self) -> timedelta | None:
        """How long the last attempt took."""


J = TypeVar("J", bound=JobHandle)
C = TypeVar("C", bound=ChunkView)


def bar(job: Counts | None, percent: float, width: str = "14em") -> str:
    """Return a bar full to `percent`, failed chunks at its end in red, and behind it what was cancelled."""
    failed = 0.0 if job is None else min(words.failed_percent(job), percent)
    cancelled = 0.0 if job is None else min(words.cancelled_percent(job), 100 - percent)
    shares = (
        (percent - failed, GREEN),
        (failed, OF_STATE[JobStatus.FAILED]),
        (cancelled, OF_STATE[JobStatus.CANCELLED]),
    )
    parts = "".join(
        f'<span style="width:{share:.1f}%;background:{colour}"></span>'
        for share, colour in shares
        if share > 0
    )
    style = f"display:inline-flex;width:{width};height:.6em;border-radius:.3em;overflow:hidden"
    said = "waiting" if job is None else words.describe(job)
    return f'<span role="img" aria-label="{escape(said)}" style="{style};background:{TRACK}">{parts}</span>'


def state(status: str) -> str:
    """Return a state in its colour."""
    return f'<b style="color:{OF_STATE.get(status, GREY)}">{escape(status)}</b>'


def progress_line(job: JobView) -> str:
    """Return a job's progress on one line, and below it what went wrong last."""
    line = (
        f"<b>{escape(job.kind)}</b> {bar(job, job.percent_complete)} "
        f"{state(job.status)} {' · '.join([words.counts(job), *words.troubles(job)])}"
    )
    wrong = job.stalled_reason
    if wrong is None and job.failed_chunks and job.last_error:
        wrong = f"last error: {job.last_error}"
    red = OF_STATE[JobStatus.FAILED]
    below = f'<div><small style="color:{red}">{escape(_short(wrong))}</small></div>' if wrong else ""
    return f"<div>{line} <small><code>{job.id}</code></small></div>{below}"


def job_line(job: JobHandle) -> str:
    """Return what was seen last of a job, and when that was: a cell that is looked at later asks nobody."""
    if job.snapshot is None:
        return f"<div><code>{job.id}</code> <small>not looked at yet: job.progress() does</small></div>"
    return progress_line(job.snapshot) + _seen(job.seen_at, "job.progress() reads it anew")


def _seen(at: datetime | None, anew: str) -> str:
    return "" if at is None else f"<div><small>seen at {at:%H:%M:%S}; {anew}</small></div>"


class JobList(list[J]):
    """Jobs, as a table in a notebook."""

    def _repr_html_(self) -> str:
        rows = [self._row(job) for job in self[:_ROWS]]
        shown = _table(("kind", "key", "status", "", "chunks", "failed", "started", "id"), rows, len(self))
        return shown + (_seen(self[0].seen_at, "client.jobs() reads them anew") if self else "")

    @staticmethod
    def _row(job: J) -> Sequence[str]:
        seen = job.snapshot
        if seen is None:
            return ("", "", "", "", "", "", "", f"<code>{job.id}</code>")
        return (
            escape(seen.kind),
            escape(seen.job_key or ""),
            state(seen.status),
            bar(seen, seen.percent_complete, "7em"),
            f"{seen.completed_chunks:,} / {seen.total_chunks:,}",
            f"{seen.failed_chunks:,}" if seen.failed_chunks else "",
            f"{seen.started_at:%Y-%m-%d %H:%M:%S}" if seen.started_at else "",
            f"<code>{seen.id}</code>",
        )


class ChunkList(list[C]):
    """Chunks, as a table in a notebook; the checkpoints are a column where there are any."""

    def _repr_html_(self) -> str:
        shown = self[:_ROWS]
        has_checkpoint = any(chunk.checkpoint is not None for chunk in shown)
        between = ("checkpoint",) if has_checkpoint else ()
        rows = [self._row(chunk, has_checkpoint) for chunk in shown]
        return _table(
            ("chunk", "status", "attempts", "seconds", "payload", *between, "outcome"), rows, len(self)
        )

    @staticmethod
    def _row(chunk: C, has_checkpoint: bool) -> Sequence[str]:
        outcome = chunk.error if chunk.error and not chunk.result else _json(chunk.result)
        return (
            str(chunk.chunk_index),
            state(chunk.status),
            str(chunk.attempts),
            "" if chunk.duration is None else f"{chunk.duration.total_seconds():.2f}",
            _code(chunk.payload),
            *((_code(chunk.checkpoint),) if has_checkpoint else ()),
            escape(_short(outcome)),
        )


class Strip(NamedTuple):
    """A bar of a timeline: left edge and width as parts of the whole, and what is said about it."""

    left: float
    width: float
    colour: str
    words: str


def strips(rows: Iterable[Iterable[Strip]], summary: str, notes: Iterable[str]) -> str:
    """Return rows of bars as one picture, which `summary` describes for who does not see it."""
    drawn = "".join(
        '<div style="position:relative;height:6px;margin-top:1px">'
        + "".join(
            f'<div title="{escape(strip.words)}" style="position:absolute;left:{strip.left * 100:.2f}%;'
            f'width:{max(strip.width * 100, 0.3):.2f}%;height:6px;background:{strip.colour}"></div>'
            for strip in row
        )
        + "</div>"
        for row in rows
    )
    below = "".join(f"<div><small>{escape(note)}</small></div>" for note in [summary, *notes])
    style = "max-width:60em;overflow:hidden"
    picture = f'<div role="img" aria-label="{escape(summary)}" style="{style}">{drawn}</div>' if drawn else ""
    return f"<div>{picture}{below}</div>"


def _table(head: Iterable[str], rows: Iterable[Sequence[str]], count: int) -> str:
    header = "".join(f'<th scope="col" style="text-align:left">{name}</th>' for name in head)
    body = "".join(
        "<tr>"
        + "".join(f'<td style="text-align:left;white-space:nowrap">{cell}</td>' for cell in row)
        + "</tr>"
        for row in rows
    )
    more = f"<small>… and {count - _ROWS:,} more</small>" if count > _ROWS else ""
    # A page without a doctype would write tables in black, whatever it is written on.
    return f'<table style="color:inherit"><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>{more}'


def _code(value: object) -> str:
    return "" if value is None else f"<code>{escape(_short(_json(value)))}</code>"


def _json(value: object) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _short(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}…"
