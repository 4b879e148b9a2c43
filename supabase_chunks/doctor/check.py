"""What a check says, and from where on something is too much."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

PROCESSOR = "background-sync-processor"
PUSH = "supabase-chunks init && supabase db push  (with version 3 of the CLI: db push --remote)"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What it is.
        ok: Whether it is as it should be.
        detail: What was found.
        fix: The command that puts it right, or empty.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The same for a program."""
        return asdict(self)


@dataclass(frozen=True)
class Limits:
    """From where on something is too much.

    Attributes:
        answer: How long a function may take to answer.
        waiting: How long a chunk may wait to be claimed.
        transaction: How long a transaction may be open; an open one keeps dead rows from being removed.
        dead_rows: How many dead rows the queue's table may have.
    """

    answer: timedelta = timedelta(seconds=20)
    waiting: timedelta = timedelta(minutes=10)
    transaction: timedelta = timedelta(minutes=15)
    dead_rows: int = 200_000


def deploy(name: str) -> str:
    """Return the command that deploys a function; without --use-api it would need Docker."""
    return f"supabase functions deploy {name} --use-api"


def version_check(name: str, found: str, wanted: str, fix: str) -> Check:
    """Compare the version of a part with this package's."""
    if found == wanted:
        return Check(name, True, f"version {found}")
    return Check(name, False, f"version {found}, and this package is {wanted}", fix)
