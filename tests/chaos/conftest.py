"""Stacks to hurt, and a job on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from supabase_chunks import ChunksClient
from tests.chaos.trial import Trial, marking, write_functions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from supabase_chunks.local import LocalStack

# Few enough that a job of 200 chunks is handed over by webhook some ten times.
CHUNKS_PER_INVOCATION = 20


@pytest.fixture(scope="session")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's functions and a handler that leaves marks."""
    return write_functions(tmp_path_factory.mktemp("project") / "functions")


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
