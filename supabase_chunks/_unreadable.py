"""JSON that Python's parsers cannot read, in a row of the database: it must not cost the rows beside it.

What goes in through the functions is bounded well below. But rows may be older than the bound, or written by
hand. So where an answer as a whole cannot be read, each value of a user that is nested too deep, or has too
long a number, is replaced by a text.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator

__all__ = ["Json", "Unreadable", "readable"]

# pydantic's parser, the strictest of those that read an answer, goes 200 levels deep, the answer's own
# with them.
_DEEPEST = 190
# A float has no more before the point, and Python makes an int of 4,300 at most.
_LONGEST = 308
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
# No text in jsonb can have it.
_MARK = "\x00"
# The names of what is a user's own JSON, in all that the database answers.
_OF_USERS = frozenset({b'"payload"', b'"job_payload"', b'"checkpoint"', b'"result"', b'"state"'})
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|null|true|false|[\[{\]}:]|-?\d[-+.\deE]*', re.DOTALL)


class Unreadable(str):
    """What stands where JSON could not be read, as a text that says why.

    It is a payload, a result or a checkpoint that was written past the functions' checks. A worker fails such
    a chunk for good.

    Example:
        >>> Unreadable("nested deeper than 190 levels")
        Unreadable('nested deeper than 190 levels')
        >>> isinstance(job.chunks()[0].payload, Unreadable)
        False
    """

    __slots__ = ()

    def __repr__(self) -> str:
        """Return the text, told apart from one that was stored."""
        return f"Unreadable({str.__repr__(self)})"


def _unmark(value: Any) -> Any:
    return Unreadable(value[1:]) if isinstance(value, str) and value.startswith(_MARK) else value


Json = Annotated[Any, BeforeValidator(_unmark)]
"""A user's JSON in a model: any value, or `Unreadable`."""


def readable(content: bytes) -> bytes | None:
    """Return an answer with a text in place of each value of a user that cannot be read; None: all can be."""
    if not _may_be_unreadable(content):
        return None
    parts: list[bytes] = []
    copied = 0
    for value in _values_of_users(content):
        if value.flaw:
            parts += content[copied : value.start], b'"\\u0000', value.flaw.encode(), b'"'
            copied = value.end
    return b"".join((*parts, content[copied:]))


def _may_be_unreadable(content: bytes) -> bool:
    """Look fast, as most answers are fine; brackets and digits within texts count too."""
    if b"0" * (_LONGEST + 1) in content.translate(_DIGITS):
        return True
    brackets = content.translate(None, _NO_BRACKETS)
    for _ in range(_DEEPEST):
        inner = brackets
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(brackets) == len(inner):
            break
    return bool(brackets)


class _Value(NamedTuple):
    start: int
    end: int
    flaw: str


def _values_of_users(content: bytes) -> list[_Value]:
    """Find the values of users, and what is wrong with them, without recursion."""
    found: list[_Value] = []
    name, after_colon = b"", False
    start, depth, flaw = -1, 0, ""
    for match in _TOKEN.finditer(content):
        token = match.group()
        if start < 0:
            if token == b":":
                after_colon = name in _OF_USERS
                continue
            if not after_colon:
                name = token
                continue
            start, depth, flaw, after_colon, name = match.start(), 0, "", False, b""
        if token in b"[{":
            depth += 1
            if depth > _DEEPEST:
                flaw = f"nested deeper than {_DEEPEST} levels"
        elif token in b"]}":
            depth -= 1
        elif token[0] in b"-0123456789":
            flaw = _too_long(token) or flaw
        if depth == 0:
            found.append(_Value(start, match.end(), flaw))
            start = -1
    return found


def _too_long(number: bytes) -> str:
    digits = len(number.lstrip(b"-").partition(b".")[0])
    return f"a number of {digits} digits" if digits > _LONGEST else ""
