"""Flows driven by hand: retry, paging and the two drivers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from supabase_chunks import (
    ChunksError,
    ConnectionFailed,
    DatabaseReadOnly,
    InvalidArgument,
    RateLimited,
    RequestTimeout,
    Retry,
    ServerUnavailable,
    StatementTimeout,
)
from supabase_chunks._driver import AsyncDriver, Driver
from supabase_chunks._flow import (
    Call,
    Flow,
    Request,
    Sleep,
    paged,
    persist,
    retried,
    send,
    sleep,
    stopped_once,
)


class Script:
    """A transport that gives prepared answers, and remembers what was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[Request] = []

    def send(self, request: Request) -> Any:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class AsyncScript(Script):
    """The same on an event loop."""

    async def send(self, request: Request) -> Any:
        return Script.send(self, request)


CALL = Call("f", {"a": 1})
QUICK = Retry(first_delay=0.0)


def run(flow: Flow[Any], script: Script) -> Any:
    return Driver(script, QUICK).run_once(flow)


def one_call() -> Flow[Any]:
    return (yield from send(CALL))


async def both(flow_of: Any, *answers: Any) -> list[Any]:
    """Run a flow through both drivers and return both outcomes, an error as such."""
    outcomes: list[Any] = []
    try:
        outcomes.append(run(flow_of(), Script(*answers)))
    except ChunksError as error:
        outcomes.append(error)
    try:
        outcomes.append(await AsyncDriver(AsyncScript(*answers), QUICK).run_once(flow_of()))
    except ChunksError as error:
        outcomes.append(error)
    return outcomes


@pytest.mark.parametrize(
    "error",
    [
        ConnectionFailed(),
        ServerUnavailable(status=503),
        RateLimited(status=429),
        StatementTimeout(),
        DatabaseReadOnly(),
    ],
)
async def test_a_passing_failure_is_repeated(error: ChunksError) -> None:
    assert await both(lambda: retried(one_call(), QUICK), error, error, "done") == ["done", "done"]


@pytest.mark.parametrize("error", [InvalidArgument(), RequestTimeout()])
async def test_other_errors_are_raised_at_once(error: ChunksError) -> None:
    assert await both(lambda: retried(one_call(), QUICK), error, "never") == [error, error]


async def test_who_wants_to_hear_of_a_stop_at_once_does() -> None:
    stopped = StatementTimeout()
    lost = ConnectionFailed()
    assert await both(lambda: retried(stopped_once(one_call()), QUICK), lost, stopped, "never") == [
        stopped,
        stopped,
    ]


async def test_the_last_error_is_raised_when_the_tries_are_used_up() -> None:
    errors = [ConnectionFailed(str(n)) for n in range(3)]
    assert (
        await both(lambda: retried(one_call(), Retry(attempts=3, first_delay=0.0)), *errors)
        == [errors[2]] * 2
    )


def test_the_pause_grows_to_its_cap_and_has_jitter() -> None:
    retry = Retry(attempts=100, first_delay=1.0, max_delay=8.0)
    delays = [[retry.delay(n, ConnectionFailed()) or 0.0 for _ in range(50)] for n in (1, 2, 3, 4, 50)]
    for drawn, most in zip(delays, (1, 2, 4, 8, 8), strict=True):
        assert all(most / 2 <= delay <= most for delay in drawn)
        assert len(set(drawn)) > 1


def test_the_servers_retry_after_is_kept_and_a_long_one_is_not_waited_for() -> None:
    retry = Retry(first_delay=0.1, max_retry_after=60)
    assert retry.delay(1, RateLimited(status=429, retry_after=7.0)) == 7.0
    assert retry.delay(1, RateLimited(status=429, retry_after=3600.0)) is None


def test_polling_is_more_patient_and_forgives_a_timeout() -> None:
    patient = Retry().patient()
    assert patient.delay(10, RequestTimeout()) is not None
    assert patient.delay(1, InvalidArgument()) is None


def test_a_deadline_ends_the_repeating_and_shortens_the_requests() -> None:
    script = Script(*[ConnectionFailed() for _ in range(100)])
    start = time.monotonic()
    with pytest.raises(ConnectionFailed):
        run(persist(CALL, Retry(attempts=100, first_delay=0.02), deadline=start + 0.2), script)
    assert 0.19 <= time.monotonic() - start < 0.4
    assert all(request.timeout is not None and request.timeout <= 0.2 for request in script.asked)


async def test_an_error_reaches_the_flow_which_may_handle_it() -> None:
    def forgiving() -> Flow[str]:
        try:
            yield from send(CALL)
        except InvalidArgument:
            yield from sleep(0)
            return "handled"
        return "no error"

    assert await both(lambda: retried(forgiving(), QUICK), InvalidArgument()) == ["handled", "handled"]


def test_a_flow_is_closed_when_its_driver_is_interrupted() -> None:
    closed = False

    def flow() -> Flow[None]:
        nonlocal closed
        try:
            yield Sleep(0)
            yield from send(CALL)
        finally:
            closed = True

    class Interrupted(Script):
        def send(self, request: Request) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(retried(flow(), QUICK), Interrupted())
    assert closed


@pytest.mark.parametrize("limit", [None, 0, 1, 1500, 2500, 9999])
@pytest.mark.parametrize("server_limit", [1000, 300])
def test_a_list_is_read_whole_though_the_server_limits_each_answer(
    limit: int | None, server_limit: int
) -> None:
    rows = list(range(2500))

    def page(after: int | None, size: int) -> Flow[list[int]]:
        yield from sleep(0)
        start = 0 if after is None else after + 1
        return rows[start : start + min(size, server_limit)]

    expected = rows if limit is None else rows[:limit]
    assert run(paged(page, lambda row: row, limit=limit), Script()) == expected
