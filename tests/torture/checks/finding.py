"""What a check has found to be wrong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One wrong thing.

    Attributes:
        check: The check's name.
        text: What is wrong, naming the operations that show it.
    """

    check: str
    text: str

    def __str__(self) -> str:
        return f"{self.check}: {self.text}"
