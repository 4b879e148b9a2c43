"""Whatever is lost or killed, a job of 200 chunks ends completed, every chunk's effect applied once.

Run with `-s` to see how long each took after the last fault.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from supabase_chunks import ChunksClient
from tests.chaos.conftest import CHUNKS_PER_INVOCATION
from tests.chaos.trial import CHUNKS, HANDLER, KIND, Trial, marking
from tests.handlers import write_functions
from tests.polling import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

# A pass of the watchdog comes every 30 s and sends again what has led to nothing for 28 s.
TWO_PASSES = 75.0


@contextmanager
def own_trial(name: str) -> Iterator[Trial]:
    """A trial on a stack of its own, which drains as that of the others does."""
    with TemporaryDirectory() as folder:
        functions = write_functions(Path(folder) / "functions", KIND, HANDLER)
        with (
            marking(functions, CHUNKS_PER_INVOCATION=str(CHUNKS_PER_INVOCATION)) as stack,
            ChunksClient(stack.url, stack.secret_key) as client,
        ):
            yield Trial(stack, client, name)


def webhooks_lost_by_chance() -> None:
    with own_trial("test_webhooks_lost_by_chance") as trial:
        trial.stack.set_webhooks(drop=0.3)
        trial.start(ms=10)
        # Four chains of webhooks, each broken with a chance of 0.3 at each of its links: even with nobody's help the
        # passes of the cron bring it home.
        trial.comes_home(within=3 * TWO_PASSES)


@pytest.mark.meanwhile(scenario=webhooks_lost_by_chance)
def test_webhooks_lost_by_chance(scenario: Future[None]) -> None:
    scenario.result()


@pytest.mark.soak
def test_webhooks_lost_by_chance_with_one_for_each_chunk(chained: Trial) -> None:
    chained.stack.set_webhooks(drop=0.3)
    chained.start()
    # Some sixty webhooks are lost: four, one for each slot, between two passes of the watchdog.
    chained.comes_home(within=30 * TWO_PASSES)


@pytest.mark.soak
def test_all_webhooks_lost_for_a_minute(trial: Trial) -> None:
    lose_all_webhooks(trial, seconds=60)


def lose_all_webhooks(trial: Trial, *, seconds: float) -> None:
    """In the middle of a job webhooks stop to arrive; the job stands still, and the cron alone sets it going again."""
    trial.start(ms=10)
    trial.done(20)
    trial.stack.set_webhooks(drop=1.0)
    until(lambda: trial.progress().processing_chunks == 0, "the last invocation has handed over to nobody")
    time.sleep(1)  # in which a webhook that was on its way would be at work
    trial.restart_clock_of_watchdog()
    stood_at = trial.progress()
    assert (stood_at.ended, stood_at.processing_chunks) == (False, 0)
    time.sleep(seconds - 1)
    assert trial.progress().completed_chunks == stood_at.completed_chunks
    trial.stack.set_webhooks(drop=0.0)
    trial.fault()
    trial.comes_home(within=TWO_PASSES + 2 * seconds)


def all_webhooks_lost_for_a_while() -> None:
    with own_trial("test_all_webhooks_lost_for_a_while") as trial:
        lose_all_webhooks(trial, seconds=10)


@pytest.mark.meanwhile(scenario=all_webhooks_lost_for_a_while)
def test_all_webhooks_lost_for_a_while(scenario: Future[None]) -> None:
    scenario.result()


def test_the_last_chunk_fails_and_no_pass_of_the_watchdog_is_near(trial: Trial) -> None:
    trial.restart_clock_of_watchdog()
    trial.start(chunks=1, failures=lambda n: 2)
    # Backoffs of at most one and two seconds: its retries come when they are due.
    trial.comes_home(within=15)


def test_functions_killed_every_two_seconds(trial: Trial) -> None:
    kill_functions(trial, seconds=6)


@pytest.mark.soak
def test_functions_killed_every_two_seconds_for_a_minute(trial: Trial) -> None:
    kill_functions(trial, seconds=60)


def kill_functions(trial: Trial, *, seconds: float) -> None:
    """Processor and handler die together, in the middle of chunks, faster than their leases end."""
    trial.start(ms=100)
    trial.done(4)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        trial.stack.kill("functions")
        trial.fault()
        time.sleep(2)
        trial.client.cleanup_stuck_chunks()
    assert not trial.progress().ended
    trial.comes_home(within=60, clean=True)


def test_postgrest_restarted(trial: Trial) -> None:
    trial.start(ms=20)
    for completed in (20, 60, 100):
        trial.done(completed)
        trial.stack.restart("postgrest")
        trial.fault()
    trial.comes_home(within=60, clean=True)


def test_postgresql_killed(trial: Trial) -> None:
    trial.start(ms=20)
    for completed in (20, 60, 100):
        trial.done(completed)
        # With every backend, by SIGKILL; pg_net's tables come back empty.
        trial.stack.restart("postgres")
        trial.fault()
    trial.comes_home(within=60, clean=True)


@pytest.mark.soak
def test_postgresql_killed_with_webhooks_waiting(trial: Trial) -> None:
    # While the sender pauses after a first batch, the next ones wait in pg_net's unlogged queue.
    trial.stack.set_webhooks(pace=5.0)
    trial.start(chunks=1)
    trial.done(1)
    trial.start(ms=10)
    assert trial.waiting_webhooks() > 0
    trial.stack.restart("postgres")
    assert trial.waiting_webhooks() == 0
    trial.fault()
    trial.stack.set_webhooks(pace=0.0)
    trial.comes_home(within=TWO_PASSES)


@pytest.mark.soak
def test_everything_killed_in_turn_for_a_minute(trial: Trial) -> None:
    trial.stack.set_webhooks(drop=0.1, pace=0.1)
    trial.start(ms=200, chunks=5 * CHUNKS)
    for round_ in range(20):
        part = ("functions", "postgres", "postgrest")[round_ % 3]
        trial.stack.kill(part)
        trial.fault()
        time.sleep(3)
    trial.stack.set_webhooks(drop=0.0, pace=0.0)
    trial.comes_home(within=4 * TWO_PASSES, clean=True)
