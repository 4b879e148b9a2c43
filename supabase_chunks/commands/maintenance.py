"""The commands for those who keep a project running: clean up, purge, configure."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import click

from .arguments import Duration, json_option
from .failures import USAGE, Failure
from .output import as_json, echo, facts
from .signals import interruptible

# How the database of the official CLI's Docker stack reaches its API; 127.0.0.1 is the database itself there.
_DOCKER_URL = "http://api.supabase.internal:8000"
_DOCKER_PORT = 54321


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
        jobs += answer["jobs"]
        chunks += answer["chunks"]
        # A job that somebody is reopening stays, and is no reason to go round for ever.
        if not answer["more"] or not answer["jobs"] + answer["chunks"]:
            break
    if json_:
        click.echo(as_json({"jobs": jobs, "chunks": chunks}))
    else:
        click.echo(f"Deleted {jobs:,} jobs with {chunks:,} chunks.")


@click.command()
@click.option(
    "--project-url", metavar="URL", help="The project's URL as the database reaches it (SUPABASE_URL)."
)
@click.option("--docker", is_flag=True, help=f"For `supabase start`: {_DOCKER_URL}.")
@json_option
def configure(project_url: str | None, docker: bool, json_: bool) -> None:
    """Tell the database where its webhooks go.

    Their URL and their key go into Vault. The key is taken from CHUNK_PROCESSOR_KEY, or is the one that this
    command uses (SUPABASE_SECRET_KEY); it is never an argument and never shown. Their URL must be one that
    the database reaches: SUPABASE_URL for a hosted project and for `supabase-chunks local` (which is
    configured from the start), an inner one for the Docker stack of `supabase start` and self-hosting.

    \b
    Examples:
      supabase-chunks configure                                 (hosted)
      supabase-chunks configure --docker                        (supabase start)
      supabase-chunks configure --project-url http://kong:8000  (self-hosted)
    """
    from supabase_chunks import ChunksClient
    from supabase_chunks._credentials import environment

    if docker and project_url is not None:
        raise click.UsageError("--docker names the URL itself: leave out --project-url.")
    url, key = environment()
    target = _DOCKER_URL if docker else project_url or url
    if project_url is None and not docker and _is_docker(url):
        raise Failure(
            f"{url} looks like the API of `supabase start`, which its database cannot reach by that name: run"
            f" supabase-chunks configure --docker (or name the URL with --project-url).",
            USAGE,
        )
    client = ChunksClient(url, key)
    health = client.configure(target, os.environ.get("CHUNK_PROCESSOR_KEY") or key)
    if json_:
        click.echo(as_json(health))
        return
    echo(_summary(target, health))
    click.echo("Check the whole with: supabase-chunks doctor", err=True)


def _is_docker(url: str) -> bool:
    parts = urlsplit(url)
    return parts.hostname in {"127.0.0.1", "localhost"} and parts.port == _DOCKER_PORT


def _summary(url: str, health: dict[str, Any]) -> list[str]:
    extensions, watchdog = health.get("extensions", {}), health.get("watchdog", {})
    return facts(
        [
            ("webhooks go to", url),
            ("pg_net", extensions.get("pg_net") or "missing: create extension pg_net;"),
            ("pg_cron", extensions.get("pg_cron") or "missing: create extension pg_cron;"),
            ("watchdog", str(watchdog.get("schedule") or "not scheduled")),
        ]
    )
