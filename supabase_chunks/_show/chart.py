"""A timeline in characters: a line a chunk, and below it an axis."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supabase_chunks._show.colours import Paint

_LAST, _BEFORE = "█", "▒"
_LEFT = 7
# How many columns the marks of the axis are apart at least.
_APART = 9


class Piece(NamedTuple):
    """An attempt: where it begins and how long it is, as parts of the whole; the last one is solid."""

    left: float
    width: float
    is_last: bool
    colour: str


class Row(NamedTuple):
    """A chunk: its number, its attempts, and what to say."""

    number: int
    pieces: Sequence[Piece]
    words: str


def chart(rows: Sequence[Row], seconds: float, *, width: int | None, paint: Paint | None = None) -> list[str]:
    """Return the lines of a chart.

    Args:
        rows: The chunks.
        seconds: How long the whole took.
        width: How long a line may be; with None the bars have 60 columns.
        paint: Gives a text a colour; None leaves it.
    """
    longest = max(len(row.words) for row in rows)
    room = 60 if width is None else max(10, width - _LEFT - 3 - longest)
    kept = longest if width is None else max(0, width - _LEFT - 3 - room)
    lines = [f"{row.number:>6} │{_bars(row, room, paint)}│ {row.words[:kept]}" for row in rows]
    return lines + _axis(seconds, room)


def _bars(row: Row, room: int, paint: Paint | None) -> str:
    cells: list[tuple[str, str | None]] = [(" ", None)] * room
    for piece in row.pieces:
        first = min(room - 1, round(piece.left * room))
        for cell in range(first, min(room, max(first + 1, round((piece.left + piece.width) * room)))):
            cells[cell] = (_LAST if piece.is_last else _BEFORE, piece.colour)
    runs = [("".join(text for text, _ in run), colour) for colour, run in groupby(cells, key=_colour)]
    return "".join(text if paint is None else paint(text, colour) for text, colour in runs)


def _colour(cell: tuple[str, str | None]) -> str | None:
    return cell[1]


def _axis(seconds: float, room: int) -> list[str]:
    """Return a line with marks at round times, and a line with the times."""
    steps = [step * 10.0**power for power in range(-6, 9) for step in (1, 2, 5)]
    step = next(step for step in steps if step * room >= seconds * _APART or step * 2.5 > seconds)
    marks, times = ["─"] * room, [" "] * (room + 1)
    count = int(seconds / step + 1e-9)
    for index in range(count + 1):
        at = min(room - 1, round(index * step / seconds * room))
        marks[at] = "┴"
        text = f"{index * step:g} s" if index in (0, count) else f"{index * step:g}"
        text = text if at + len(text) <= room + 1 else text.removesuffix(" s")
        times[at : at + len(text)] = text
    return [" " * _LEFT + "└" + "".join(marks) + "┘", " " * (_LEFT + 1) + "".join(times).rstrip()]
