"""A folder beside its rows: what is missing, what has left, and what is never forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.sql.database import Session, refused

FOLDER = {"folder": "INBOX", "uidvalidity": 7}


@pytest.fixture
def account(admin: Session) -> str:
    """An account's id."""
    added = "insert into public.email_accounts (name, host, username) values ('work', 'h', 'u') returning id::text"
    return str(admin.value(added))


def plan(service: Session, account: str, *present: list[int], **over: Any) -> Any:
    """Compare the folder with the table."""
    arguments = FOLDER | {"account_id": account, "present": Jsonb(present)} | over
    return service.call("plan_email_folder", **arguments)


def save(service: Session, account: str, *emails: dict[str, Any], **over: Any) -> int:
    """Store messages; how many rows changed."""
    rows = [{"subject": f"s{email['uid']}", **email} for email in emails]
    changed: int = service.call(
        "save_synced_emails", **(FOLDER | {"account_id": account, "emails": Jsonb(rows)} | over)
    )
    return changed


def deleted(service: Session) -> list[int]:
    """The UIDs of the rows that are marked deleted."""
    found = service.rows("select uid from public.synced_emails where deleted_at is not null order by uid")
    return [row["uid"] for row in found]


def test_nothing_is_marked_deleted_by_a_list_that_does_not_add_up(service: Session, account: str) -> None:
    save(service, account, {"uid": 1}, {"uid": 2}, {"uid": 3})
    for count in (3, None, 1):
        with refused("SC003", "present_count"):
            plan(service, account, [1, 2], mark_deleted=True, present_count=count)
    assert deleted(service) == []
    assert plan(service, account, [1, 2], mark_deleted=True, present_count=2)["deleted"] == 1
    assert deleted(service) == [3]


def test_a_count_that_differs_is_refused_without_marking_too(service: Session, account: str) -> None:
    with refused("SC003", "present_count"):
        plan(service, account, [1, 2], present_count=30)
    assert plan(service, account, [1, 2])["missing"] == [[1, 2, 2]]


def test_an_answer_without_content_never_overwrites_what_was_read(service: Session, account: str) -> None:
    save(service, account, {"uid": 1, "preview": "Hello"})
    refusal = {"uid": 1, "subject": None, "parse_error": "the server did not send its content"}
    assert save(service, account, refusal) == 0
    (row,) = service.rows("select subject, preview, parse_error from public.synced_emails")
    assert row == {"subject": "s1", "preview": "Hello", "parse_error": None}
    # Nor does it stand in the way of what comes later.
    assert save(service, account, {"uid": 2, "subject": None, "parse_error": "no"}) == 1
    assert save(service, account, {"uid": 2, "preview": "now"}) == 1
    assert service.value("select parse_error is null from public.synced_emails where uid = 2")


def update(service: Session, account: str, mark: str, count: int, **over: Any) -> Any:
    """Apply what changed in the folder."""
    arguments = {
        "account_id": account,
        "highestmodseq": mark,
        "present_count": count,
        "changed": Jsonb(over.get("changed", [])),
        "vanished": Jsonb(over.get("vanished", [])),
    }
    return service.call("update_email_folder", **(FOLDER | arguments))


def state(service: Session, account: str, folder: str = "INBOX") -> Any:
    """How far the folder is synced."""
    return service.call("get_email_folder", account_id=account, folder=folder)


def test_a_folder_goes_on_from_its_mark(service: Session, account: str) -> None:
    assert state(service, account) is None
    plan(service, account, [1, 3], present_count=3, highestmodseq="9223372036854775807")
    assert state(service, account) == {"uidvalidity": 7, "highestmodseq": "9223372036854775807"}
    save(service, account, {"uid": 1}, {"uid": 2}, {"uid": 3})
    changed = [{"uid": 2, "flags": ["\\Seen"]}, {"uid": 4, "flags": []}, {"uid": 5, "flags": []}]
    after = update(service, account, "20", 4, changed=changed, vanished=[[3, 3]])
    assert after == {
        "agrees": True,
        "missing": [[4, 5, 2]],
        "deleted": 1,
        "flags_changed": 1,
        "moved": False,
    }
    assert service.value("select flags from public.synced_emails where uid = 2") == ["\\Seen"]
    assert state(service, account)["highestmodseq"] == "20"
    # What the chunks in between did not store shows in the count, and the mark stays where it was.
    assert update(service, account, "21", 4)["agrees"] is False
    assert state(service, account)["highestmodseq"] == "20"


def test_folders_that_are_gone_are_marked_with_their_messages(service: Session, account: str) -> None:
    listing = [
        {"folder": "INBOX"},
        {"folder": "Old", "special_use": None},
        {"folder": "Sent", "special_use": "\\Sent"},
    ]
    service.call("save_email_folders", account_id=account, folders=Jsonb(listing))
    save(service, account, {"uid": 1})
    save(service, account, {"uid": 1}, {"uid": 2}, folder="Old")
    answer = service.call("save_email_folders", account_id=account, folders=Jsonb(listing[:1] + listing[2:]))
    assert answer == {"gone": 1, "deleted": 2}
    rows = service.rows(
        "select folder, special_use, gone_at is not null as gone from public.email_folders order by 1"
    )
    assert [tuple(row.values()) for row in rows] == [
        ("INBOX", None, False),
        ("Old", None, True),
        ("Sent", "\\Sent", False),
    ]
    assert service.value("select count(*) from public.synced_emails where deleted_at is null") == 1
    service.call("save_email_folders", account_id=account, folders=Jsonb(listing))
    assert service.value("select count(*) from public.email_folders where gone_at is not null") == 0
    with refused("SC003", "folders"):
        service.call("save_email_folders", account_id=account, folders=Jsonb([]))


def test_the_first_who_sees_a_new_numbering_plans_again(service: Session, account: str) -> None:
    plan(service, account, [1, 2])
    again = {"account_id": account, "folder": "INBOX", "uidvalidity": 8}
    assert [service.call("renumber_email_folder", **again) for _ in range(3)] == [True, False, False]
    assert service.call("renumber_email_folder", **(again | {"folder": "Never planned"})) is True


def test_a_message_that_moved_keeps_its_row(service: Session, account: str) -> None:
    when = "2026-11-03T08:00:00+00:00"
    mail = {"message_id": "<1@x>", "size": 100, "received_at": when, "preview": "Hello"}
    save(service, account, mail | {"uid": 1}, mail | {"uid": 2, "message_id": "<2@x>"})
    elsewhere = {"account_id": account, "folder": "Archive", "uidvalidity": 3}

    def adopt(**over: Any) -> Any:
        found = {
            "uid": 40,
            "message_id": "<1@x>",
            "size": 100,
            "received_at": when,
            "flags": ["\\Seen"],
        } | over
        return service.call("adopt_moved_emails", **elsewhere, emails=Jsonb([found]))

    assert adopt() == []  # Its folder does not say that it is gone: a copy.
    assert plan(service, account, [2, 2], mark_deleted=True, present_count=1)["moved"] is True
    assert adopt(size=101) == adopt(message_id="<2@x>") == adopt(received_at="2026-11-04T08:00:00Z") == []
    assert adopt() == [40]
    (row,) = service.rows(
        "select folder, uid, subject, flags, deleted_at from public.synced_emails where uid = 40"
    )
    assert row == {"folder": "Archive", "uid": 40, "subject": "s1", "flags": ["\\Seen"], "deleted_at": None}
    assert adopt(uid=41) == []
    assert service.value("select count(*) from public.synced_emails") == 2
