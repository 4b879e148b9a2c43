"""The checks: each a pure function over a history, which yields what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.torture.checks import bounds, counting, ending, holding, keeping
from tests.torture.checks.finding import Finding
from tests.torture.history import History

__all__ = ["ALL", "Finding", "findings"]

ALL: tuple[Callable[[History], Iterator[str]], ...] = (
    holding.held_by_one,
    holding.held_in_the_tables,
    holding.fenced,
    holding.heard,
    holding.repeated_claims,
    ending.completed_once,
    ending.answered_alike,
    ending.ended_for_good,
    ending.kept_as_said,
    ending.finished_once,
    ending.ended_in_time,
    bounds.capped,
    bounds.limited,
    bounds.blocked,
    bounds.paused,
    bounds.cancelled,
    bounds.attempts,
    keeping.everybody_asked,
    keeping.nothing_lost,
    keeping.nothing_twice,
    keeping.invariants_hold,
    counting.progress_exact,
    counting.never_back,
    counting.rows_agree,
)


def findings(history: History) -> list[Finding]:
    """All that any check has found."""
    return [Finding(check.__name__, text) for check in ALL for text in check(history)]
