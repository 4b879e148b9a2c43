"""The commands for kinds: list, save, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .arguments import Duration, json_option
from .failures import Failure
from .found import connect
from .output import as_json, echo, screen_width, table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from supabase_chunks import Kind

_HEADER = ("KIND", "WORKED BY", "AT ONCE", "RETRIES", "LEASE", "PAUSE", "USERS")


@click.command()
@json_option
def kinds(json_: bool) -> None:
    """List the kinds of syncs, and their limits.

    \b
    Example:
      supabase-chunks kinds
    """
    found = connect().kinds()
    if json_:
        click.echo(as_json(found))
    elif found:
        echo(_lines(found))
    else:
        click.echo("There are no kinds yet: supabase-chunks save-kind NAME adds one.", err=True)


@click.command("save-kind")
@click.argument("kind")
@click.option("--handler", metavar="FUNCTION", help="The Edge Function that works its chunks.")
@click.option("--python", is_flag=True, help="Python workers do, and no Edge Function any more.")
@click.option(
    "--max-concurrency", type=click.IntRange(1, 1000), help="How many chunks of a job may run at once (1)."
)
@click.option(
    "--max-retries", type=click.IntRange(0, 100), help="How often a failed chunk is tried again (3)."
)
@click.option("--lease", type=Duration(), help="How long a claim holds without a heartbeat (10m).")
@click.option("--retry-delay", type=Duration(), help="The pause before the first retry (10s); it doubles.")
@click.option("--users/--no-users", default=None, help="Whether signed-in users may start it (no).")
@click.option("--limit-by", metavar="FIELD", help="What its jobs share limits by: a field, or owner_id.")
@click.option("--limit-each", type=click.IntRange(0, 10000), help="How many chunks of these may run at once.")
@json_option
def save_kind(
    kind: str,
    handler: str | None,
    python: bool,
    lease: timedelta | None,
    retry_delay: timedelta | None,
    users: bool | None,
    json_: bool,
    **limits: Any,
) -> None:
    """Add a kind of sync, or change one.

    What is not given stays as it is; a new kind has the values in brackets. Without a handler Python workers
    do its work.

    \b
    Examples:
      supabase-chunks save-kind invoices --max-concurrency 8
      supabase-chunks save-kind photos --handler sync-photos --users
    """
    if python and handler is not None:
        raise click.UsageError("A kind has a --handler or is for --python workers, not both.")
    saved = connect().save_kind(
        kind,
        handler="" if python else handler,
        lease_seconds=_seconds(lease),
        retry_delay_seconds=_seconds(retry_delay),
        user_startable=users,
        **limits,
    )
    if json_:
        click.echo(as_json(saved))
    else:
        echo(_lines([saved]))


@click.command("remove-kind")
@click.argument("kind")
@json_option
def remove_kind(kind: str, json_: bool) -> None:
    """Remove a kind that has no jobs any more.

    \b
    Example:
      supabase-chunks remove-kind photos
    """
    client = connect()
    if not client.remove_kind(kind):
        from supabase_chunks._nearest import meant

        near = meant(kind, [each.kind for each in client.kinds()])
        raise Failure(f"No sync kind is named {kind!r}{near or '.'}")
    if json_:
        click.echo(as_json({"removed": kind}))
    else:
        click.echo(f"The kind {kind} is removed.", err=True)


def _lines(found: Sequence[Kind]) -> list[str]:
    rows = [
        (
            kind.kind,
            kind.handler or "Python",
            f"{kind.max_concurrency:,}",
            f"{kind.max_retries:,}",
            f"{kind.lease_seconds:,} s",
            f"{kind.retry_delay_seconds:,} s",
            "yes" if kind.user_startable else "no",
        )
        for kind in found
    ]
    return table(_HEADER, rows, elastic=(0, 1), room=screen_width())


def _seconds(time: timedelta | None) -> int | None:
    return None if time is None else round(time.total_seconds())
