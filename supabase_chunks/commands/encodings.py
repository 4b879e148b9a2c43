"""Reading JSON as other programs write it: in any Unicode encoding, with a byte order mark or without."""

from __future__ import annotations

import codecs
import json
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 1 << 16
_MARK = "\ufeff"


def text_lines(file: IO[bytes]) -> Iterator[str]:
    """Yield the lines of a file with JSON as they come, from a pipe too.

    Raises:
        UnicodeError: It is in another encoding; the text says which it may be, and what to do.
    """
    # What there is of a pipe, and not only once it is full.
    read = getattr(file, "read1", file.read)
    piece = file.read(4)
    encoding = json.detect_encoding(piece)
    decoder = codecs.getincrementaldecoder(encoding)()
    number, pending = 1, [""]
    while True:
        try:
            text = decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            raise UnicodeError(_not_unicode(encoding, number, error)) from None
        first, *others = text.split("\n")
        pending.append(first)
        for part in others:
            yield _line(pending)
            number, pending = number + 1, [part]
        if not piece:
            break
        piece = read(_PIECE)
    yield _line(pending)


def _line(parts: list[str]) -> str:
    # Files with a mark each may have been put together.
    return "".join(parts).removeprefix(_MARK)


def _not_unicode(encoding: str, line: int, error: UnicodeDecodeError) -> str:
    line += error.object.count(b"\n", 0, error.start)
    if not encoding.startswith("utf-8"):
        return f"line {line}: this is not {encoding.upper()}; is the file cut off?"
    return (
        f"line {line}: this is not UTF-8 (byte 0x{error.object[error.start]:02X}); it may be Latin-1 or"
        " Windows-1252: convert it with iconv -f WINDOWS-1252 -t UTF-8"
    )
