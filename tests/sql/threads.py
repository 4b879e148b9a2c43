"""Running something on many connections at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.polling import until
from tests.sql.database import Database, Session

__all__ = ["blocked", "together", "until"]


def together(
    db: Database, count: int, work: Callable[[Session, int], Any], *, role: str = "service_role"
) -> list[Any]:
    """Call `work(session, number)` on `count` connections, all let go at once; returns what they returned."""
    sessions = [db.connect(role) for _ in range(count)]
    start = threading.Barrier(count)

    def run(number: int) -> Any:
        start.wait()
        return work(sessions[number], number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def blocked(observer: Session, count: int = 1) -> bool:
    """Whether at least so many sessions of this database wait for a lock."""
    waiting = observer.value(
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    )
    return bool(waiting >= count)
