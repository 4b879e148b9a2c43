"""Syncing a mailbox in a test: accounts, jobs, and the rows they leave."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from tests.e2e.mail import HOST, MailServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supabase_chunks import ChunksClient
    from supabase_chunks.local import LocalStack


def letter(number: int) -> bytes:
    """A small message."""
    return (
        f"From: Ann <ann{number}@example.com>\nTo: bob@example.com\n"
        f"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= {number}\nMessage-ID: <{number}@example.com>\n"
        f"Date: Mon, 2 Nov 2026 10:{number % 60:02}:00 +0100\n\nHello {number}\n"
    ).encode()


@contextmanager
def saved(client: ChunksClient, name: str, server: MailServer, **over: Any) -> Iterator[None]:
    """The account of a server, for as long as the block."""
    login: dict[str, Any] = {
        "host": HOST,
        "port": server.port,
        "tls": "starttls",
        "username": server.username,
        "password": server.password,
    }
    client.email.save_account(name, **(login | over))
    yield
    client.email.remove_account(name, owner_id=over.get("owner_id"))


def sync(client: ChunksClient, account: str, **payload: Any) -> Any:
    """Run a sync to its end, and return the job."""
    job = client.trigger_sync("email", payload={"account": account, **payload})
    job.wait(timeout=60, raise_on_failure=False)
    return job


def finish(client: ChunksClient, job: Any) -> None:
    """Wait for a job whose retries nobody sends for but the watchdog's passes."""
    deadline = time.monotonic() + 30
    while job.progress().status != "completed":
        client.cleanup_stuck_chunks()
        assert time.monotonic() < deadline


def stored(stack: LocalStack, account: str) -> list[dict[str, Any]]:
    """The account's rows."""
    with psycopg.connect(stack.db_url, row_factory=dict_row) as connection:
        return connection.execute(
            """select e.* from public.synced_emails e join public.email_accounts a on a.id = e.account_id
               where a.name = %s order by folder, uidvalidity, uid""",
            [account],
        ).fetchall()
