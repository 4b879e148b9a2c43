"""The documents' code blocks, with what follows each: what it prints, or why it is not run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
_BLOCK = re.compile(
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```$"
    r"(?:\n<!-- not run: (?P<reason>.+?) -->)?"
    r"(?:\n\n```text\n(?P<output>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        page: The document's name.
        line: Where the block begins, from 1.
        language: What its fence says.
        code: The text between the fences.
        reason: Why it is not run; None: it is.
        output: What it prints, when the document shows that.
    """

    page: str
    line: int
    language: str
    code: str
    reason: str | None
    output: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(path: Path) -> list[Block]:
    """The blocks of a document in their order."""
    text = path.read_text(encoding="utf-8")
    return [
        Block(
            path.name,
            text.count("\n", 0, found.start()) + 1,
            found["language"],
            found["code"],
            found["reason"],
            found["output"],
        )
        for found in _BLOCK.finditer(text)
    ]


ALL = [block for path in DOCS for block in blocks(path)]


def run_blocks(*languages: str) -> list[Block]:
    """The blocks in these languages that are to be run."""
    return [block for block in ALL if block.language in languages and block.reason is None]
