"""Whether a project needs Edge Functions, and with them webhooks and the Vault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supabase_chunks.doctor.check import Check
from supabase_chunks.errors import FunctionsNotInstalled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from supabase_chunks.client import ChunksClient
    from supabase_chunks.health import Health
    from supabase_chunks.models import Kind

_EMAIL = ("email", "sync-emails")
_UNUSED = "not needed: no kind in use has an Edge Function"


def is_needed(client: ChunksClient, health: Health, kinds: Sequence[Kind]) -> bool:
    """Return whether it needs them: a URL or a key is there, or a kind in use has a handler.

    The kind `email` comes with the migrations. It is in use when it has a job, or there is an account.
    """
    with_handler = {(kind.kind, kind.handler) for kind in kinds if kind.handler}
    if health.configured.project_url or health.configured.processor_key or with_handler - {_EMAIL}:
        return True
    return _EMAIL in with_handler and bool(client.jobs(kind=_EMAIL[0], limit=1) or _accounts(client))


def _accounts(client: ChunksClient) -> Sequence[object]:
    try:
        return client.email.accounts()
    except FunctionsNotInstalled:
        return []  # the email sync can be left out


def unneeded(health: Health) -> Iterator[Check]:
    """Say of what only Edge Functions need that it is well, there or not."""
    for name in ("pg_net", "supabase_vault"):
        yield Check(name, True, health.extensions.get(name) or f"missing, and {_UNUSED}")
    yield Check("vault", True, f"{_UNUSED} (before the first: supabase-chunks configure)")
    yield Check("functions", True, _UNUSED)
