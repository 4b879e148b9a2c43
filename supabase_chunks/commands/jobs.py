"""The commands for jobs: start, look, wait, steer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from supabase_chunks._show.colours import paint_for

from .arguments import Duration, JobId, JsonObject, as_typed, job_argument, json_lines, json_option
from .failures import Failure
from .found import connect, find_job
from .listing import job_table
from .output import as_json, echo, progress_facts, screen_width, table

if TYPE_CHECKING:
    from datetime import timedelta

    from supabase_chunks import ChunkRecord, Job, Progress


# Written out: the models are imported when a command runs, and not for its help.
_JOB_STATES = ("pending", "running", "paused", "completed", "failed", "cancelled")
_CHUNK_STATES = ("pending", "processing", "completed", "failed", "cancelled")


@click.command()
@click.argument("kind")
@click.option(
    "--payload", type=JsonObject(), help="What every chunk may need: a JSON object, @FILE, or - for stdin."
)
@click.option("--chunks", metavar="FILE", help="The chunks, a JSON object a line; - for stdin.")
@click.option(
    "--total", "total_items", type=click.IntRange(0), help="How many items there are to cut into chunks."
)
@click.option("--chunk-size", type=click.IntRange(1), help="How many of them a chunk gets.")
@click.option(
    "--key",
    "job_key",
    type=as_typed,
    metavar="TEXT",
    help="At most one job of this kind and key runs; a running one is taken over.",
)
@click.option("--priority", type=click.IntRange(-3, 3), help="Higher goes first (0).")
@click.option("--max-concurrency", type=click.IntRange(1, 1000), help="How many chunks may run at once.")
@click.option("--max-retries", type=click.IntRange(0, 100), help="How often a failed chunk is tried again.")
@click.option("--owner", "owner_id", type=click.UUID, help="The user whose job it is.")
@click.option("--limit-key", type=as_typed, metavar="TEXT", help="What it shares limits by with other jobs.")
@click.option("--wait", is_flag=True, help="Wait for the end, as `watch` does.")
@click.option("--timeout", type=Duration(), help="How long to wait at most, such as 10m.")
@json_option
def trigger(
    kind: str,
    chunks: str | None,
    job_key: str | None,
    wait: bool,
    timeout: timedelta | None,
    json_: bool,
    **options: Any,
) -> None:
    """Start a sync, and print its job's id.

    \b
    Examples:
      supabase-chunks trigger email --payload '{"account": "work"}' --wait
      supabase-chunks trigger custom --chunks pages.jsonl --max-concurrency 8
    """
    client = connect()
    lines = None if chunks is None else json_lines(chunks)
    job = client.trigger_sync(kind, chunks=lines, job_key=job_key, **options)
    if not job.created:
        click.echo(f"A job of this kind and key was running already: {job.id}", err=True)
    if not wait:
        click.echo(as_json(job.snapshot) if json_ else str(job.id))
        return
    if not json_:
        click.echo(str(job.id))
    _wait(job, timeout, json_)


@click.command()
@click.argument("job", type=JobId(), metavar="[JOB]", required=False)
@click.option("--status", type=click.Choice(_JOB_STATES), help="Only jobs in this state.")
@click.option("--kind", help="Only jobs of this kind.")
@click.option("--key", "job_key", type=as_typed, metavar="TEXT", help="Only jobs with this job key.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many jobs.")
@json_option
def status(
    job: str | None, status: str | None, kind: str | None, job_key: str | None, limit: int, json_: bool
) -> None:
    """Show how far a job is, or list the newest jobs.

    \b
    Examples:
      supabase-chunks status
      supabase-chunks status 6f2c8d3e
      supabase-chunks status --kind email --key work
    """
    client = connect()
    if job is not None:
        _show(find_job(client, job).progress(), json_)
        return
    found = client.jobs(status=status, kind=kind, job_key=job_key, limit=limit)  # type: ignore[arg-type]  # one of them
    jobs = [each.snapshot for each in found if each.snapshot is not None]
    if json_:
        click.echo(as_json(jobs))
    elif jobs:
        echo(job_table(jobs, screen_width()))
    else:
        click.echo("There are no such jobs.", err=True)


@click.command()
@click.argument("job", type=JobId(), metavar="[JOB]", required=False)
@click.option("--timeout", type=Duration(), help="How long to wait at most, such as 10m.")
@json_option
def watch(job: str | None, timeout: timedelta | None, json_: bool) -> None:
    """Follow a job to its end; the newest one unless given.

    Shows a bar in a terminal, lines in a log, and with --json a line for each change. Exits with 0 when the
    job is completed, 1 when it failed or was cancelled, 3 when the time is over; the job goes on then.

    \b
    Examples:
      supabase-chunks watch
      supabase-chunks watch 6f2c8d3e --timeout 10m
    """
    client = connect()
    if job is not None:
        _wait(find_job(client, job), timeout, json_)
        return
    newest = client.jobs(limit=1)
    if not newest:
        raise Failure("There are no jobs yet.")
    click.echo(f"The newest job is {newest[0].id}.", err=True)
    _wait(newest[0], timeout, json_)


@click.command()
@job_argument
@click.option("--status", type=click.Choice(_CHUNK_STATES), help="Only those in this state.")
@click.option("--limit", type=click.IntRange(1), help="How many.")
@click.option("--timeline", is_flag=True, help="Show when each ran, and the attempts before its last.")
@json_option
def chunks(job: str, status: str | None, limit: int | None, timeline: bool, json_: bool) -> None:
    """List the chunks of a job.

    With --json everything about them, their results included.

    \b
    Examples:
      supabase-chunks chunks 6f2c8d3e --status failed
      supabase-chunks chunks 6f2c8d3e --timeline
    """
    from supabase_chunks.timeline import Timeline

    of_job = find_job(connect(), job)
    found = of_job.chunks(status=status, limit=limit)  # type: ignore[arg-type]  # one of them, as click has seen
    if json_:
        click.echo(as_json(found))
    elif not found:
        click.echo("There are no such chunks.", err=True)
    elif timeline:
        drawn = Timeline.of(found, of_job.attempts())
        click.echo(drawn.painted(paint_for(sys.stdout), screen_width()))
    else:
        rows = [
            (
                str(chunk.chunk_index),
                str(chunk.status),
                f"{chunk.attempts}/{chunk.max_retries + 1}",
                "" if chunk.items_processed is None else f"{chunk.items_processed:,}",
                "" if chunk.duration is None else f"{chunk.duration.total_seconds():.1f}",
                chunk.error or _task(chunk),
            )
            for chunk in found
        ]
        header = ("CHUNK", "STATUS", "TRIES", "ITEMS", "SECONDS", "PAYLOAD OR ERROR")
        echo(table(header, rows, room=screen_width(), status=1))


def _task(chunk: ChunkRecord) -> str:
    """Say what a chunk is to do, and where it goes on."""
    at = "" if chunk.checkpoint is None else f" at {as_json(chunk.checkpoint)}"
    return as_json(chunk.payload) + at


def _wait(job: Job, timeout: timedelta | None, json_: bool) -> None:
    seconds = None if timeout is None else timeout.total_seconds()
    if json_:
        job.wait(timeout=seconds, progress=lambda progress: click.echo(as_json(progress)))
    else:
        job.wait(timeout=seconds, progress=True)


def _show(progress: Progress, json_: bool) -> None:
    if json_:
        click.echo(as_json(progress))
    else:
        echo(progress_facts(progress))
