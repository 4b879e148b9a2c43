"""What callers are made of: calls, and the chunks that they are about.

Every chunk carries a mark of its own, and what shall be done with it: how long it takes, how often it fails, what follows it.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

KIND = "calls"
EDGE_KIND = "edge"
# Seconds: short, so that lost workers are missed soon; longer than a chunk takes.
LEASE = 2
LIMITS = {"narrow": 2, "wide": 3}


@dataclass(frozen=True)
class Call:
    """One call of a function."""

    function: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Together:
    """Calls at the same moment; answered with a list, None where one was not done."""

    calls: tuple[Call, ...]


# How many calls are made together at most.
AT_ONCE = 3


class CallError(Exception):
    """A call was refused, or nobody said whether it was done."""


Steps = Generator[Call | Together | float, Any, Any]


def payload(draw: random.Random, mark: str, *, follows: bool = True) -> dict[str, Any]:
    """A chunk: its mark, milliseconds, failures before it succeeds, whether it is throttled once, chunks that follow, items."""
    return {
        "m": mark,
        "ms": draw.choice([0, 0, 0, 5, 40]),
        "fails": draw.choice([0, 0, 0, 0, 1, 2]),
        "throttled": draw.random() < 0.03,
        "more": draw.choice([0, 0, 0, 0, 1, 2]) if follows else 0,
        "items": draw.randint(1, 3),
    }


def next_chunks(chunk: dict[str, Any]) -> list[dict[str, Any]] | None:
    """What follows a chunk: marked by what it is marked with, so that each report on it adds the same."""
    return [{"m": f"{chunk['m']}+{n}", "items": 1} for n in range(chunk.get("more", 0))] or None
