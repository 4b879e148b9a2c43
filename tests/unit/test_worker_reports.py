"""Reports of a worker: what is sent, how it is cut, and what happens when it is refused."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

import supabase_chunks as sc
from supabase_chunks._backoff import Backoff
from supabase_chunks._driver import Driver
from supabase_chunks._flow import Call, Request, Retry
from supabase_chunks._report import Report, failed, first_batch, succeeded
from supabase_chunks._worker_core import WorkerCore
from tests.unit.wire import JOB


def core() -> WorkerCore:
    return WorkerCore(worker_id="w", kinds=["k"], concurrency=100, prefetch=100, lease_seconds=None)


def claim(number: int, job: str = JOB) -> sc.Claim:
    return sc.Claim.model_validate(
        {
            "chunk_id": number,
            "parent_sync_job_id": job,
            "kind": "k",
            "chunk_index": number,
            "attempt": 1,
            "max_attempts": 4,
            "payload": {},
            "claim_token": str(uuid.UUID(int=number)),
            "locked_until": "2026-01-01T00:00:00Z",
        }
    )


class Database:
    """Takes reports of at most so many bytes, and cannot do those of some chunks, or not while they are locked."""

    def __init__(
        self,
        *,
        most_bytes: float = float("inf"),
        broken: set[int] = frozenset(),
        refused: set[int] = frozenset(),  # type: ignore[assignment]  # read only
        locked: set[int] = frozenset(),  # type: ignore[assignment]  # read only
    ) -> None:
        self.most_bytes = most_bytes
        self.broken = broken
        self.refused = refused
        self.locked = locked
        self.taken: dict[int, dict[str, Any]] = {}
        self.calls: list[int] = []

    def send(self, request: Request) -> Any:
        assert isinstance(request, Call)
        items = request.arguments["completions"]
        self.calls.append(len(items))
        if len(str(items)) > self.most_bytes:
            raise sc.RequestTooLarge(status=413)
        if self.locked & {item["chunk_id"] for item in items}:
            raise sc.StatementTimeout("canceling statement due to lock timeout", status=500, code="55P03")
        if self.broken & {item["chunk_id"] for item in items}:
            raise sc.ServerError("internal error", status=500)
        return [self._one(item) for item in items]

    def _one(self, item: dict[str, Any]) -> dict[str, Any]:
        if item["chunk_id"] in self.refused and item.get("success", True):
            return {"chunk_id": item["chunk_id"], "outcome": "error", "code": "SC003", "message": "bad"}
        self.taken[item["chunk_id"]] = item
        return {"chunk_id": item["chunk_id"], "outcome": "completed"}


def deliver(to: WorkerCore, reports: list[Report], database: Database, tries: int = 1) -> None:
    """Deliver as a worker does: again after an error, so many times at most."""
    to.outbox.reports = reports
    for _ in range(tries):
        try:
            Driver(database, Retry()).run(to.outbox.deliver())
        except sc.ServerError:
            continue
        return


def test_reports_go_out_a_hundred_at_a_time() -> None:
    holder, database = core(), Database()
    reports = [succeeded(chunk, "ok") for chunk in holder.take([claim(n) for n in range(150)])]
    deliver(holder, reports, database)
    assert database.calls == [100, 50]
    assert (reports, holder.held(), holder.outbox.reported) == ([], [], 150)


def test_a_batch_has_at_most_a_megabyte() -> None:
    reports = [succeeded(chunk, "x" * 400_000) for chunk in core().take([claim(n) for n in range(5)])]
    assert len(first_batch(reports, 100)) == 2
    assert len(first_batch(reports[:1], 100)) == 1


def test_a_batch_that_is_too_large_is_cut_and_one_too_large_alone_fails_its_chunk() -> None:
    holder, database = core(), Database(most_bytes=5000)
    sizes = [100, 100, 9000, 100, 4000]
    reports = [
        succeeded(chunk, "x" * size)
        for chunk, size in zip(holder.take([claim(n) for n in range(5)]), sizes, strict=True)
    ]
    deliver(holder, reports, database)
    assert sorted(database.taken) == [0, 1, 2, 3, 4]
    assert [n for n, item in database.taken.items() if item.get("success") is False] == [2]
    assert database.taken[2]["retryable"] is False


def test_a_report_that_the_database_cannot_do_does_not_keep_the_others_waiting() -> None:
    holder, database = core(), Database(broken={1})
    reports = [succeeded(chunk, "ok") for chunk in holder.take([claim(n) for n in range(4)])]
    deliver(holder, reports, database, tries=10)
    assert sorted(database.taken) == [0, 2, 3]
    assert holder.held() == [], "it is left to its lease, and not turned into a failure"


def test_where_a_job_is_locked_the_others_go_through_and_its_reports_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("supabase_chunks._outbox._AFTER_STOP", 0.0)
    holder, database = core(), Database(locked={1})
    jobs = [JOB, str(uuid.uuid4()), str(uuid.uuid4())]
    chunks = holder.take([claim(n, jobs[n % 3]) for n in range(12)])
    reports = [succeeded(chunk, "ok") for chunk in chunks]
    deliver(holder, reports, database)
    assert database.calls == [12, 4, 4, 4], "all at once, then each job by itself, and no call is repeated"
    assert sorted(database.taken) == [0, 2, 3, 5, 6, 8, 9, 11]
    for _ in range(20):
        deliver(holder, reports, database)
    assert {report.item["chunk_id"] for report in reports} == {1}, "of its job less and less at once"
    assert len(holder.held()) == 1, "its lease is kept"
    database.locked = set()
    deliver(holder, reports, database)
    assert sorted(database.taken) == list(range(12))
    assert (reports, holder.held()) == ([], [])


def test_a_chunk_that_goes_on_later_waits_for_its_job_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supabase_chunks._outbox._AFTER_STOP", 0.0)
    holder = core()
    (chunk,) = holder.take([claim(1)])
    holder.outbox.reports = [succeeded(chunk, sc.Continue({"page": 2}))]
    answers: list[object] = [sc.StatementTimeout(), {"chunk_id": 1, "outcome": "released"}]

    class Locked:
        def send(self, request: Request) -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    driver = Driver(Locked(), Retry())
    driver.run(holder.outbox.deliver())
    assert holder.held() == [chunk]
    driver.run(holder.outbox.deliver())
    assert (holder.held(), holder.outbox.reports) == ([], [])


def test_a_refused_result_fails_its_chunk_with_the_reason() -> None:
    holder, database = core(), Database(refused={1})
    reports = [succeeded(chunk, "ok") for chunk in holder.take([claim(n) for n in range(3)])]
    deliver(holder, reports, database)
    assert database.taken[1]["success"] is False
    assert "bad (SC003)" in database.taken[1]["error"]
    assert holder.held() == []


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), sc.Result(None, items_processed=float("nan"))])  # type: ignore[arg-type]  # the mistake
def test_a_result_that_is_not_json_is_a_permanent_failure(value: object) -> None:
    report = succeeded(sc.Chunk(claim(1)), value)
    assert report.item["success"] is False
    assert report.item["retryable"] is False


@pytest.mark.parametrize(
    ("seconds", "sent"), [(0, 0), (-5, 0), (1.2, 2), (1e9, 604800), (float("inf"), 604800)]
)
def test_the_pause_of_retry_later_is_sent_in_whole_seconds_within_a_week(seconds: float, sent: int) -> None:
    assert failed(sc.Chunk(claim(1)), sc.RetryLater(seconds)).item["retry_after_seconds"] == sent


def test_numbers_that_are_none_are_refused_where_they_are_given() -> None:
    with pytest.raises(ValueError, match="not a number"):
        sc.RetryLater(float("nan"))
    with pytest.raises(ValueError, match="NaN"):
        sc.Chunk(claim(1)).report(float("nan"))  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize(("items", "sent"), [(-3, 0), (7, 7), (2**60, 2**53 - 1)])
def test_a_number_of_items_is_one_that_the_database_takes(items: int, sent: int) -> None:
    chunk = sc.Chunk(claim(1))
    chunk.report(items)
    assert succeeded(chunk, None).item["items_processed"] == sent


def test_idle_pauses_grow_to_a_second_and_start_again() -> None:
    backoff = Backoff()
    pauses = [backoff.idle() for _ in range(20)]
    assert pauses[0] < 0.06
    assert all(pause <= 1.0 for pause in pauses)
    assert pauses[-1] >= 0.7
    backoff.worked()
    assert backoff.idle() < 0.06


def test_troubles_that_may_pass_are_waited_out_and_others_raised() -> None:
    backoff = Backoff()
    for passing in (
        sc.ConnectionFailed(),
        sc.ServerUnavailable(),
        sc.RequestTimeout(),
        sc.StatementTimeout(),
    ):
        assert 0 < backoff.trouble(passing, "a claim") <= 10
    for lasting in (sc.AuthenticationError(), sc.PermissionDenied(), sc.FunctionsNotInstalled()):
        with pytest.raises(type(lasting)):
            backoff.trouble(lasting, "a claim")
