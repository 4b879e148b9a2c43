"""Whose keys: a kind's own, made of the payload, and what a user may and sees."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.sql.database import Database, Session, refused
from tests.sql.limit_keys.test_blocking import throttle
from tests.sql.limit_keys.test_places import check

ANNA, BERT = str(uuid.uuid4()), str(uuid.uuid4())


@pytest.fixture
def kind(service: Session) -> str:
    """Two chunks an account."""
    service.call(
        "save_sync_kind",
        kind="mail",
        user_startable=True,
        max_concurrency=5,
        limit_by="account",
        limit_each=2,
    )
    return "mail"


def key_of(service: Session, job: str) -> Any:
    """The limit_key of a job."""
    return service.value("select limit_key from public.sync_jobs where id = %s", job)


def test_a_field_of_the_payload_makes_the_key(service: Session, kind: str) -> None:
    def key(**options: Any) -> Any:
        return key_of(service, service.start(kind, **options)["id"])

    assert key(payload={"account": "work"}) == "mail::work"
    assert key(payload={"account": "work"}, owner_id=ANNA) == f"mail:{ANNA}:work"
    assert key(payload={"account": 7}) == "mail::7"
    assert key(payload={}) == "mail::"
    long = key(payload={"account": "w" * 5000})
    assert len(long) < 200
    assert long != key(payload={"account": "w" * 5001})
    assert key(payload={"account": "work"}, limit_key="mine") == "mine"
    service.call("save_sync_kind", kind=kind, limit_by="owner_id")
    assert key(owner_id=ANNA) == f"mail:{ANNA}"
    saved = service.call("save_sync_kind", kind=kind, limit_by="", limit_each=0)
    assert (saved["limit_by"], saved["limit_each"]) == (None, None)
    assert key(payload={"account": "work"}) is None


def test_each_key_of_a_kind_has_its_places(service: Session, kind: str) -> None:
    for name in ("work", "work", "home"):
        service.start(kind, chunks=[{}] * 4, payload={"account": name})
    held = [service.claimed(kinds=[kind]) for _ in range(4)]
    assert service.claim(kinds=[kind]) is None
    assert sorted(chunk["limit_key"] for chunk in held) == ["mail::home"] * 2 + ["mail::work"] * 2
    service.call("save_sync_limit", key="mail::work", max_concurrency=3)
    assert service.claimed(kinds=[kind])["limit_key"] == "mail::work"
    check(service)


def test_a_user_gives_no_key_and_calls_none_of_it(db: Database, service: Session, kind: str) -> None:
    anna = db.connect("authenticated", user=ANNA)
    with refused("SC003", "limit_key"):
        anna.start(kind, limit_key=f"mail:{BERT}:work")
    for call, arguments in (
        ("save_sync_limit", {"key": "k"}),
        ("block_sync_limit", {"key": "k", "seconds": 1}),
        ("pace_sync_limit", {"key": "k"}),
        ("list_sync_limits", {}),
    ):
        with refused("42501"):
            anna.call(call, **arguments)
    with refused("42501"):
        anna.rows("select * from public.sync_limits")


def test_a_user_sees_what_the_own_job_waits_for_and_no_more(
    db: Database, service: Session, kind: str
) -> None:
    anna, bert = (db.connect("authenticated", user=user) for user in (ANNA, BERT))
    job = anna.start(kind, payload={"account": "work"})["id"]
    other = anna.start(kind, payload={"account": "work"})["id"]
    throttle(service, service.claimed(job, kinds=[kind]), 60)
    waits = anna.progress(other)["waiting_for"]
    assert sorted(waits) == ["key", "until"]
    assert waits["key"] == f"mail:{ANNA}:work"
    assert bert.rows("select * from public.chunk_processing_status") == []
    assert bert.value("select chunk_private.waiting_for(%s)", job) is None
    anna.control("cancel_sync_job", job)
    check(service)


def test_what_a_user_starts_and_steers_settles(db: Database, service: Session, kind: str) -> None:
    anna = db.connect("authenticated", user=ANNA)
    job = anna.start(kind, payload={"account": "work"}, chunks=[{}] * 3, sealed=False)["id"]
    anna.call("append_sync_chunks", parent_sync_job_id=job, chunks=[{}], seal=True)
    for action in ("pause_sync_job", "resume_sync_job"):
        anna.control(action, job)
        check(service)
    assert service.drain(kinds=[kind]) == 4


def test_limits_are_listed_saved_and_removed(service: Session) -> None:
    def keys() -> list[str]:
        return [row["key"] for row in service.call("list_sync_limits")]

    saved = service.call("save_sync_limit", key="a", max_concurrency=2, rate=10, per_seconds=60)
    assert saved == {
        "key": "a", "max_concurrency": 2, "rate": 10, "per_seconds": 60, "blocked_until": None, "blocked_reason": None,
        "processing": 0, "waiting": 0, "jobs": 0,
    }  # fmt: skip
    service.start(chunks=[{}] * 3, limit_key="b")
    assert keys() == ["a", "b"]
    assert service.call("list_sync_limits", key="b")[0]["waiting"] == 3
    service.call("save_sync_limit", key="a")
    assert keys() == ["b"]


def test_a_mailbox_is_asked_by_four_chunks_at_most(service: Session) -> None:
    """As the kind is shipped: of all jobs of an account together."""
    for account, owner in (("work", None), ("work", None), ("work", ANNA)):
        service.start("email", chunks=[{}] * 4, payload={"account": account}, owner_id=owner)
    held = [service.claimed(kinds=["email"]) for _ in range(8)]
    assert service.claim(kinds=["email"]) is None
    assert [chunk["limit_key"] for chunk in held].count("email::work") == 4
    check(service)
