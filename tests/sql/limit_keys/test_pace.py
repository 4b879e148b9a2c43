"""The pace: never more requests than the rate in any window, for all who ask together."""

from __future__ import annotations

import random
import time

import pytest

from tests.sql.database import Database, Session, refused
from tests.sql.threads import together

KEY = "api.example.com"


def pace(service: Session, requests: int = 1, key: str = KEY) -> int:
    """Milliseconds to wait."""
    return int(service.call("pace_sync_limit", key=key, n=requests))


def limit(service: Session, rate: int | None, per_seconds: int = 1) -> None:
    """Set the pace of KEY."""
    service.call("save_sync_limit", key=KEY, rate=rate, per_seconds=per_seconds)


def most_in_a_window(moments: list[tuple[float, int]], seconds: float) -> int:
    """The most requests that any window of that length has, which begins with one and does not include its end."""
    return max(
        sum(count for at, count in moments if start <= at < start + seconds - 1e-9) for start, _ in moments
    )


@pytest.mark.parametrize("sizes", [(1, 1), (1, 10), (3, 3), (10, 10)])
def test_no_window_has_more_than_the_rate(db: Database, service: Session, sizes: tuple[int, int]) -> None:
    limit(service, 10)

    def work(session: Session, number: int) -> list[tuple[float, int]]:
        dice, asked = random.Random(number), []
        for _ in range(15):
            count = dice.randint(*sizes)
            wait = pace(session, count)
            # When they may go at the earliest, by the database's clock.
            asked.append(
                (session.value("select extract(epoch from clock_timestamp())::float8") + wait / 1000, count)
            )
        return asked

    moments = sorted(moment for asked in together(db, 4, work) for moment in asked)
    # What was asked for beside one another is told before the answer's clock is read: a hundredth of a second.
    assert most_in_a_window(moments, 1 - 0.05) <= 10


def test_one_at_a_time_makes_the_rate(service: Session) -> None:
    limit(service, 100)
    began = time.monotonic()
    for _ in range(50):
        time.sleep(pace(service) / 1000)
    assert 0.45 < time.monotonic() - began < 2


def test_who_has_waited_long_enough_goes_at_once(service: Session) -> None:
    limit(service, 10, 60)
    assert pace(service) == 0
    assert 5000 <= pace(service) <= 6000
    assert pace(service, key="another") == 0
    service.call("block_sync_limit", key="another", seconds=5)
    assert 4000 < pace(service, key="another") <= 5000


def test_the_spacing_is_rounded_up(service: Session) -> None:
    limit(service, 3)
    pace(service)
    before = service.value("select free_at from chunk_private.limit_paces")
    pace(service)
    after = service.value("select free_at from chunk_private.limit_paces")
    assert (after - before).microseconds == 333334


def test_more_at_once_than_the_rate_is_refused(service: Session) -> None:
    limit(service, 10)
    with refused("SC003", "n"):
        pace(service, 11)
    with refused("SC003", "n"):
        pace(service, 0)
    with refused("SC003", "rate"):
        limit(service, 0)
    limit(service, None)
    assert pace(service, 11) == 0
