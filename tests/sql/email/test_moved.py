"""Messages that move between folders: each keeps its row, whichever folder is looked at first, and is there once."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from tests.polling import until
from tests.sql.threads import blocked

if TYPE_CHECKING:
    from tests.sql.database import Database, Session

WHEN = "2026-11-03T08:00:00+00:00"


@pytest.fixture
def account(admin: Session) -> str:
    """An account's id."""
    added = "insert into public.email_accounts (name, host, username) values ('work', 'h', 'u') returning id::text"
    return str(admin.value(added))


@pytest.fixture
def mailbox(service: Session, account: str) -> Mailbox:
    """The account's folders, as one session sees them."""
    return Mailbox(service, account)


class Mailbox:
    """Syncs folders as the handler does."""

    def __init__(self, session: Session, account: str) -> None:
        self.session, self.account = session, account

    def plan(self, folder: str, *uids: int, **over: Any) -> Any:
        """Say which messages are in the folder; those that are not are gone."""
        present = {"present": Jsonb([[uid, uid] for uid in uids]), "present_count": len(uids)}
        where = {"account_id": self.account, "folder": folder, "uidvalidity": 7, "mark_deleted": True}
        return self.session.call("plan_email_folder", **(where | present | over))

    def save(self, folder: str, *mails: tuple[int, str], **over: Any) -> None:
        """Store messages: a UID and what the message is."""
        rows = [
            {"uid": uid, "message_id": f"<{name}@x>", "subject": name, "size": 100, "received_at": WHEN}
            | over
            for uid, name in mails
        ]
        where = {"account_id": self.account, "folder": folder, "uidvalidity": 7}
        self.session.call("save_synced_emails", **where, emails=Jsonb(rows))

    def ids(self) -> dict[str, int]:
        """The ids of the rows that were there at first, by what the message is."""
        return {row["subject"]: row["id"] for row in self.rows("id, subject")}

    def places(self) -> dict[int, tuple[str, int, bool]]:
        """Where each row is, and whether it is there."""
        return {
            row["id"]: (row["folder"], row["uid"], row["deleted_at"] is None)
            for row in self.rows("id, folder, uid, deleted_at")
        }

    def rows(self, columns: str) -> list[Any]:
        return self.session.rows(f"select {columns} from public.synced_emails order by id")


# The steps of a sync after two of three messages moved from INBOX to Archive, and all orders they can come in.
STEPS: dict[str, Callable[[Mailbox], object]] = {
    "source planned": lambda mailbox: mailbox.plan("INBOX", 1),
    "destination planned": lambda mailbox: mailbox.plan("Archive", 40, 41),
    "destination saved": lambda mailbox: mailbox.save("Archive", (40, "b"), (41, "c"), flags=["\\Seen"]),
}


@pytest.mark.parametrize("order", list(itertools.permutations(STEPS)), ids=" then ".join)
def test_a_message_that_moved_keeps_its_row_in_every_order(mailbox: Mailbox, order: tuple[str, ...]) -> None:
    mailbox.plan("INBOX", 1, 2, 3)
    mailbox.save("INBOX", (1, "a"), (2, "b"), (3, "c"), body_text="Hello")
    mailbox.plan("Archive")
    ids = mailbox.ids()
    for step in order:
        STEPS[step](mailbox)
    assert mailbox.places() == {
        ids["a"]: ("INBOX", 1, True),
        ids["b"]: ("Archive", 40, True),
        ids["c"]: ("Archive", 41, True),
    }
    flags_and_bodies = {row["id"]: (row["flags"], row["body_text"]) for row in mailbox.rows("*")}
    assert flags_and_bodies[ids["b"]] == (["\\Seen"], "Hello")
    assert mailbox.plan("INBOX", 1)["deleted"] == mailbox.plan("Archive", 40, 41)["deleted"] == 0


def test_a_move_is_no_deletion_in_what_is_counted(mailbox: Mailbox) -> None:
    mailbox.plan("INBOX", 1, 2)
    mailbox.save("INBOX", (1, "a"), (2, "b"))
    mailbox.save("Archive", (40, "a"))
    assert mailbox.plan("INBOX")["deleted"] == 1


def test_a_copy_that_was_there_before_is_none_that_moved(mailbox: Mailbox) -> None:
    mailbox.save("INBOX", (1, "a"))
    mailbox.save("Archive", (40, "a"))
    mailbox.plan("INBOX", 1)
    before = mailbox.places()
    mailbox.plan("INBOX")
    assert mailbox.places() == {
        id_: (folder, uid, folder == "Archive") for id_, (folder, uid, _) in before.items()
    }


def test_two_of_the_same_mail_move_as_two(mailbox: Mailbox) -> None:
    for planned_first in (True, False):
        source, target = f"From {planned_first}", f"To {planned_first}"
        mailbox.plan(source, 1, 2, 3)
        mailbox.save(source, (1, "a"), (2, "a"), (3, "b"))
        old = [row["id"] for row in mailbox.rows("id, folder") if row["folder"] == source]
        steps = [
            lambda source=source: mailbox.plan(source),
            lambda target=target: mailbox.save(target, (8, "b"), (9, "a"), (10, "a")),
        ]
        for step in steps if planned_first else reversed(steps):
            step()
        places = mailbox.places()
        assert [places[id_] for id_ in old] == [(target, 9, True), (target, 10, True), (target, 8, True)]
        mailbox.session.execute("delete from public.synced_emails")


@pytest.mark.parametrize("first", ["source planned", "destination saved"])
def test_side_by_side_one_of_them_sees_the_other(
    mailbox: Mailbox, db: Database, admin: Session, first: str
) -> None:
    """The one that comes second waits for the first to commit, and then finds what it has left."""
    mailbox.plan("INBOX", 1, 2)
    mailbox.save("INBOX", (1, "b"), (2, "c"))
    ids = mailbox.ids()
    (second,) = {"source planned", "destination saved"} - {first}
    opening = Mailbox(db.connect(autocommit=False), mailbox.account)
    run(opening, first)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(run, mailbox, second)
        until(lambda: blocked(admin))
        opening.session.connection.commit()
        waits.result(10)
    assert mailbox.places() == {ids["b"]: ("Archive", 40, True), ids["c"]: ("Archive", 41, True)}


def run(mailbox: Mailbox, step: str) -> None:
    if step == "source planned":
        mailbox.plan("INBOX")
    else:
        STEPS[step](mailbox)


def test_those_who_store_do_not_wait_for_each_other(mailbox: Mailbox, db: Database) -> None:
    opening = Mailbox(db.connect(autocommit=False), mailbox.account)
    opening.save("INBOX", (1, "a"))
    mailbox.session.execute("set statement_timeout = '2s'")
    mailbox.save("Archive", (1, "b"))
    opening.session.connection.commit()
    assert len(mailbox.rows("id")) == 2


def test_an_id_that_is_longer_than_an_index_takes_stops_nothing(mailbox: Mailbox) -> None:
    """Who writes a mail writes its id."""
    long = "".join(chr(0x10000 + 7919 * n % 0xFFFFF) for n in range(2000))
    mailbox.plan("INBOX", 1)
    mailbox.save("INBOX", (1, long))
    assert mailbox.plan("INBOX")["deleted"] == 1
    mailbox.save("Archive", (5, long))
    assert list(mailbox.places().values()) == [("Archive", 5, True)]
