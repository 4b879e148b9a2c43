"""The demo: a real mailbox, synced through the queue on this machine. Needs the extras `local` and `demo`.

It starts a whole project (PostgreSQL, PostgREST, the Edge Functions), fills the mailbox of a real IMAP server
or takes yours, syncs it, and compares what PostgreSQL has with what the mail server has.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from supabase_chunks.client import ChunksClient
from supabase_chunks.demo.filling import shown
from supabase_chunks.demo.imap import Address, Mailbox
from supabase_chunks.demo.messages import from_mbox, made_up
from supabase_chunks.demo.report import Report, count_rows
from supabase_chunks.demo.server import MailServer, require_installed
from supabase_chunks.errors import DemoError
from supabase_chunks.local import LocalStack

if TYPE_CHECKING:
    from collections.abc import Callable

    from supabase_chunks.progress import ProgressOption

__all__ = ["Demo", "DemoError", "Report"]

_ACCOUNT = "demo"
# Whoever kills a part to see what happens need not wait ten minutes for the watchdog to take its chunks back.
_LEASE_SECONDS = 15
# So many take a while to make up, and a person should know what for.
_MANY = 1000


@dataclass(frozen=True)
class Demo:
    """What the demo is asked for.

    Attributes:
        messages: How many messages to make up; of an mbox file the first so many, None for all.
        mbox: A file with the messages, instead of made-up ones.
        address: A mailbox to sync, instead of one that is filled for the demo.
        keep: Whether the database stays on the disk at the end.
        again: Whether to sync a second time, which finds nothing to add.
        port: Where the project listens; 0 takes a free port.
    """

    messages: int | None = 500
    mbox: Path | None = None
    address: Address | None = None
    keep: bool = False
    again: bool = False
    port: int = 0

    def run(self, say: Callable[[str], None], *, progress: ProgressOption = True) -> Report:
        """Do it all; nothing is left running afterwards, however it ends.

        Args:
            say: Called with each line that a person should read.
            progress: As for `Job.wait`.

        Returns:
            The figures of the (first) sync.

        Raises:
            DemoError: The mailbox cannot be used.
            LocalStackError: The project cannot be started.
            JobFailed: Chunks failed for good.
        """
        given = None if self.mbox is None else from_mbox(self.mbox)[: self.messages]
        if self.address is not None:
            # Before anything is started: a wrong password should take no time.
            _open(self.address).close()
        else:
            require_installed()
        began = time.monotonic()
        say("Starting PostgreSQL, PostgREST and the Edge Functions …")
        with ExitStack() as running:
            folder = self._folder()
            running.push(_removal(folder))
            stack = running.enter_context(LocalStack(folder, keep=self.keep, port=self.port, on_note=say))
            address = self.address
            if address is None:
                address = running.enter_context(MailServer(stack.logs)).address
                count = (self.messages or 500) if given is None else len(given)
                if count > _MANY:
                    say(f"Filling a mailbox with {count:,} messages …")
                messages = made_up(count) if given is None else given
                with Mailbox(address) as mailbox:
                    filled = mailbox.fill(shown(messages, count, say))
                source = f"{filled:,} messages are on a real IMAP server"
            else:
                source = f"the mailbox is {address.folder} on {address}"
            say(f"Ready after {time.monotonic() - began:.1f} s; {source}.")
            report = self._sync(stack, address, progress)
            for line in report.lines():
                say(line)
            if self.again:
                second = self._sync(stack, address, progress)
                added = second.in_table - report.in_table
                say(f"The same sync again: {added} messages added, {second.chunks} chunk (the planning one).")
            if self.keep:
                say(f"The database is kept. Start it again: supabase-chunks local --data-dir {folder}")
            return report

    def _folder(self) -> Path | None:
        # Not among the stack's own temporary folders, which the next stack sweeps.
        return Path(tempfile.mkdtemp(prefix="chunks-demo-")) if self.keep else None

    def _sync(self, stack: LocalStack, address: Address, progress: ProgressOption) -> Report:
        with _open(address) as mailbox, ChunksClient(stack.url, stack.secret_key) as client:
            below, uid_validity = mailbox.next_uid(), mailbox.uid_validity()
            client.save_kind("email", lease_seconds=_LEASE_SECONDS)
            began = time.monotonic()
            client.email.save_account(
                _ACCOUNT,
                host=address.host,
                port=address.port,
                tls=address.tls,
                username=address.username,
                password=address.password,
            )
            payload = {"account": _ACCOUNT, "folder": address.folder}
            job = client.trigger_sync("email", payload=payload, job_key=f"{_ACCOUNT}/{address.folder}")
            job.wait(progress=progress)
            seconds = time.monotonic() - began
            counts = count_rows(
                stack.db_url,
                job_id=job.id,
                account=_ACCOUNT,
                address=address,
                uid_validity=uid_validity,
                below=below,
            )
            return Report(
                mailbox.count(below=below), counts.messages, counts.chunks, counts.attempts, seconds
            )


def _removal(folder: Path | None) -> Callable[..., None]:
    """What removes the folder when the demo ends by an error: nobody was told where it is."""

    def remove(kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    return remove


def _open(address: Address) -> Mailbox:
    mailbox = Mailbox(address)
    try:
        mailbox.select()
    except BaseException:
        mailbox.close()
        raise
    return mailbox


def with_password(address: Address, password: str) -> Address:
    """The address with the password that belongs to it."""
    return replace(address, password=password)
