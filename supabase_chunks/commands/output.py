"""What commands print: tables that fit a terminal, progress in words, JSON."""

from __future__ import annotations

import json
import shutil
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from supabase_chunks._show.characters import is_terminal, shows
from supabase_chunks._show.colours import of_status, paint_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supabase_chunks._show.colours import Paint
    from supabase_chunks.models import Progress, WaitingFor


_LEAST_WIDTH = 8


def as_json(value: Any) -> str:
    """Return one line of JSON; models and their lists too."""
    # What the output's encoding lacks would be replaced by question marks, and lost.
    return json.dumps(_plain(value), ensure_ascii=not shows("\U0010ffff"), default=str)


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return [_plain(item) for item in value] if isinstance(value, list) else value


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    elastic: Sequence[int] = (-1,),
    room: int | None = None,
    status: int | None = None,
) -> list[str]:
    """Return the lines of a table without frames.

    Args:
        header: The names of the columns.
        rows: What is in them.
        elastic: The columns that are shortened where the lines would be too long, in turns the widest.
        room: How long a line may be; as a rule what `screen_width` returns.
        status: The column with states, which are written in their colours in a terminal.
    """
    cells = [[_one_line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(width_of(row[column]) for row in cells) for column in range(len(header))]
    if room is not None:
        excess = sum(widths) + 2 * (len(widths) - 1) - room
        while excess > 0:
            *others, widest = sorted(elastic, key=lambda column: widths[column])
            least = max(_LEAST_WIDTH, *(widths[column] - 1 for column in others), 0)
            if widths[widest] <= least:
                break
            less = min(excess, widths[widest] - least)
            widths[widest] -= less
            excess -= less
    paint = paint_for(sys.stdout)
    lines = []
    for number, row in enumerate(cells):
        parts = []
        for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
            text = _cut(cell, width)
            padding = " " * (width - width_of(text)) if column < len(row) - 1 else ""
            parts.append((text, of_status(cell) if number and column == status else None, padding))
        lines.append(_painted(parts, paint, room))
    return lines


def _painted(parts: Sequence[tuple[str, str | None, str]], paint: Paint, room: int | None) -> str:
    """Return a line: each text in its colour, and two spaces between them."""
    plain = "  ".join(text + padding for text, _, padding in parts).rstrip()
    if _cut(plain, room) != plain:
        return _cut(plain, room)
    return "  ".join(paint(text, colour) + padding for text, colour, padding in parts).rstrip()


def screen_width() -> int | None:
    """Return how many columns the terminal has, or None where the output goes elsewhere and is left whole."""
    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None


def marks() -> tuple[str, str]:
    """Return what stands before good and bad news, in characters that the output has."""
    return ("✓", "✗") if shows("✓✗") else ("ok:", "WRONG:")


def facts(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return a line for each name and value, those without a value left out."""
    width = max(width_of(name) for name, _ in pairs)
    return [f"{name:<{width}}  {value}" for name, value in pairs if value]


def echo(lines: Sequence[str]) -> None:
    """Print lines of data."""
    for line in lines:
        click.echo(line)


def progress_facts(progress: Progress) -> list[str]:
    """Return everything about a job that a person wants to know."""
    from supabase_chunks._show import words

    chunks = [words.completed(progress), *words.under_way(progress), *words.troubles(progress)]
    items = f"{progress.items_processed:,}" if progress.items_processed or progress.items_total else ""
    if items and progress.items_total is not None:
        items += f" of {progress.items_total:,}"
    eta = progress.eta_seconds
    return facts(
        [
            ("job", str(progress.id)),
            ("kind", progress.kind),
            ("status", paint_for(sys.stdout)(progress.status, of_status(progress.status))),
            ("done", f"{words.done_percent(progress):.0f} %"),
            ("chunks", ", ".join(chunks)),
            ("items", items),
            ("left", "" if eta is None or progress.ended else f"about {words.duration(eta)}"),
            ("key", progress.job_key or ""),
            ("created", moment(progress.created_at)),
            ("ended", moment(progress.completed_at)),
            ("waits for", _waiting(progress.waiting_for)),
            ("stalled", (progress.stalled_reason or "yes") if progress.stalled else ""),
            ("last error", _one_line(progress.last_error or "")),
        ]
    )


def _waiting(waiting_for: WaitingFor | None) -> str:
    if waiting_for is None:
        return ""
    if waiting_for.until is None:
        return f"a place of the limit key {waiting_for.key}"
    from supabase_chunks._show.words import blocked

    until = blocked(waiting_for.until, waiting_for.reason)
    return f"the limit key {waiting_for.key}, blocked until {until}"


def moment(time: datetime | None) -> str:
    """Return a time in words: the local time, and how long ago it was."""
    if time is None:
        return ""
    from supabase_chunks._show.words import duration

    return f"{time.astimezone():%Y-%m-%d %H:%M:%S} ({duration(_age(time))} ago)"


def age(time: datetime | None) -> str:
    """Return how long ago a time was, as in `5 min`."""
    if time is None:
        return ""
    from supabase_chunks._show.words import duration

    return duration(_age(time))


def _age(time: datetime) -> float:
    return max(0.0, (datetime.now(UTC) - time).total_seconds())


def _one_line(text: str) -> str:
    return " ".join(text.split())


def width_of(text: str) -> int:
    """Return how many columns a terminal needs for the text."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _cut(line: str, room: int | None) -> str:
    if room is None or width_of(line) <= room:
        return line
    line = line[: 4 * room]  # a payload may have a million characters
    while line and width_of(line) >= room:
        line = line[:-1]
    return line + "…"
