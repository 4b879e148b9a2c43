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


@dataclass(frozen=True)
class Function:
    """A row of the table of functions in docs/architecture.md.

    Attributes:
        name: The function's, after a comma what distinguishes a second row of it.
        file: Of supabase/schemas, without its ending.
        locks: In order; in parentheses those that are never waited for.
        phases: What it does, step by step.
    """

    name: str
    file: str
    locks: list[str]
    phases: str


def functions_on_the_wall() -> list[Function]:
    """The table of functions in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Each function")[2]
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return [
        Function(
            name.replace("`", "").strip(), file, [] if locks == "none" else locks.split(" → "), phases.strip()
        )
        for name, file, locks, phases in rows
    ]
