"""Cutting an SQL file into its statements, as psql and the supabase CLI do before they send them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN = re.compile(
    r"""
      (?P<comment> --[^\n]* )
    | (?P<block> /\* )
    | (?P<string> \b[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z) | '(?:[^']|'')*(?:'|\Z) | "(?:[^"]|"")*(?:"|\Z) )
    | (?P<dollar> \$(?:[^\W\d]\w*)?\$ )
    | (?P<word> [^\W\d][\w$]* )
    | (?P<mark> [;()] )
    | (?P<other> [\w$]+ | \S )
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_ROUTINE = re.compile(r"create (or replace )?(function|procedure)\b")
# Nobody looks further into a statement than this.
_MOST_WORDS = 12


@dataclass
class Statement:
    """One statement.

    Attributes:
        start: Where in the file it begins, in characters; comments before it do not count.
        text: It, without its semicolon.
        words: Its first words outside strings, quoted names and comments, in lower case.
    """

    start: int
    text: str = ""
    words: list[str] = field(default_factory=list)

    @property
    def gist(self) -> str:
        """The first words in one line."""
        return " ".join(self.words)


def split(text: str) -> Iterator[Statement]:
    """The statements of a file, in their order.

    A semicolon ends none in a string, a quoted name, a comment (they nest), a dollar-quoted body, parentheses
    (a rule's actions) and between `begin atomic` and `end`.
    """
    current: Statement | None = None
    depth = bodies = at = 0
    while (token := _TOKEN.search(text, at)) is not None:
        kind, found, at = token.lastgroup, token[0], token.end()
        if kind == "comment":
            continue
        if kind == "block":
            at = _end_of_comment(text, at)
            continue
        if found == ";" and depth == bodies == 0:
            if current is not None:
                current.text = text[current.start : token.start()]
                yield current
            current = None
            continue
        if current is None:
            current = Statement(token.start())
        match kind:
            case "dollar":
                end = text.find(found, at)
                at = len(text) if end < 0 else end + len(found)
            case "mark":
                depth = max(0, depth + {"(": 1, ")": -1, ";": 0}[found])
            case "word":
                bodies = _bodies(bodies, found.lower(), current)
                if len(current.words) < _MOST_WORDS:
                    current.words.append(found.lower())
    if current is not None:
        current.text = text[current.start :]
        yield current


def _bodies(open_now: int, word: str, statement: Statement) -> int:
    """How many `begin atomic` and `case` of a routine's body are open after a word."""
    if word == "begin" and _ROUTINE.match(statement.gist):
        return open_now + 1
    if word == "case" and open_now:
        return open_now + 1
    if word == "end" and open_now:
        return open_now - 1
    return open_now


def _end_of_comment(text: str, at: int) -> int:
    depth = 1
    while depth and (edge := _BLOCK_EDGE.search(text, at)) is not None:
        depth += 1 if edge[0] == "/*" else -1
        at = edge.end()
    return at if depth == 0 else len(text)
