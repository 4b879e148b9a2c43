"""`supabase-chunks configure`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from .arguments import json_option
from .failures import USAGE, Failure
from .output import as_json, echo, facts

if TYPE_CHECKING:
    from supabase_chunks.health import Health
    from supabase_chunks.install import Project

# How the database of the official CLI's Docker stack reaches its API; 127.0.0.1 is the database itself there.
_DOCKER_URL = "http://api.supabase.internal:8000"
_DOCKER_PORT = 54321


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
    from supabase_chunks._credentials import checked_url, environment
    from supabase_chunks._network import is_loopback

    if docker and project_url is not None:
        raise click.UsageError("--docker names the URL itself: leave out --project-url.")
    url, key = environment()
    target = checked_url(_DOCKER_URL if docker else project_url or url)
    client = ChunksClient(url, key)
    project = _project_here()
    if is_loopback(target) and _is_elsewhere(url, key, project):
        _refuse(target, named=project_url is not None)
    if project is not None and is_loopback(url):
        for warning in project.warnings():
            click.echo(f"! {warning}", err=True)
    health = client.configure(target, os.environ.get("CHUNK_PROCESSOR_KEY") or key)
    if json_:
        click.echo(as_json(health.model_dump(mode="json")))
        return
    echo(_summary(target, health))
    click.echo("Check the whole with: supabase-chunks doctor", err=True)


def _project_here() -> Project | None:
    """The project on the disk that the Supabase CLI would take, if there is one that can be read."""
    from supabase_chunks.errors import InstallError
    from supabase_chunks.install import Project

    workdir = os.environ.get("SUPABASE_WORKDIR")
    try:
        project = Project(Path(workdir)) if workdir else Project.around(Path.cwd())
        project.settings()
    except InstallError:
        return None
    return project


def _is_elsewhere(url: str, key: str, project: Project | None) -> bool:
    """Whether the database is on another machine than its caller, or in a container of its own."""
    from supabase_chunks import ChunksClient, Retry
    from supabase_chunks._network import is_this_machine
    from supabase_chunks.errors import TransportError

    try:
        with ChunksClient(url, key, retry=Retry(attempts=1)) as client:
            address = client.health().server_address
    except TransportError:
        # Not started yet; but it is known where `supabase start` has the API.
        ports = {_DOCKER_PORT} | ({project.api_port} if project else set())
        if urlsplit(url).port in ports:
            return True
        raise
    return address is not None and not is_this_machine(address)


def _refuse(url: str, *, named: bool) -> None:
    """Refuse a URL that leads the database to itself; only warn when it was meant so."""
    words = (
        f"{url} is this machine, and for its database, which is in a container or elsewhere, another one:"
        " webhooks would not arrive."
    )
    if named:
        click.echo(f"! {words}", err=True)
        return
    raise Failure(
        f"{words} For supabase start run supabase-chunks configure --docker; otherwise name the URL as the"
        " database reaches it with --project-url.",
        USAGE,
    )


def _summary(url: str, health: Health) -> list[str]:
    missing = "missing: create extension"
    return facts(
        [
            ("webhooks go to", url),
            ("pg_net", health.extensions.get("pg_net") or f"{missing} pg_net with schema extensions;"),
            ("pg_cron", health.extensions.get("pg_cron") or f"{missing} pg_cron with schema pg_catalog;"),
            ("watchdog", health.watchdog.schedule or "not scheduled"),
        ]
    )
