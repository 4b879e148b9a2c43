"""How progress, jobs and chunks look in a notebook: plain HTML, for light and dark pages."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from ._meter import failed_percent
from .models import ChunkRecord, ChunkStatus, JobStatus, Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .jobs import AsyncJob, Job

_ROWS = 50
_TEXT = 80
_GREEN, _RED, _GREY, _AMBER = "#2fb67c", "#e5484d", "#98a39e", "#d98a00"
_COLOURS: dict[str, str] = {
    JobStatus.RUNNING: _GREEN,
    JobStatus.COMPLETED: _GREEN,
    JobStatus.FAILED: _RED,
    JobStatus.PAUSED: _AMBER,
    ChunkStatus.PROCESSING: _AMBER,
}


def bar(percent: float, failed: float = 0.0, width: str = "14em") -> str:
    """Return a bar that is full to `percent`, of which `failed` in red at its end."""
    parts = "".join(
        f'<span style="width:{share:.1f}%;background:{colour}"></span>'
        for share, colour in ((percent - failed, _GREEN), (failed, _RED))
        if share > 0
    )
    style = f"display:inline-flex;width:{width};height:.6em;border-radius:.3em;overflow:hidden"
    return f'<span style="{style};background:rgba(128,128,128,.25)">{parts}</span>'


def state(status: str) -> str:
    """Return a state in its colour."""
    return f'<b style="color:{_COLOURS.get(status, _GREY)}">{escape(status)}</b>'


def progress_line(progress: Progress) -> str:
    """Return a job's progress on one line, and below it what went wrong last."""
    counts = f"{progress.completed_chunks:,} of {progress.total_chunks:,} chunks"
    words = [
        f"{count:,} {word}"
        for count, word in (
            (progress.failed_chunks, "failed"),
            (progress.cancelled_chunks, "cancelled"),
            (progress.retrying_chunks, "to try again"),
        )
        if count
    ]
    line = (
        f"<b>{escape(progress.kind)}</b> {bar(progress.percent_complete, failed_percent(progress))} "
        f"{state(progress.status)} {' · '.join([counts, *words])}"
    )
    wrong = progress.stalled_reason
    if wrong is None and progress.failed_chunks and progress.last_error:
        wrong = f"last error: {progress.last_error}"
    below = f'<div><small style="color:{_RED}">{escape(_short(wrong))}</small></div>' if wrong else ""
    return f"<div>{line} <small><code>{progress.id}</code></small></div>{below}"


class JobList(list[Any]):
    """Jobs, as a table in a notebook."""

    def _repr_html_(self) -> str:
        rows = [self._row(job) for job in self[:_ROWS]]
        return _table(("kind", "key", "state", "", "chunks", "failed", "started", "id"), rows, len(self))

    @staticmethod
    def _row(job: Job | AsyncJob) -> Sequence[str]:
        seen = job.snapshot
        if seen is None:
            return ("", "", "", "", "", "", "", f"<code>{job.id}</code>")
        return (
            escape(seen.kind),
            escape(seen.job_key or ""),
            state(seen.status),
            bar(seen.percent_complete, failed_percent(seen), "7em"),
            f"{seen.completed_chunks:,} / {seen.total_chunks:,}",
            f"{seen.failed_chunks:,}" if seen.failed_chunks else "",
            f"{seen.started_at:%Y-%m-%d %H:%M:%S}" if seen.started_at else "",
            f"<code>{seen.id}</code>",
        )


class ChunkList(list[ChunkRecord]):
    """Chunks, as a table in a notebook."""

    def _repr_html_(self) -> str:
        rows = [self._row(chunk) for chunk in self[:_ROWS]]
        return _table(("chunk", "state", "attempts", "seconds", "payload", "outcome"), rows, len(self))

    @staticmethod
    def _row(chunk: ChunkRecord) -> Sequence[str]:
        took = ""
        if chunk.started_at is not None and chunk.completed_at is not None:
            took = f"{(chunk.completed_at - chunk.started_at).total_seconds():.2f}"
        outcome = chunk.error if chunk.error and not chunk.result else _json(chunk.result)
        return (
            str(chunk.chunk_index),
            state(chunk.status),
            str(chunk.attempts),
            took,
            f"<code>{escape(_short(_json(chunk.payload)))}</code>",
            escape(_short(outcome)),
        )


def _table(head: Iterable[str], rows: Iterable[Sequence[str]], count: int) -> str:
    header = "".join(f'<th style="text-align:left">{name}</th>' for name in head)
    body = "".join(
        "<tr>"
        + "".join(f'<td style="text-align:left;white-space:nowrap">{cell}</td>' for cell in row)
        + "</tr>"
        for row in rows
    )
    more = f"<small>… and {count - _ROWS:,} more</small>" if count > _ROWS else ""
    return f"<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>{more}"


def _json(value: object) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _short(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}…"
