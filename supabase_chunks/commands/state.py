"""The commands for the state between syncs: show, set and reset it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .arguments import JsonObject
from .output import as_json

if TYPE_CHECKING:
    from uuid import UUID

_owner = click.option(
    "--owner", "owner_id", type=click.UUID, help="The user whose syncs they are (the service's own)."
)


@click.group()
def state() -> None:
    """Show or set what the next sync starts from.

    It is kept for each kind, job key and owner, and left by the last sync that completed.

    \b
    Examples:
      supabase-chunks state show custom nightly
      supabase-chunks state set custom nightly '{"since": "2026-01-31"}'
      supabase-chunks state reset custom nightly
    """


@state.command()
@click.argument("kind")
@click.argument("key")
@_owner
def show(kind: str, key: str, owner_id: UUID | None) -> None:
    """Print what the last completed sync has left, as JSON; null for nothing.

    \b
    Example:
      supabase-chunks state show custom nightly
    """
    from supabase_chunks import ChunksClient

    click.echo(as_json(ChunksClient.from_env().sync_state(kind, key, owner_id=owner_id)))


@state.command("set")
@click.argument("kind")
@click.argument("key")
@click.argument("value", type=JsonObject(), metavar="STATE")
@_owner
def set_(kind: str, key: str, value: Any, owner_id: UUID | None) -> None:
    """Set it to a JSON object. Syncs that are under way do not replace it.

    \b
    Example:
      supabase-chunks state set custom nightly '{"since": "2026-01-31"}'
    """
    from supabase_chunks import ChunksClient

    ChunksClient.from_env().save_sync_state(kind, key, value, owner_id=owner_id)


@state.command()
@click.argument("kind")
@click.argument("key")
@_owner
def reset(kind: str, key: str, owner_id: UUID | None) -> None:
    """Forget it: the next sync starts from nothing.

    \b
    Example:
      supabase-chunks state reset custom nightly
    """
    from supabase_chunks import ChunksClient

    ChunksClient.from_env().save_sync_state(kind, key, None, owner_id=owner_id)
