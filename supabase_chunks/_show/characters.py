"""Output that has fewer characters than we use, or is no terminal, or is hardly a stream at all."""

from __future__ import annotations

import codecs
import sys
from typing import TextIO

# For `errors=` of a stream: ours are replaced by the nearest that all have, others by question marks.
NEAREST = "supabase_chunks.nearest"

_NEAREST = {
    **{"·": "-", "…": "...", "✓": "+", "✗": "x"},
    **{"│": "|", "─": "-", "└": "+", "┘": "+", "┴": "+", "▒": "~"},
} | dict(zip("▁▂▃▄▅▆▇█", ".,:;+*%#", strict=True))


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    return "".join(_NEAREST.get(character, "?") for character in wrong), error.end


codecs.register_error(NEAREST, _replace)


def shows(characters: str, stream: TextIO | None = None) -> bool:
    """Return whether a stream (stdout unless given) can show these characters."""
    return fitting(characters, stream) == characters


def fitting(text: str, stream: TextIO | None = None) -> str:
    """Return the text in characters that a stream (stdout unless given) has."""
    encoding = getattr(stream or sys.stdout, "encoding", None)
    if not isinstance(encoding, str):
        return text
    return text.encode(encoding, NEAREST).decode(encoding)


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether somebody looks at what is written there, whatever takes the place of the stream."""
    try:
        return stream is not None and stream.isatty()
    except (AttributeError, ValueError):  # an object that only writes, or one that is closed
        return False
