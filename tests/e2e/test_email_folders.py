"""Folders and what changes in them, with a real server that keeps marks of changes (CONDSTORE, QRESYNC)."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from supabase_chunks import ChunksClient
from supabase_chunks.local import LocalStack
from tests.e2e.mail import DOVECOT, MailServer, dovecot
from tests.e2e.syncing import letter, saved, stored, sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(DOVECOT is None, reason="Debian's dovecot-imapd is not installed")


@pytest.fixture(scope="module")
def stack(mail_stack: LocalStack) -> LocalStack:
    """The stack whose functions trust the mail servers."""
    return mail_stack


@pytest.fixture(scope="module")
def client(mail_client: ChunksClient) -> ChunksClient:
    """The SDK on it."""
    return mail_client


@pytest.fixture
def server(pem: tuple[Path, Path]) -> Iterator[MailServer]:
    """A fresh Dovecot."""
    with dovecot(*pem) as running:
        yield running


def alive(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Folder and subject of the messages that are there."""
    return [(row["folder"], row["subject"]) for row in rows if row["deleted_at"] is None]


def test_flags_and_deletions_come_without_a_full_sync(
    stack: LocalStack, client: ChunksClient, server: MailServer, account: str
) -> None:
    server.deliver(letter(n) for n in range(6))
    with saved(client, account, server):
        sync(client, account)
        quiet = sync(client, account)
        assert [chunk.result["to_fetch"] for chunk in quiet.chunks()] == [0]
        with server.session() as imap:
            imap.select("INBOX")
            imap.store("1", "+FLAGS", r"(\Flagged)")
            imap.store("3", "+FLAGS", r"(\Deleted)")
            imap.expunge()
        server.deliver([letter(7)])
        plan, fetched = sync(client, account).chunks()
        assert {key: plan.result[key] for key in ("in_folder", "to_fetch", "deleted", "flags_changed")} == {
            "in_folder": 6,
            "to_fetch": 1,
            "deleted": 1,
            "flags_changed": 1,
        }
        assert fetched.result["fetched"] == 1
        rows = stored(stack, account)
    assert [row["deleted_at"] is not None for row in rows] == [False, False, True, False, False, False, False]
    assert [r"\Flagged" in row["flags"] for row in rows] == [True] + [False] * 6
    assert all(r"\Recent" not in row["flags"] for row in rows)


def test_rows_that_are_missing_are_found_though_the_server_names_no_change(
    stack: LocalStack, client: ChunksClient, server: MailServer, account: str
) -> None:
    server.deliver(letter(n) for n in range(6))
    with saved(client, account, server):
        sync(client, account)
        with psycopg.connect(stack.db_url) as connection:
            connection.execute("delete from public.synced_emails where subject in ('Grüße 1', 'Grüße 4')")
        assert sync(client, account).progress().items_total == 2
        assert len(stored(stack, account)) == 6


@contextmanager
def moved_after_a_sync(
    stack: LocalStack, client: ChunksClient, server: MailServer, account: str
) -> Iterator[dict[str, int]]:
    """Five messages in two folders are synced, then two of them moved; yields the ids of their rows."""
    server.deliver(letter(n) for n in range(4))
    server.deliver([letter(9)], folder="Archive")
    with saved(client, account, server):
        sync(client, account, folders="all")
        ids = {row["subject"]: row["id"] for row in stored(stack, account)}
        with server.session() as imap:
            imap.select("INBOX")
            imap.uid("MOVE", "2:3", "Archive")
        yield ids


def test_a_message_that_moved_is_not_fetched_again(
    stack: LocalStack, client: ChunksClient, server: MailServer, account: str
) -> None:
    with moved_after_a_sync(stack, client, server, account) as ids:
        sync(client, account, folder="INBOX")
        job = sync(client, account, folder="Archive")
        assert [chunk.result["moved"] for chunk in job.chunks() if "from" in chunk.result] == [2]
        rows = stored(stack, account)
    assert {row["subject"]: row["id"] for row in rows} == ids
    assert sorted(alive(rows)) == MOVED


MOVED = [
    ("Archive", "Grüße 1"),
    ("Archive", "Grüße 2"),
    ("Archive", "Grüße 9"),
    ("INBOX", "Grüße 0"),
    ("INBOX", "Grüße 3"),
]


@pytest.mark.parametrize(
    "syncs", [[{"folder": "Archive"}, {"folder": "INBOX"}], [{"folders": "all"}]], ids=["after", "beside"]
)
def test_a_message_that_moved_keeps_its_row_whichever_folder_is_looked_at_first(
    stack: LocalStack, client: ChunksClient, server: MailServer, account: str, syncs: list[dict[str, Any]]
) -> None:
    with moved_after_a_sync(stack, client, server, account) as ids:
        for payload in syncs:
            sync(client, account, **payload)
        rows = stored(stack, account)
        assert {row["subject"]: row["id"] for row in rows} == ids
        assert sorted(alive(rows)) == MOVED
        again = sync(client, account, folders="all")
        assert [again.progress().items_total, stored(stack, account)] == [0, rows]


def test_a_folder_that_is_numbered_anew_keeps_its_rows_and_fetches_only_the_rest(
    stack: LocalStack, client: ChunksClient, server: MailServer, account: str
) -> None:
    server.deliver((letter(n) for n in range(5)), folder="Work")
    with saved(client, account, server):
        sync(client, account, folder="Work")
        before = {row["subject"]: row for row in stored(stack, account)}
        # The folder is made again, and gets its messages back but one, under other numbers.
        with server.session() as imap:
            imap.rename("Work", "Elsewhere")
            imap.create("Work")
        server.deliver([letter(9)], folder="Work")
        with server.session() as imap:
            imap.select("Elsewhere")
            for uids in ("4:5", "1:2"):
                imap.uid("MOVE", uids, "Work")
            imap.delete("Elsewhere")
        job = sync(client, account, folder="Work")
        assert job.progress().status == "completed"
        assert sum(chunk.result.get("fetched", 0) for chunk in job.chunks()) == 1
        rows = {row["subject"]: row for row in stored(stack, account)}
    assert len({row["uidvalidity"] for row in rows.values() if row["deleted_at"] is None}) == 1
    assert [rows[f"Grüße {n}"]["uid"] for n in (9, 3, 4, 0, 1)] == [1, 2, 3, 4, 5]
    assert {name: rows[name]["id"] for name in before} == {name: row["id"] for name, row in before.items()}
    assert [name for name, row in rows.items() if row["deleted_at"] is not None] == ["Grüße 2"]
    assert before["Grüße 0"]["uidvalidity"] != rows["Grüße 0"]["uidvalidity"]


def test_folders_below_a_prefix_are_one_however_they_are_spelled(
    stack: LocalStack, client: ChunksClient, pem: tuple[Path, Path], account: str
) -> None:
    below = "namespace inbox {\n  inbox = yes\n  prefix = INBOX.\n  separator = .\n}"
    with dovecot(*pem, settings=below) as server, saved(client, account, server):
        server.deliver([letter(1)])
        server.deliver([letter(2)], folder="INBOX.Sent")
        sync(client, account, folder="Sent")
        sync(client, account, folders=["INBOX.Sent", "Sent", "inbox"])
        sync(client, account, folders="all")
        assert alive(stored(stack, account)) == [("INBOX", "Grüße 1"), ("INBOX.Sent", "Grüße 2")]
        assert len(stored(stack, account)) == 2
        assert [folder.folder for folder in client.email.folders(account)] == ["INBOX", "INBOX.Sent"]


def test_all_folders_are_synced_but_those_excluded_and_one_that_is_gone_is_marked(
    stack: LocalStack, client: ChunksClient, server: MailServer, account: str
) -> None:
    for folder in ("INBOX", "Work", "Work.Old", "Trash", "Lists.a"):
        server.deliver([letter(1)], folder=folder)
    with saved(client, account, server):
        sync(client, account, folders="all", exclude=["\\Trash", "Lists*"])
        assert alive(stored(stack, account)) == [
            (folder, "Grüße 1") for folder in ("INBOX", "Work", "Work.Old")
        ]
        with server.session() as imap:
            imap.delete("Work.Old")
        sync(client, account, folders="all", exclude=["\\Trash", "Lists*"])
        assert alive(stored(stack, account)) == [("INBOX", "Grüße 1"), ("Work", "Grüße 1")]
        folders = {folder.folder: folder for folder in client.email.folders(account)}
    assert sorted(folders) == ["INBOX", "Lists.a", "Trash", "Work", "Work.Old"]
    assert folders["Trash"].special_use == "\\Trash"
    assert (folders["Work.Old"].gone_at is None, folders["Work"].gone_at is None) == (False, True)
    assert (folders["Work"].messages, folders["Trash"].messages) == (1, None)


def test_a_folder_is_one_however_it_is_spelled(
    stack: LocalStack, client: ChunksClient, server: MailServer, account: str
) -> None:
    server.deliver(letter(n) for n in range(3))
    with saved(client, account, server):
        for folder in ("INBOX", "Inbox", "inbox"):
            sync(client, account, folder=folder)
        sync(client, account, folders=["inbox", "InBox"])
        assert alive(stored(stack, account)) == [("INBOX", f"Grüße {n}") for n in range(3)]


def test_a_mailbox_that_is_read_meanwhile_is_synced_whole(
    stack: LocalStack, client: ChunksClient, server: MailServer, account: str
) -> None:
    server.deliver(letter(n) for n in range(60))
    reading = threading.Event()

    def read() -> None:
        with server.session() as imap:
            imap.select("INBOX")
            while not reading.is_set():
                imap.store("1:*", "+FLAGS", r"(\Seen)")
                imap.store("1:*", "-FLAGS", r"(\Seen)")

    reader = threading.Thread(target=read)
    with saved(client, account, server):
        reader.start()
        try:
            job = sync(client, account, batch_size=20)
        finally:
            reading.set()
            reader.join()
        assert job.progress().status == "completed"
        assert job.progress().items_processed == 60
        assert [chunk.attempts for chunk in job.chunks()] == [1] * 4
        rows = stored(stack, account)
    assert [row["subject"] for row in rows] == [f"Grüße {n}" for n in range(60)]
    assert {row["parse_error"] for row in rows} == {None}
