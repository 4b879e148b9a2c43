"""The commands for limits across jobs: list, save, block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .arguments import Duration, json_option
from .found import connect
from .output import as_json, echo, screen_width, table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from supabase_chunks import Limit

_HEADER = ("KEY", "AT ONCE", "RATE", "PROCESSING", "WAITING", "JOBS", "BLOCKED UNTIL")


@click.command()
@json_option
def limits(json_: bool) -> None:
    """List limits across jobs, and how it stands with them.

    \b
    Example:
      supabase-chunks limits
    """
    found = connect().limits()
    if json_:
        click.echo(as_json(found))
    elif found:
        echo(_lines(found))
    else:
        click.echo("There are no limits across jobs: supabase-chunks save-limit KEY sets one.", err=True)


@click.command("save-limit")
@click.argument("key")
@click.option(
    "--max-concurrency", type=click.IntRange(1, 10000), help="How many chunks may run at once (any number)."
)
@click.option("--rate", type=click.IntRange(1, 1000000), help="How many requests may be made (any number).")
@click.option("--per", type=Duration(), default="1s", help="The time that the rate is for (1s).")
@json_option
def save_limit(key: str, max_concurrency: int | None, rate: int | None, per: timedelta, json_: bool) -> None:
    """Set what the jobs with a limit key share.

    What is not given is not limited; without any the key has no limits any more.

    \b
    Examples:
      supabase-chunks save-limit an-api --max-concurrency 4 --rate 100 --per 1m
      supabase-chunks save-limit an-api
    """
    saved = connect().save_limit(
        key, max_concurrency=max_concurrency, rate=rate, per_seconds=round(per.total_seconds())
    )
    _show(saved, json_)


@click.command("block-limit")
@click.argument("key")
@click.argument("duration", type=Duration())
@click.option("--reason", help="Why; shown beside it.")
@json_option
def block_limit(key: str, duration: timedelta, reason: str | None, json_: bool) -> None:
    """Hand out no chunk with a limit key for a while.

    Chunks that are being worked on go on; 0s ends a block.

    \b
    Examples:
      supabase-chunks block-limit an-api 15m --reason maintenance
      supabase-chunks block-limit an-api 0s
    """
    _show(connect().block_limit(key, duration.total_seconds(), reason=reason), json_)


def _show(limit: Limit, json_: bool) -> None:
    if json_:
        click.echo(as_json(limit))
    else:
        echo(_lines([limit]))


def _lines(found: Sequence[Limit]) -> list[str]:
    rows = [
        (
            limit.key,
            "any" if limit.max_concurrency is None else f"{limit.max_concurrency:,}",
            "any" if limit.rate is None else f"{limit.rate:,}/{limit.per_seconds} s",
            f"{limit.processing:,}",
            f"{limit.waiting:,}",
            f"{limit.jobs:,}",
            _blocked(limit),
        )
        for limit in found
    ]
    return table(_HEADER, rows, elastic=(0, 6), room=screen_width())


def _blocked(limit: Limit) -> str:
    from supabase_chunks._show.words import blocked

    return "" if limit.blocked_until is None else blocked(limit.blocked_until, limit.blocked_reason)
