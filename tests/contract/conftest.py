"""The real stack, once a session, and each case through both clients."""

from __future__ import annotations

import inspect
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from supabase_chunks import AsyncChunksClient, AsyncWorker, ChunksClient, Worker
from supabase_chunks.local import LocalStack
from tests.contract.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    """A project of its own without Edge Functions: here Python works the chunks."""
    with LocalStack(functions=None) as running:
        yield running


@pytest.fixture
def sync_client(stack: LocalStack) -> Iterator[ChunksClient]:
    """A sync client with the secret key."""
    with ChunksClient(stack.url, stack.secret_key) as client:
        yield client


@pytest_asyncio.fixture(params=["sync", "async"])
async def client(request: pytest.FixtureRequest, stack: LocalStack) -> AsyncIterator[Any]:
    """Both clients, one after the other, with the secret key."""
    async with both(request.param, stack.url, stack.secret_key) as made:
        yield made


class both:  # noqa: N801 - reads as a function
    """Either client as an async context manager."""

    def __init__(self, which: str, url: str, key: str, **options: Any) -> None:
        self.client: Any = (ChunksClient if which == "sync" else AsyncChunksClient)(url, key, **options)

    async def __aenter__(self) -> Any:
        return self.client

    async def __aexit__(self, *exc_info: object) -> None:
        await done(self.client.close() if isinstance(self.client, ChunksClient) else self.client.aclose())


async def done(value: Any) -> Any:
    """Return a result, awaited if it is the async client's."""
    return await value if inspect.isawaitable(value) else value


async def listed(watch: Any) -> list[Any]:
    """Return all that a watch gives."""
    return [item async for item in watch] if hasattr(watch, "__aiter__") else list(watch)


def worker_for(client: Any, handler: Any, **options: Any) -> Any:
    """Return the worker that suits a client."""
    return (Worker if isinstance(client, ChunksClient) else AsyncWorker)(client, handler, **options)


@pytest.fixture
def kind(sync_client: ChunksClient) -> str:
    """A kind of the test's own, with quick retries."""
    name = f"k-{uuid.uuid4().hex[:12]}"
    sync_client.save_kind(
        name, max_concurrency=1000, retry_delay_seconds=0, lease_seconds=30, user_startable=True
    )
    return name


@pytest.fixture
def proxy(stack: LocalStack) -> Iterator[Proxy]:
    """A network between us and the project that can be told to misbehave."""
    with Proxy(stack.url) as between:
        yield between
