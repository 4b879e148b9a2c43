"""The commands for a Supabase project on the disk: install, and add a kind."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .arguments import json_option
from .output import as_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from supabase_chunks.install import Plan, Project

# The functions are bundled on Supabase's side: without --use-api the CLI wants Docker.
_NEXT = """\
  supabase db push                      # with version 3 of the CLI: supabase db push --remote
  supabase functions deploy --use-api
  supabase-chunks configure             # with SUPABASE_URL and SUPABASE_SECRET_KEY set
  supabase-chunks doctor"""


def _project_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the two ways to name a project."""
    folder = click.argument("folder", type=click.Path(path_type=Path), metavar="[DIR]", required=False)
    workdir = click.option(
        "--workdir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="The project's folder, as the Supabase CLI takes it (SUPABASE_WORKDIR).",
    )
    return folder(workdir(function))


@click.command()
@_project_arguments
@click.option("--no-email", is_flag=True, help="Leave out the email sync.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@json_option
def init(folder: Path | None, workdir: Path | None, no_email: bool, dry_run: bool, json_: bool) -> None:
    """Install migrations and functions into a Supabase project.

    The project is there already: `supabase init` makes one. It is the folder DIR, or the one that the present
    folder lies in. Migrations are copied with timestamps after the project's own, and the functions' blocks
    added to config.toml, which is kept as it was beside it. Run again it changes nothing; after an upgrade it
    adds what is new, and leaves alone what you changed.

    \b
    Example:
      supabase-chunks init ~/my-project --dry-run
    """
    from supabase_chunks import assets
    from supabase_chunks.install import Plan

    plan = Plan.for_project(_project(folder, workdir), email=not no_email, version=assets.version())
    if not dry_run:
        plan.apply()
    if json_:
        words = {"added": plan.added, "updated": plan.updated, "kept": plan.kept, "warnings": plan.warnings}
        click.echo(as_json({**words, "backup": plan.backup, "dry_run": dry_run}))
        return
    _report(plan, dry_run)


@click.command()
@click.argument("name")
@_project_arguments
@click.option(
    "--max-concurrency",
    type=click.IntRange(1, 1000),
    default=4,
    show_default=True,
    help="How many chunks of one job may be worked on at once.",
)
@json_option
def new(name: str, folder: Path | None, workdir: Path | None, max_concurrency: int, json_: bool) -> None:
    """Add a kind of sync of your own to a project.

    Writes its handler (an Edge Function to fill in), its block of config.toml, and the migration that
    registers it.

    \b
    Example:
      supabase-chunks new sync-orders ~/my-project
    """
    from supabase_chunks.install import new_kind

    plan = new_kind(_project(folder, workdir), name, max_concurrency=max_concurrency)
    plan.apply()
    if json_:
        click.echo(as_json({"added": plan.added, "warnings": plan.warnings}))
        return
    for added in plan.added:
        click.echo(f"+ {added}")
    _warn(plan)
    click.echo(
        f"Next, after writing functions/{name}/index.ts:\n{_enter(plan)}"
        "  supabase db push                      # with version 3 of the CLI: supabase db push --remote\n"
        f"  supabase functions deploy {name} --use-api\n"
        f"  supabase-chunks trigger {name} --chunks FILE",
        err=True,
    )


def _report(plan: Plan, dry_run: bool) -> None:
    for sign, names in (("+", plan.added), ("~", plan.updated), ("=", plan.kept)):
        for name in names:
            click.echo(f"{sign} {name}{'  (kept: you changed it)' if sign == '=' else ''}")
    if plan.backup:
        click.echo(f"+ {plan.backup}  (config.toml as it was; delete it when you like)")
    _warn(plan)
    if dry_run:
        click.echo("Nothing was changed (--dry-run).", err=True)
    elif plan.empty:
        click.echo("Everything is there already; nothing was changed.", err=True)
    else:
        click.echo(f"Next:\n{_enter(plan)}{_NEXT}", err=True)


def _warn(plan: Plan) -> None:
    for warning in plan.warnings:
        click.echo(f"! {warning}", err=True)


def _project(folder: Path | None, workdir: Path | None) -> Project:
    """Find the project as the Supabase CLI does: the folder that is named, or the one around this one."""
    from supabase_chunks.install import Project

    if folder is not None and workdir is not None:
        raise click.UsageError("DIR and --workdir both name the project: leave one out.")
    named = folder or workdir or Path(os.environ.get("SUPABASE_WORKDIR") or ".")
    return Project.around(named) if named.resolve() == Path.cwd() else Project(named)


def _enter(plan: Plan) -> str:
    """The line that goes to the project's folder, where its own commands must be run."""
    folder = plan.project.root.parent
    if folder.resolve() == Path.cwd():
        return ""
    name = str(folder)
    return f"  cd {subprocess.list2cmdline([name]) if sys.platform == 'win32' else shlex.quote(name)}\n"
