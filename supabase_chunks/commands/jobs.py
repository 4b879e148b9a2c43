"""The commands for jobs: start, look, wait, steer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .arguments import Duration, JsonObject, as_typed, job_argument, json_lines, json_option
from .output import age, as_json, echo, progress_facts, screen_width, table

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from uuid import UUID

    from supabase_chunks import ChunkRecord, Job, Progress


# Written out: the models are imported when a command runs, and not for its help.
_JOB_STATES = ("pending", "running", "paused", "completed", "failed", "cancelled")
_CHUNK_STATES = ("pending", "processing", "completed", "failed", "cancelled")


def _client() -> Any:
    from supabase_chunks import ChunksClient

    return ChunksClient.from_env()


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
    client = _client()
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
@click.argument("job_id", type=click.UUID, metavar="[JOB]", required=False)
@click.option("--status", type=click.Choice(_JOB_STATES), help="Only jobs in this state.")
@click.option("--kind", help="Only jobs of this kind.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many jobs.")
@json_option
def status(job_id: UUID | None, status: str | None, kind: str | None, limit: int, json_: bool) -> None:
    """Show how far a job is, or list the newest jobs.

    \b
    Examples:
      supabase-chunks status
      supabase-chunks status 6f2c8d3e-0000-4000-8000-000000000000 --json
    """
    client = _client()
    if job_id is not None:
        _show(client.job(job_id).progress(), json_)
        return
    jobs = [job.snapshot for job in client.jobs(status=status, kind=kind, limit=limit)]
    if json_:
        click.echo(as_json(jobs))
    elif jobs:
        header = ("JOB", "KIND", "STATUS", "CHUNKS", "DONE", "AGE")
        echo(table(header, [_row(job) for job in jobs], elastic=1, room=screen_width()))
    else:
        click.echo("There are no such jobs.", err=True)


@click.command()
@job_argument
@click.option("--timeout", type=Duration(), help="How long to wait at most, such as 10m.")
@json_option
def watch(job_id: UUID, timeout: timedelta | None, json_: bool) -> None:
    """Follow a job to its end.

    Shows a bar in a terminal, lines in a log, and with --json a line for each change. Exits with 0 when the
    job is completed, 1 when it failed or was cancelled, 3 when the time is over; the job goes on then.

    \b
    Example:
      supabase-chunks watch 6f2c8d3e-0000-4000-8000-000000000000 --timeout 10m
    """
    _wait(_client().job(job_id), timeout, json_)


@click.command()
@job_argument
@click.option("--status", type=click.Choice(_CHUNK_STATES), help="Only those in this state.")
@click.option("--limit", type=click.IntRange(1), help="How many.")
@click.option("--timeline", is_flag=True, help="Show when each ran.")
@json_option
def chunks(job_id: UUID, status: str | None, limit: int | None, timeline: bool, json_: bool) -> None:
    """List the chunks of a job.

    With --json everything about them, their results included.

    \b
    Example:
      supabase-chunks chunks 6f2c8d3e-0000-4000-8000-000000000000 --status failed
    """
    from supabase_chunks.timeline import Timeline

    job = _client().job(job_id)
    found = job.chunks(status=status, limit=limit)
    if not found:
        job.progress()  # fails when there is no such job
    if json_:
        click.echo(as_json(found))
    elif not found:
        click.echo("There are no such chunks.", err=True)
    elif timeline:
        click.echo(str(Timeline.of(found)))
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
        echo(table(header, rows, room=screen_width()))


def _task(chunk: ChunkRecord) -> str:
    """Say what a chunk is to do, and where it goes on."""
    at = "" if chunk.checkpoint is None else f" at {as_json(chunk.checkpoint)}"
    return as_json(chunk.payload) + at


def _steering(name: str, words: str, act: Callable[[Job], Progress]) -> click.Command:
    """Make a command that steers one or more jobs."""

    @click.command(
        name, help=f"{words}\n\n\b\nExample:\n  supabase-chunks {name} 6f2c8d3e-0000-4000-8000-000000000000"
    )
    @click.argument("job_ids", type=click.UUID, metavar="JOB...", nargs=-1, required=True)
    @json_option
    def command(job_ids: tuple[UUID, ...], json_: bool) -> None:
        _steer(job_ids, act, json_)

    return command


def _steer(job_ids: tuple[UUID, ...], act: Callable[[Job], Progress], json_: bool) -> None:
    from supabase_chunks._show.words import describe

    client = _client()
    for job_id in job_ids:
        progress = act(client.job(job_id))
        click.echo(as_json(progress) if json_ else f"{job_id}: {describe(progress)}")


@click.command()
@click.argument("job_ids", type=click.UUID, metavar="JOB...", nargs=-1, required=True)
@click.option("--from-start", is_flag=True, help="Begin the chunks anew, not at their checkpoints.")
@json_option
def retry(job_ids: tuple[UUID, ...], from_start: bool, json_: bool) -> None:
    """Open the failed chunks of a job again.

    The others keep their state.

    \b
    Example:
      supabase-chunks retry 6f2c8d3e-0000-4000-8000-000000000000
    """
    _steer(job_ids, lambda job: job.retry_failed(from_start=from_start), json_)


cancel: click.Command = _steering(
    "cancel",
    "Cancel a job.\n\nChunks that are pending or being worked on end; what is completed stays.",
    lambda job: job.cancel(),
)
pause: click.Command = _steering(
    "pause",
    "Pause a job.\n\nNo more of its chunks are begun; those that are being worked on finish.",
    lambda job: job.pause(),
)
resume: click.Command = _steering("resume", "Go on with a paused job.", lambda job: job.resume())


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


def _row(progress: Progress) -> tuple[str, ...]:
    return (
        str(progress.id),
        progress.kind,
        "stalled" if progress.stalled else str(progress.status),
        f"{progress.ended_chunks:,}/{progress.total_chunks:,}",
        f"{progress.percent_complete:.0f}%",
        age(progress.created_at),
    )
