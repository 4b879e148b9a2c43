"""`supabase-chunks init`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .arguments import json_option
from .output import as_json

if TYPE_CHECKING:
    from supabase_chunks.install import Plan

_NEXT = """\
Next:
  supabase db push                  # with CLI 3: supabase db push --remote
  supabase functions deploy
  supabase-chunks configure         # with SUPABASE_URL and SUPABASE_SECRET_KEY set
  supabase-chunks doctor"""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="[DIR]", default=".")
@click.option("--no-email", is_flag=True, help="Leave out the email sync.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@json_option
def init(folder: Path, no_email: bool, dry_run: bool, json_: bool) -> None:
    r"""Install migrations and functions into a Supabase project.

    Copies them into DIR/supabase, with timestamps after the project's own, and adds the functions' blocks
    to config.toml. Run again it changes nothing; after an upgrade it adds what is new, and leaves alone what
    you changed.

    \b
    Example:
      supabase-chunks init ~/my-project --dry-run
    """
    from supabase_chunks import assets
    from supabase_chunks.install import Plan, Project

    plan = Plan.for_project(Project(folder), email=not no_email, version=assets.version())
    if not dry_run:
        plan.apply()
    if json_:
        words = {"added": plan.added, "updated": plan.updated, "kept": plan.kept, "warnings": plan.warnings}
        click.echo(as_json({**words, "dry_run": dry_run}))
        return
    _report(plan, dry_run)


def _report(plan: Plan, dry_run: bool) -> None:
    for sign, names in (("+", plan.added), ("~", plan.updated), ("=", plan.kept)):
        for name in names:
            click.echo(f"{sign} {name}{'  (kept: you changed it)' if sign == '=' else ''}")
    for warning in plan.warnings:
        click.echo(f"! {warning}", err=True)
    if dry_run:
        click.echo("Nothing was changed (--dry-run).", err=True)
    elif plan.empty:
        click.echo("Everything is there already; nothing was changed.", err=True)
    else:
        click.echo(_NEXT, err=True)
