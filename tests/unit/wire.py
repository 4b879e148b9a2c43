"""A PostgREST made of respx, and both clients on it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from supabase_chunks import AsyncChunksClient, ChunksClient, ChunksError, Retry

if TYPE_CHECKING:
    import httpx
    import respx

URL = "https://abc.supabase.co"
KEY = "sb_secret_FOR-TESTS-ONLY"
JOB = "6f2c8d3e-0000-4000-8000-000000000000"
HEALTH = {"version": "0.1.0", "postgres": "18.1"}
QUICK = Retry(attempts=3, first_delay=0.0)


def sync_client(**options: Any) -> ChunksClient:
    """Return a client that does not wait between tries."""
    return ChunksClient(URL, KEY, **{"retry": QUICK, **options})


def async_client(**options: Any) -> AsyncChunksClient:
    """Return the same, to await."""
    return AsyncChunksClient(URL, KEY, **{"retry": QUICK, **options})


async def outcomes(call: Callable[[Any], Any], **options: Any) -> list[Any]:
    """Make a call through both clients and return both outcomes, an error as such."""
    found: list[Any] = []
    try:
        with sync_client(**options) as client:
            found.append(call(client))
    except ChunksError as error:
        found.append(error)
    try:
        async with async_client(**options) as aclient:
            result = call(aclient)
            found.append(await result if isinstance(result, Awaitable) else result)
    except ChunksError as error:
        found.append(error)
    return found


def rpc(mock: respx.MockRouter, function: str) -> respx.Route:
    """Return the route of a database function."""
    return mock.post(f"{URL}/rest/v1/rpc/{function}")


def table(mock: respx.MockRouter, name: str) -> respx.Route:
    """Return the route of a table."""
    return mock.get(url__startswith=f"{URL}/rest/v1/{name}")


def body(request: httpx.Request) -> Any:
    """Return what a request carries."""
    return json.loads(request.content)


def progress(status: str = "running", **fields: Any) -> dict[str, Any]:
    """Return a progress as the database gives it."""
    return {"id": JOB, "kind": "custom", "status": status, "total_chunks": 4, "percent_complete": 0, **fields}
