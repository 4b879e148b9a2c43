"""When a cron job is due: pg_cron's two kinds of schedule."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

_INTERVAL = re.compile(r"^\s*([1-9]|[1-5][0-9])\s+seconds?\s*$", re.IGNORECASE)
_NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True)
class Interval:
    """Every so many seconds after the last start."""

    seconds: int


@dataclass(frozen=True)
class Calendar:
    """The five fields of cron, as the sets of values at which they hold."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool
    last_day: bool

    def matches(self, moment: datetime) -> bool:
        """Whether the job runs in the minute of this moment."""
        if (
            moment.minute not in self.minutes
            or moment.hour not in self.hours
            or moment.month not in self.months
        ):
            return False
        day = moment.day in self.days or (self.last_day and _is_last_of_month(moment))
        weekday = moment.isoweekday() % 7 in self.weekdays
        # Cron's oldest oddity: with both fields restricted, either is enough.
        if self.any_day or self.any_weekday:
            return day and weekday
        return day or weekday


def parse(text: str) -> Interval | Calendar:
    """Read a schedule.

    Raises:
        ValueError: It is none; the message says which field is wrong.
    """
    if match := _INTERVAL.match(text):
        return Interval(int(match[1]))
    fields = _NAMED.get(text.strip().lower(), text).lower().split()
    if len(fields) != 5:
        raise ValueError(f"a schedule has five fields, or is like '30 seconds': {text!r}")
    minutes, hours, days, months, weekdays = fields
    last_day = days == "$"
    return Calendar(
        minutes=_values(minutes, 0, 59),
        hours=_values(hours, 0, 23),
        days=frozenset() if last_day else _values(days, 1, 31),
        months=_values(months, 1, 12, names=_MONTHS),
        weekdays=frozenset(value % 7 for value in _values(weekdays, 0, 7, names=_DAYS)),
        any_day=days.startswith("*"),
        any_weekday=weekdays.startswith("*"),
        last_day=last_day,
    )


def _values(text: str, low: int, high: int, *, names: tuple[str, ...] = ()) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            start, stop = low, high
        else:
            start = _number(first, low, names)
            # `5/10` means from 5 on, as `5-59/10` does.
            stop = _number(last, low, names) if dash else (high if step else start)
        if not low <= start <= stop <= high or (step and int(step) < 1):
            raise ValueError(f"{part!r} is not within {low}-{high}")
        found.update(range(start, stop + 1, int(step or 1)))
    return frozenset(found)


def _number(text: str, low: int, names: tuple[str, ...]) -> int:
    return names.index(text) + low if text in names else int(text)


def _is_last_of_month(moment: datetime) -> bool:
    from datetime import timedelta

    return (moment + timedelta(days=1)).day == 1
