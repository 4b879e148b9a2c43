"""What a sync says to a mail server: how many round trips it costs, and what it does when it is put off."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.e2e.listening import ListeningProxy, listening
from tests.e2e.mail import DOVECOT, MailServer, dovecot, pymap
from tests.e2e.syncing import finish, letter, saved, stored, sync
from tests.polling import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from supabase_chunks import ChunksClient
    from supabase_chunks.local import LocalStack

FOLDERS = 20
IN_FOLDER = 25

needs_dovecot = pytest.mark.skipif(DOVECOT is None, reason="Debian's dovecot-imapd is not installed")


@pytest.fixture
def heard(pem: tuple[Path, Path]) -> Iterator[tuple[MailServer, ListeningProxy]]:
    """A fresh Dovecot without TLS, and a proxy before it that hears what it is sent."""
    with (
        dovecot(*pem, settings="disable_plaintext_auth = no\nmail_fsync = never") as server,
        listening(server.port) as proxy,
    ):
        yield server, proxy


@needs_dovecot
def test_folders_without_a_change_cost_a_round_trip_each(
    mail_stack: LocalStack,
    mail_client: ChunksClient,
    heard: tuple[MailServer, ListeningProxy],
    account: str,
) -> None:
    server, proxy = heard
    folders = [f"Folder {number}" for number in range(FOLDERS)]
    for number, folder in enumerate(folders):
        server.deliver((letter(IN_FOLDER * number + n) for n in range(IN_FOLDER)), folder=folder, tls=False)
    with saved(mail_client, account, server, port=proxy.port, tls="none"):
        sync(mail_client, account, folders=folders)
        assert len(stored(mail_stack, account)) == FOLDERS * IN_FOLDER
        # Sessions of the first sync may still be open, or not: a login's commands are not a folder's.
        proxy.commands.clear()
        again = sync(mail_client, account, folders=folders)
        assert again.progress().items_total == 0
        said = Counter(of_folders(proxy.commands))
        assert said == Counter(EXAMINE=FOLDERS)

        with server.session(tls=False) as imap:
            imap.select('"Folder 3"')
            imap.store("1", "+FLAGS", r"(\Flagged)")
        proxy.commands.clear()
        sync(mail_client, account, folders=folders)
        assert Counter(of_folders(proxy.commands)) == Counter({"EXAMINE": FOLDERS, "UID FETCH": 1})
        assert sum(r"\Flagged" in row["flags"] for row in stored(mail_stack, account)) == 1


def of_folders(commands: list[str]) -> list[str]:
    """The commands that are no login's."""
    names = [re.match(r"(?:UID )?\S*", command)[0] for command in commands]  # type: ignore[index]  # it always matches
    of_a_login = {"CAPABILITY", "LOGIN", "AUTHENTICATE", "NAMESPACE", "ENABLE", "ID", "LOGOUT", ""}
    return [name for name in names if name not in of_a_login]


def test_a_throttled_account_is_left_alone_and_others_go_on(
    mail_stack: LocalStack, mail_client: ChunksClient, pem: tuple[Path, Path], account: str
) -> None:
    other = f"{account}-other"
    with pymap(*pem, tls=False) as server, listening(server.port) as proxy:
        server.deliver([letter(1), letter(2)], tls=False)
        with (
            saved(mail_client, account, server, port=proxy.port, tls="none"),
            saved(mail_client, other, server, tls="none"),
        ):
            proxy.turning_away = "[UNAVAILABLE] Too many connections"
            job = mail_client.trigger_sync("email", payload={"account": account})
            waiting_for = until(lambda: job.progress().waiting_for)
            assert waiting_for.key == f"email::{account}"
            assert waiting_for.until is not None
            assert "Too many connections" in str(waiting_for.reason)
            assert proxy.turned_away == 1
            assert sync(mail_client, other).progress().status == "completed"
            assert job.progress().status == "running"
            proxy.turning_away = ""
            finish(mail_client, job)
            assert [chunk.attempts for chunk in job.chunks()] == [1, 1]
            assert len(stored(mail_stack, account)) == 2
