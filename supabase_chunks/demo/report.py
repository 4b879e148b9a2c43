"""What the database says about the demo's sync, beside what the mail server says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from uuid import UUID

    from supabase_chunks.demo.imap import Address


@dataclass(frozen=True)
class Report:
    """The figures of one sync.

    Attributes:
        in_mailbox: Messages in the folder, counted by the IMAP server.
        in_table: Rows of that folder in `synced_emails`, counted by PostgreSQL.
        chunks: The chunks of the job.
        attempts: How often a chunk was begun, over all chunks.
        seconds: From the start of the sync to its end, as the person in front of it waited.
    """

    in_mailbox: int
    in_table: int
    chunks: int
    attempts: int
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every message is in the table, and nothing else."""
        return self.in_mailbox == self.in_table

    def lines(self) -> list[str]:
        """The table that the demo ends with."""
        rate = self.in_table / self.seconds if self.seconds else 0.0
        rows = [
            ("messages in the mailbox (IMAP)", f"{self.in_mailbox:,}"),
            ("rows in synced_emails (SQL)", f"{self.in_table:,}"),
            ("chunks", f"{self.chunks:,}"),
            ("attempts", f"{self.attempts:,}"),
            ("seconds", f"{self.seconds:.1f}"),
            ("messages a second", f"{rate:,.0f}"),
        ]
        return [f"  {name:<32}{value:>10}" for name, value in rows]


@dataclass(frozen=True)
class Counts:
    """What the database holds of a sync."""

    messages: int
    chunks: int
    attempts: int


def count_rows(
    db_url: str, *, job_id: UUID, account: str, address: Address, uid_validity: int, below: int
) -> Counts:
    """Count in the database itself, past every API: rows of the folder, chunks and attempts of the job.

    Args:
        db_url: The database.
        job_id: The sync job.
        account: The account's name.
        address: The folder.
        uid_validity: The generation of the folder's UIDs.
        below: Only messages with a UID below this one.
    """
    with psycopg.connect(db_url) as connection:
        messages = connection.execute(
            """
            select count(*)
            from public.synced_emails e join public.email_accounts a on a.id = e.account_id
            where a.name = %s and a.owner_id is null and e.folder = %s and e.uidvalidity = %s
              and e.uid < %s and e.deleted_at is null
            """,
            (account, address.folder, uid_validity, below),
        ).fetchone()
        chunks = connection.execute(
            "select count(*), coalesce(sum(attempts), 0) from public.chunk_processing_queue"
            " where parent_sync_job_id = %s",
            (job_id,),
        ).fetchone()
    assert messages is not None  # noqa: S101 - an aggregate has a row
    assert chunks is not None  # noqa: S101 - as above
    return Counts(messages[0], chunks[0], int(chunks[1]))
