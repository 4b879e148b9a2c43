"""`supabase-chunks worker`."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from .arguments import Duration
from .failures import USAGE, Failure

if TYPE_CHECKING:
    from datetime import timedelta


@click.command()
@click.argument("handler", metavar="MODULE:FUNCTION")
@click.option(
    "--kind", "kinds", multiple=True, required=True, help="A kind whose chunks to run; may be repeated."
)
@click.option(
    "--payload", metavar="MODULE:TYPE", help="What to make of each payload, such as a pydantic model."
)
@click.option(
    "--concurrency", type=click.IntRange(1), default=4, show_default=True, help="How many chunks at once."
)
@click.option(
    "--prefetch", type=click.IntRange(0), default=0, show_default=True, help="How many to hold beyond those."
)
@click.option(
    "--lease",
    type=Duration(),
    help="How long a claim holds without a heartbeat (45s, or as a kind with less says).",
)
@click.option(
    "--grace",
    type=Duration(),
    default="30s",
    show_default=True,
    help="How long running chunks get at the end.",
)
@click.option(
    "--until-idle", is_flag=True, help="End when the running jobs of these kinds have nothing pending."
)
def worker(
    handler: str,
    kinds: tuple[str, ...],
    payload: str | None,
    concurrency: int,
    prefetch: int,
    lease: timedelta | None,
    grace: timedelta,
    until_idle: bool,
) -> None:
    """Run chunks in Python.

    FUNCTION gets each chunk, and what it returns is the chunk's result. A chunk whose payload does not fit
    TYPE has failed. SIGTERM and Ctrl-C end it gracefully: what runs is finished, the rest is given back.

    \b
    Example (tasks.py: def handler(chunk): return {"page": chunk.payload["n"]}):
      supabase-chunks worker tasks:handler --kind custom
    """
    from supabase_chunks import ChunksClient, Worker

    function = _named(handler, "a function: write MODULE:FUNCTION, as in tasks:handler")
    if not callable(function):
        raise Failure(f"{handler} is no function.", USAGE)
    model = None if payload is None else _named(payload, "a type: write MODULE:TYPE, as in tasks:Page")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    running = Worker(
        ChunksClient.from_env(),
        function,
        kinds=list(kinds),
        payload=model,
        concurrency=concurrency,
        prefetch=prefetch,
        lease_seconds=None if lease is None else max(1, round(lease.total_seconds())),
        grace=grace.total_seconds(),
    )
    _ = running.run_until_idle() if until_idle else running.run()
    click.echo(f"{running.summary()}.", err=True)


def _named(name: str, what: str) -> Any:
    """Return what stands under a name in a module."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise Failure(f"{name!r} does not name {what}.", USAGE)
    # As `python -m` does: what lies in the present folder can be imported.
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise Failure(f"There is no module {module!r} here ({os.getcwd()}).", USAGE) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise Failure(f"The module {module!r} has no {attribute!r}.", USAGE)
        found = getattr(found, part)
    return found
