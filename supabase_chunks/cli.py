"""The command line: `supabase-chunks`."""

from __future__ import annotations

import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import click

from ._hints import in_a_command
from .errors import ChunksError

# Where each command is; its module is imported when it is needed.
_COMMANDS = {
    "demo": "demo",
    "local": "local",
    "init": "project",
    "new": "project",
    "configure": "configure",
    "doctor": "doctor",
    "trigger": "jobs",
    "status": "jobs",
    "watch": "jobs",
    "chunks": "jobs",
    "retry": "steer",
    "cancel": "steer",
    "pause": "steer",
    "resume": "steer",
    "kinds": "kinds",
    "save-kind": "kinds",
    "remove-kind": "kinds",
    "limits": "limits",
    "save-limit": "limits",
    "block-limit": "limits",
    "state": "state",
    "email": "email",
    "worker": "work",
    "cleanup": "maintenance",
    "purge": "maintenance",
}


class Commands(click.Group):
    """The commands, loaded one by one. Turns the SDK's errors into a sentence and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click calls it
        """Return the names in the order of the help."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """Return a command, or None when there is none of that name."""
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        found = getattr(import_module(f"supabase_chunks.commands.{module}"), cmd_name.replace("-", "_"))
        return found if isinstance(found, click.Command) else None

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        from .commands.failures import INTERRUPTED, Failure

        try:
            with in_a_command():
                return super().invoke(ctx)
        except ChunksError as error:
            raise Failure.of(error) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from .assets import version

        click.echo(f"supabase-chunks {version()}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "-V",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Start, watch and steer long syncs on Supabase.

    Commands that talk to a project take its URL from SUPABASE_URL and its key from SUPABASE_SECRET_KEY (or
    SUPABASE_SERVICE_ROLE_KEY).

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 timeout, 130 interrupted, 141 nobody reads the output.
    """


def main() -> None:
    """Run the command line."""
    from ._show.characters import NEAREST
    from .commands.failures import FULL, OUTPUT_CLOSED
    from .commands.signals import Interrupted

    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets a replacement, not a traceback.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=NEAREST)
    output = sys.stdout
    try:
        cli(prog_name="supabase-chunks")
    except Interrupted as interrupted:
        sys.exit(interrupted.exit_code)
    except SystemExit:
        # Where a write meets a closed pipe, click puts a stand-in and ends with 1, which is "failed".
        if sys.stdout is not output:
            sys.exit(OUTPUT_CLOSED)
        raise
    except OSError as error:
        if error.errno not in FULL:
            raise
        # What still waits to be written would be tried again at the interpreter's end.
        sys.stdout = None
        sys.exit(f"Error: nothing more can be written: {error.strerror}.")


if __name__ == "__main__":
    main()
