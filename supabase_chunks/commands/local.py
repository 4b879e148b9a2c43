"""`supabase-chunks local`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .failures import extra_needed
from .signals import Interrupted, interruptible

if TYPE_CHECKING:
    from supabase_chunks.local import LocalStack

# Not those of the official CLI's stack (54321, 54322): both may run side by side.
_PORT, _DB_PORT = 55321, 55322
_LOOK_SECONDS = 2.0


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default=".supabase-chunks",
    show_default=True,
    help="Where database, keys and logs stay.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_PORT,
    show_default=True,
    help="Where the project listens.",
)
@click.option(
    "--db-port",
    type=click.IntRange(0, 65535),
    default=_DB_PORT,
    show_default=True,
    help="Where PostgreSQL listens.",
)
@click.option(
    "--project",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The folder of a project to run (this one, if it has a folder supabase/).",
)
def local(data_dir: Path, port: int, db_port: int, project: Path | None) -> None:
    """Run a whole project on this machine, until Ctrl-C.

    PostgreSQL, PostgREST and the Edge Functions, without Docker. Runs the migrations, seeds and functions
    of the project's folder supabase/, or those of this package where there is none. Prints the
    environment that clients need. Keys, ports and data stay from run to run; a function that changes is
    started again. What this machine cannot do is noted; docs/local.md lists what stands in.

    \b
    Examples:
      supabase-chunks local
      supabase-chunks local --data-dir /tmp/scratch --port 0 --db-port 0
    """
    try:
        from supabase_chunks.local import LocalStack
        from supabase_chunks.local.cluster import require_entry
        from supabase_chunks.local.process import unprivileged_user
    except ImportError as error:
        raise extra_needed(error, "local") from error
    # Before anything is written.
    require_entry(data_dir.resolve().parent, unprivileged_user())
    folder = project if project is not None else _here()
    with interruptible():
        try:
            _private(data_dir)
            stack = LocalStack(
                data_dir,
                port=port,
                db_port=db_port,
                project=folder,
                watch=True,
                on_note=lambda text: _say(f"Note: {text}"),
            )
            _say("Starting PostgreSQL, PostgREST and the Edge Functions …")
            with stack:
                _describe(stack, folder)
                while True:
                    time.sleep(_LOOK_SECONDS)
                    stack.pids()  # raises when the supervisor is gone
        except Interrupted:
            _say("\nStopped; the data stays in the folder.")
            raise


def _here() -> Path | None:
    """The present folder, if it is a project's."""
    folder = Path("supabase")
    return Path() if any((folder / name).exists() for name in ("config.toml", "migrations")) else None


def _private(data_dir: Path) -> None:
    """Make the folder; what is in it is never meant for version control."""
    data_dir.mkdir(parents=True, exist_ok=True)
    ignore = data_dir / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")


def _describe(stack: LocalStack, folder: Path | None) -> None:
    source = "this package" if folder is None else str(folder / "supabase")
    functions = ", ".join(stack.functions) or "no function"
    _say(f"Running {functions} of {source}; logs are in {stack.logs}. Ctrl-C ends it.\n")
    for name, value in {
        "SUPABASE_URL": stack.url,
        "SUPABASE_SECRET_KEY": stack.secret_key,
        "SUPABASE_PUBLISHABLE_KEY": stack.publishable_key,
        "SUPABASE_DB_URL": stack.postgres_url,
    }.items():
        click.echo(assignment(name, value))


def assignment(name: str, value: str) -> str:
    """Return the line that sets an environment variable in the shell of this system."""
    return f"$env:{name} = '{value}'" if sys.platform == "win32" else f"export {name}='{value}'"


def _say(text: str) -> None:
    click.echo(text, err=True)
