"""Signals around a worker: they stop it, reach whoever has handled them before, and end a process that was forked."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from supabase_chunks._worker_setup import Options

BOTH = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Put back what there was."""
    before = {number: signal.getsignal(number) for number in BOTH}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def block(stopped: list[str], *, handle_signals: bool = True) -> AbstractContextManager[None]:
    """The block in which a worker runs."""
    options = Options(print, ["k"], 1, 0, None, None, 1.0, handle_signals)
    return options.signals(lambda: stopped.append("worker"))


@pytest.mark.parametrize("number", BOTH)
def test_the_first_stops_the_worker_and_reaches_the_server_and_the_second_only_the_server(
    number: signal.Signals,
) -> None:
    heard: list[str] = []

    def of_server(*_: object) -> None:
        heard.append("server")

    signal.signal(number, of_server)
    with block(heard):
        signal.raise_signal(number)
        assert heard == ["worker", "server"]
        signal.raise_signal(number)
        assert heard == ["worker", "server", "server"]
    assert signal.getsignal(number) is of_server


@pytest.mark.parametrize("number", BOTH)
def test_handlers_of_pythons_own_are_not_called_by_the_first(number: signal.Signals) -> None:
    heard: list[str] = []
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with block(heard):
        signal.raise_signal(number)
    assert heard == ["worker"]


def test_the_first_ctrl_c_does_not_cancel_what_asyncio_runs() -> None:
    heard: list[str] = []

    async def main() -> str:
        with block(heard):
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(0)
        return "ended"

    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert (asyncio.run(main()), heard) == ("ended", ["worker"])


def test_who_wants_none_installed_gets_none() -> None:
    before = [signal.getsignal(number) for number in BOTH]
    with block([], handle_signals=False):
        assert [signal.getsignal(number) for number in BOTH] == before


def test_a_handler_that_was_installed_since_stays() -> None:
    def newer(*_: object) -> None: ...

    with block([]):
        signal.signal(signal.SIGTERM, newer)
    assert signal.getsignal(signal.SIGTERM) is newer


def test_one_of_two_workers_leaves_the_signal_to_the_other_too() -> None:
    heard: list[str] = []
    with block(heard), block(heard):
        signal.raise_signal(signal.SIGTERM)
    assert heard == ["worker", "worker"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_a_handler_has_forked_is_ended_by_its_first_signal() -> None:
    """As `multiprocessing.Pool.terminate()` does, which waits for it."""
    heard: list[str] = []
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with block(heard):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, b".")  # Python forgets a signal that comes while it is being forked
            time.sleep(20)
            os._exit(0)
        os.read(reading, 1)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert heard == []
