"""The commands for those who keep a project running: clean up and purge."""

from __future__ import annotations

import time
from datetime import timedelta

import click

from .arguments import Duration, json_option
from .output import as_json
from .signals import interruptible


@click.command()
@click.option(
    "--stuck-after",
    type=Duration(),
    help="Take back chunks without a sign of life for so long, such as 10m (those whose lease is over).",
)
@click.option(
    "--every",
    type=Duration(),
    metavar="DURATION",
    help="Do it again and again, such as every 30s: a watchdog where pg_cron is missing.",
)
@json_option
def cleanup(stuck_after: timedelta | None, every: timedelta | None, json_: bool) -> None:
    """Take back chunks whose worker is gone.

    Prints how many they were. This is the watchdog's pass: it also settles jobs and sends lost webhooks.

    \b
    Examples:
      supabase-chunks cleanup
      supabase-chunks cleanup --every 30s
    """
    from supabase_chunks import ChunksClient
    from supabase_chunks.errors import ChunksError, TransportError

    client = ChunksClient.from_env()
    if every is not None and every <= timedelta():
        raise click.UsageError("--every needs a time above zero.")
    with interruptible():
        while True:
            try:
                count = client.cleanup_stuck_chunks(stuck_after=stuck_after)
                if every is None or count:
                    click.echo(as_json({"recovered": count}) if json_ else str(count))
            except ChunksError as error:
                # A server that restarts does not end a watchdog; a wrong key does.
                if every is None or not (error.retryable or isinstance(error, TransportError)):
                    raise
                click.echo(f"{error}; trying again in {every.total_seconds():g} s", err=True)
            if every is None:
                return
            time.sleep(every.total_seconds())


@click.command()
@click.option(
    "--older-than", type=Duration(), default="30d", show_default=True, help="Only jobs that ended longer ago."
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 1_000_000),
    default=10_000,
    show_default=True,
    help="How many chunks to delete in one transaction.",
)
@json_option
def purge(older_than: timedelta, batch_size: int, json_: bool) -> None:
    """Delete jobs that ended, with their chunks. Running jobs and synced data stay.

    \b
    Example:
      supabase-chunks purge --older-than 90d
    """
    from supabase_chunks import ChunksClient

    client = ChunksClient.from_env()
    jobs = chunks = 0
    while True:
        answer = client.purge(older_than=older_than, batch_size=batch_size)
        jobs += answer.jobs
        chunks += answer.chunks
        # A job that somebody is reopening stays, and is no reason to go round for ever.
        if not answer.more or not answer.jobs + answer.chunks:
            break
    if json_:
        click.echo(as_json({"jobs": jobs, "chunks": chunks}))
    else:
        click.echo(f"Deleted {jobs:,} jobs with {chunks:,} chunks.")
