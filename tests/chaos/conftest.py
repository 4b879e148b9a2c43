"""Stacks to hurt, and a job on them; and what waits for a clock, which is begun before all else."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from supabase_chunks import ChunksClient
from tests.chaos.trial import HANDLER, KIND, Trial, marking
from tests.handlers import write_functions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from supabase_chunks.local import LocalStack

# Few enough that a job of 200 chunks is handed over by webhook some ten times.
CHUNKS_PER_INVOCATION = 20

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the tests of this folder those come last that are begun first; all run in one process."""
    places = [place for place, item in enumerate(items) if item.path.parent == HERE]
    ours = sorted((items[place] for place in places), key=lambda item: _scenario(item) is not None)
    for place, item in zip(places, ours, strict=True):
        item.add_marker(pytest.mark.xdist_group("chaos"))
        items[place] = item


def _scenario(item: pytest.Item) -> Callable[[], None] | None:
    marker = item.get_closest_marker("meanwhile")
    return marker.kwargs["scenario"] if marker else None


@pytest.fixture(scope="session", autouse=True)
def begun(request: pytest.FixtureRequest) -> dict[str, Future[None]]:
    """The scenarios that run meanwhile, by their tests: each has servers of its own, and mostly waits."""
    return {item.nodeid: _begin(scenario) for item in request.session.items if (scenario := _scenario(item))}


def _begin(scenario: Callable[[], None]) -> Future[None]:
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            outcome.set_result(scenario())
        except BaseException as error:  # to be raised by the test, skipping included
            outcome.set_exception(error)

    # When the session is interrupted nobody waits for its end: the servers end with this process.
    threading.Thread(target=run, daemon=True).start()
    return outcome


@pytest.fixture
def scenario(begun: dict[str, Future[None]], request: pytest.FixtureRequest) -> Future[None]:
    """The test's own, under way since the first trial or over."""
    return begun[request.node.nodeid]


@pytest.fixture(scope="session")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's functions and a handler that leaves marks."""
    return write_functions(tmp_path_factory.mktemp("project") / "functions", KIND, HANDLER)


@pytest.fixture(scope="session")
def stack(functions: Path) -> Iterator[LocalStack]:
    """A stack whose processor drains twenty chunks an invocation."""
    with marking(functions, CHUNKS_PER_INVOCATION=str(CHUNKS_PER_INVOCATION)) as running:
        yield running


@pytest.fixture(scope="session")
def chaining(functions: Path) -> Iterator[LocalStack]:
    """A stack whose processor does one chunk an invocation, so that each needs a webhook."""
    with marking(functions, CHUNKS_PER_INVOCATION="1", HEARTBEAT_SECONDS="0.5") as running:
        yield running


@pytest.fixture
def trial(stack: LocalStack, request: pytest.FixtureRequest) -> Iterator[Trial]:
    """A job on the stack that drains; afterwards it is whole again."""
    yield from _trial(stack, request.node.name)


@pytest.fixture
def chained(chaining: LocalStack, request: pytest.FixtureRequest) -> Iterator[Trial]:
    """A job on the stack that needs a webhook a chunk."""
    yield from _trial(chaining, request.node.name)


def _trial(stack: LocalStack, name: str) -> Iterator[Trial]:
    with ChunksClient(stack.url, stack.secret_key) as client:
        yield Trial(stack, client, name)
    stack.set_webhooks(pace=0.0, drop=0.0)
    stack.wait_until_ready()
