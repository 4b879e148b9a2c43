"""`supabase-chunks doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .arguments import Duration, json_option
from .failures import FAILED
from .output import as_json, marks

if TYPE_CHECKING:
    from datetime import timedelta

    from supabase_chunks.doctor import Check


@click.command()
@click.option(
    "--max-answer",
    type=Duration(),
    default="20s",
    show_default=True,
    help="How long a function may take to answer.",
)
@click.option(
    "--max-wait", type=Duration(), default="10m", show_default=True, help="How long a chunk may wait."
)
@click.option(
    "--max-transaction",
    type=Duration(),
    default="15m",
    show_default=True,
    help="How long a transaction may be open.",
)
@click.option(
    "--max-dead-rows",
    type=click.IntRange(0),
    default=200_000,
    show_default=True,
    help="How many dead rows the queue may have.",
)
@json_option
def doctor(
    max_answer: timedelta, max_wait: timedelta, max_transaction: timedelta, max_dead_rows: int, json_: bool
) -> None:
    """Check an installation, and say how to repair it.

    Asks database and functions; nothing is changed, no chunk is claimed. Exits with 1 when something is
    wrong.

    \b
    Example:
      supabase-chunks doctor --json
    """
    import httpx

    from supabase_chunks import ChunksClient, Retry, _network, assets
    from supabase_chunks._credentials import checked_url, environment
    from supabase_chunks.doctor import Limits, examine

    url, key = environment()
    url = checked_url(url)
    limits = Limits(answer=max_answer, waiting=max_wait, transaction=max_transaction, dead_rows=max_dead_rows)
    checks = []
    # One try: a doctor reports what is, and does not wait for better times.
    with _network.environment():
        http = httpx.Client(**_network.options(url))
    with ChunksClient(url, key, retry=Retry(attempts=1)) as client, http:
        for check in examine(client, url=url, key=key, http=http, version=assets.version(), limits=limits):
            checks.append(check)
            if not json_:
                _show(check)
    if json_:
        click.echo(as_json([check.to_dict() for check in checks]))
    wrong = sum(not check.ok for check in checks)
    if wrong:
        click.echo(f"{wrong} of {len(checks)} checks failed.", err=True)
        raise click.exceptions.Exit(FAILED)


def _show(check: Check) -> None:
    good, bad = marks()
    click.echo(f"{good if check.ok else bad} {check.name}: {check.detail}")
    if check.fix:
        click.echo(f"    {check.fix}")
