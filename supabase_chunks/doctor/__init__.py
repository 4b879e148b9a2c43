"""Examining an installation: a check for each thing that can be wrong, with the command that repairs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supabase_chunks.doctor import edge, health, reach
from supabase_chunks.doctor.check import PROCESSOR, PUSH, Check, Limits, version_check
from supabase_chunks.errors import (
    AuthenticationError,
    ChunksError,
    FunctionsNotInstalled,
    NotFound,
    PermissionDenied,
    ResponseError,
    TransportError,
    UnexpectedResponse,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from supabase_chunks.client import ChunksClient

__all__ = ["Check", "Limits", "examine"]


def examine(
    client: ChunksClient,
    *,
    url: str,
    key: str,
    http: httpx.Client,
    version: str,
    limits: Limits | None = None,
) -> Iterator[Check]:
    """Examine a project; nothing is changed and no chunk is claimed.

    Args:
        client: The project.
        url: Its URL, for the functions.
        key: The secret key, which the functions must accept.
        http: What the functions are asked with.
        version: The version of this package.
        limits: From where on something is too much.

    Yields:
        The checks, as they are made. When the database cannot be asked, there is only the one that says so.
    """
    try:
        state = client.health()
        kinds = client.kinds()
        is_edge_needed = edge.is_needed(client, state, kinds)
    except ChunksError as error:
        yield _no_answer(error, url)
        return
    yield Check("database", True, f"{url} answers, PostgreSQL {state.postgres}")
    yield version_check("migrations", state.version, version, PUSH)
    yield from reach.grants(url, key, http)
    yield health.writes(state)
    yield health.extension(state, "pg_cron")
    yield health.watchdog(state)
    limits = limits or Limits()
    if is_edge_needed:
        yield health.extension(state, "pg_net")
        yield health.extension(state, "supabase_vault")
        yield health.vault(state, url)
        handlers = sorted({kind.handler for kind in kinds if kind.handler} - {PROCESSOR})
        for name in [PROCESSOR, *handlers]:
            yield reach.function(name, url, key, http, version, limits)
        yield health.webhooks(state)
    else:
        yield from edge.unneeded(state)
    yield from health.jobs(state, limits)
    yield health.limit_keys(state)
    yield health.users(state)
    yield health.healed(state)
    yield from health.database(state, limits)


def _no_answer(error: ChunksError, url: str) -> Check:
    text = str(error).splitlines()[0]
    match error:
        case FunctionsNotInstalled():
            return Check("database", False, "supabase-chunks is not installed there", PUSH)
        case PermissionDenied():
            fix = "export SUPABASE_SECRET_KEY=sb_secret_…  (this one is publishable, or a user's)"
            return Check("key", False, f"it may not do what a secret key may: {text}", fix)
        case AuthenticationError():
            fix = "export SUPABASE_SECRET_KEY=sb_secret_…  (from the project's API settings)"
            return Check("key", False, f"the project refuses it: {text}", fix)
        case TransportError() | NotFound() | UnexpectedResponse():
            return Check(
                "database", False, f"{url} does not answer as a project does: {text}", "export SUPABASE_URL=…"
            )
        case ResponseError(status=status) if status is not None and 300 <= status < 400:
            return Check(
                "database", False, f"{url} is not the project's own address: {text}", "export SUPABASE_URL=…"
            )
        case _:
            # A project that is paused, starts or is overloaded; its gateway answers for it.
            fix = "supabase-chunks doctor  (in a minute; until then look at the project in the dashboard)"
            return Check("database", False, f"{url} is in trouble: {text}", fix)
