"""`supabase-chunks demo`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .failures import Failure, extra_needed
from .signals import Interrupted, interruptible

if TYPE_CHECKING:
    from supabase_chunks.demo.imap import Address


@click.command()
@click.option(
    "--messages",
    type=click.IntRange(1, 100_000),
    help="How many messages (500); with --mbox the first so many.",
)
@click.option(
    "--mbox",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take the messages from an mbox file of yours.",
)
@click.option(
    "--imap",
    metavar="URL",
    help="Sync a mailbox of yours: imaps://user@host/FOLDER. The password comes from IMAP_PASSWORD, or is"
    " asked for.",
)
@click.option("--again", is_flag=True, help="Sync a second time, which finds nothing to add.")
@click.option("--keep", is_flag=True, help="Keep the database at the end.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Where the project listens (a free port)."
)
def demo(
    messages: int | None, mbox: Path | None, imap: str | None, again: bool, keep: bool, port: int
) -> None:
    """Sync a real mailbox through the queue, on this machine.

    Starts PostgreSQL, PostgREST, the Edge Functions and an IMAP server with made-up messages, syncs them, and
    compares what is in the table with what is in the mailbox. Nothing is left behind.

    \b
    Examples:
      supabase-chunks demo --messages 5000
      supabase-chunks demo --mbox ~/archive.mbox
      supabase-chunks demo --imap imaps://ada%40example.com@imap.example.com/INBOX
    """
    if imap is not None and (mbox is not None or messages is not None):
        raise click.UsageError("--imap syncs the mailbox as it is: leave out --mbox and --messages.")
    # Imported only now: the other commands do without the extras.
    try:
        from supabase_chunks.demo import Demo
    except ImportError as error:
        raise extra_needed(error, "local,demo") from error
    count = messages if messages is not None or mbox is not None else 500
    address = None if imap is None else _address(imap)
    with interruptible():
        try:
            report = Demo(count, mbox, address, keep=keep, again=again, port=port).run(click.echo)
        except Interrupted:
            click.echo("\nStopped; nothing is left running.", err=True)
            raise
    if not report.complete:
        raise Failure("The mailbox and the table differ. If no mail came or went just now, please report it.")
    click.echo("Every message arrived.")


def _address(url: str) -> Address:
    from supabase_chunks.demo import with_password
    from supabase_chunks.demo.imap import Address

    address = Address.parse(url)
    password = os.environ.get("IMAP_PASSWORD")
    if password is None:
        try:
            password = click.prompt(f"Password of {address.username}", hide_input=True, err=True)
        except click.Abort:
            raise Failure("A password is needed: put it into IMAP_PASSWORD, or type it when asked.") from None
    return with_password(address, password)
