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
