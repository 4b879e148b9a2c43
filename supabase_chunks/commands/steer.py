"""The commands that steer jobs: cancel, pause, resume, retry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .arguments import JobId, json_option
from .found import connect, find_job
from .output import as_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from supabase_chunks import Job, Progress


def _steering(name: str, words: str, act: Callable[[Job], Progress]) -> click.Command:
    """Make a command that steers one or more jobs."""

    @click.command(name, help=f"{words}\n\n\b\nExample:\n  supabase-chunks {name} 6f2c8d3e")
    @click.argument("jobs", type=JobId(), metavar="JOB...", nargs=-1, required=True)
    @json_option
    def command(jobs: tuple[str, ...], json_: bool) -> None:
        _steer(jobs, act, json_)

    return command


def _steer(jobs: tuple[str, ...], act: Callable[[Job], Progress], json_: bool) -> None:
    from supabase_chunks._show.words import describe

    client = connect()
    # All are found before the first is touched.
    for job in [find_job(client, given) for given in jobs]:
        progress = act(job)
        click.echo(as_json(progress) if json_ else f"{job.id}: {describe(progress)}")


@click.command()
@click.argument("jobs", type=JobId(), metavar="JOB...", nargs=-1, required=True)
@click.option("--from-start", is_flag=True, help="Begin the chunks anew, not at their checkpoints.")
@json_option
def retry(jobs: tuple[str, ...], from_start: bool, json_: bool) -> None:
    """Open the failed chunks of a job again.

    The others keep their state.

    \b
    Example:
      supabase-chunks retry 6f2c8d3e
    """
    _steer(jobs, lambda job: job.retry_failed(from_start=from_start), json_)


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
