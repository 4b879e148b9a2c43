"""When a cron job is due."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from supabase_chunks.local.schedule import Calendar, Interval, parse


def _matches(schedule: str, moment: str) -> bool:
    parsed = parse(schedule)
    assert isinstance(parsed, Calendar)
    return parsed.matches(datetime.fromisoformat(moment).replace(tzinfo=UTC))


@pytest.mark.parametrize(("text", "seconds"), [("30 seconds", 30), ("1 second", 1), (" 59  SECONDS ", 59)])
def test_interval_of_seconds(text: str, seconds: int) -> None:
    assert parse(text) == Interval(seconds)


@pytest.mark.parametrize(
    ("schedule", "moment", "due"),
    [
        ("* * * * *", "2026-03-01 00:00", True),
        ("*/15 * * * *", "2026-03-01 07:45", True),
        ("*/15 * * * *", "2026-03-01 07:46", False),
        ("5/20 * * * *", "2026-03-01 07:25", True),
        ("5/20 * * * *", "2026-03-01 07:20", False),
        ("0 9-17 * * mon-fri", "2026-03-02 09:00", True),
        ("0 9-17 * * mon-fri", "2026-03-01 09:00", False),
        ("0 9-17/4 * * *", "2026-03-02 13:00", True),
        ("0 9-17/4 * * *", "2026-03-02 14:00", False),
        ("0 0 1,15 jan,jul *", "2026-07-15 00:00", True),
        ("0 0 1,15 jan,jul *", "2026-06-15 00:00", False),
        ("0 0 $ * *", "2028-02-29 00:00", True),
        ("0 0 $ * *", "2028-02-28 00:00", False),
        ("0 0 * * 7", "2026-03-01 00:00", True),
        ("@daily", "2026-03-01 00:00", True),
        ("@daily", "2026-03-01 00:01", False),
    ],
)
def test_calendar(schedule: str, moment: str, *, due: bool) -> None:
    assert _matches(schedule, moment) is due


def test_restricted_day_and_weekday_are_alternatives() -> None:
    # 13 March 2026 is a Friday, 6 March too.
    assert _matches("0 0 13 * 1", "2026-03-13 00:00")
    assert _matches("0 0 13 * 5", "2026-03-06 00:00")
    assert not _matches("0 0 13 * 1", "2026-03-06 00:00")


@pytest.mark.parametrize(
    "text", ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "*/0 * * * *", "x * * * *"]
)
def test_no_schedule(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)
