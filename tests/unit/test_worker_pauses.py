"""How long an idle worker pauses, and what it asks meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from supabase_chunks._driver import Driver
from supabase_chunks._flow import Call, Request, Retry, WithHeader
from supabase_chunks._worker_core import WorkerCore


class Clock:
    """The time as the worker sees it."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Database:
    """Has nothing to claim, and says when to ask again."""

    def __init__(self, ask_again: str | None) -> None:
        self.ask_again = ask_again
        self.asked: list[str] = []

    def send(self, request: Request) -> Any:
        assert isinstance(request, Call), request
        self.asked.append(request.function)
        assert request.header == "chunks-ask-again-ms"
        return WithHeader([], self.ask_again)


def pauses(database: Database, monkeypatch: pytest.MonkeyPatch, *, until_idle: bool = False) -> list[float]:
    """The pauses of a worker in nine rounds: before it does the watchdog's work."""
    clock = Clock()
    monkeypatch.setattr("supabase_chunks._worker_core.time", clock)
    worker = WorkerCore(worker_id="w", kinds=["k"], concurrency=4, prefetch=0, lease_seconds=None)
    found = []
    for _ in range(9):
        done = Driver(database, Retry(attempts=1)).run_once(worker.round(until_idle=until_idle))
        assert done.wait is not None
        assert not done.is_last
        found.append(done.wait)
        clock.now += done.wait
    return found


def test_where_chunks_wait_for_a_place_it_asks_as_often_as_it_was_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = Database("50")
    assert pauses(database, monkeypatch, until_idle=True)[1:] == pytest.approx([0.05] * 8)
    # Nothing beside the claims: no reading of what is pending, or waits.
    assert set(database.asked) == {"claim_chunk_jobs_safe"}


@pytest.mark.parametrize("ask_again", [None, "3600000", "", "soon", "-1"])
def test_else_it_asks_once_a_second_in_the_end(
    monkeypatch: pytest.MonkeyPatch, ask_again: str | None
) -> None:
    """Also where the place is one of a key that is blocked for an hour, or the header makes no sense."""
    database = Database(ask_again)
    assert min(pauses(database, monkeypatch)[5:]) >= 0.7
    assert set(database.asked) == {"claim_chunk_jobs_safe"}
