"""State between jobs: left by a job that completes, and by no other."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sql.database import Database, Session, refused, reports


def state(session: Session, key: str = "nightly", **arguments: Any) -> Any:
    return session.call("get_sync_state", kind="plain", job_key=key, **arguments)


def begin(session: Session, key: str | None = "nightly", chunks: int = 1, **arguments: Any) -> str:
    return str(session.start(chunks=[{}] * chunks, job_key=key, **arguments)["id"])


def test_it_becomes_the_state_when_the_job_completes_and_not_before(service: Session) -> None:
    job = begin(service, chunks=2)
    service.complete(service.claimed(job), next_state={"cursor": 5, "a": 1})
    assert state(service) is None
    service.complete(service.claimed(job), next_state={"cursor": 9})
    assert state(service) == {"cursor": 9, "a": 1}


def test_a_failed_job_leaves_none_until_its_chunks_are_retried(service: Session) -> None:
    job = begin(service, chunks=2, max_retries=0)
    service.complete(service.claimed(job), next_state={"cursor": 5})
    service.fail(service.claimed(job))
    assert service.progress(job)["status"] == "failed"
    assert state(service) is None
    service.control("retry_failed_chunks", job)
    service.drain(job)
    assert state(service) == {"cursor": 5}


def test_a_cancelled_job_leaves_none(service: Session) -> None:
    job = begin(service, chunks=2)
    service.complete(service.claimed(job), next_state={"cursor": 5})
    service.control("cancel_sync_job", job)
    assert state(service) is None


def test_an_older_job_does_not_win_over_a_newer_one(service: Session) -> None:
    older = begin(service, chunks=2, max_retries=0)
    service.complete(service.claimed(older), next_state={"from": "older"})
    service.fail(service.claimed(older))
    newer = begin(service)
    service.complete(service.claimed(newer), next_state={"from": "newer"})
    service.control("retry_failed_chunks", older)
    service.drain(older)
    assert service.progress(older)["status"] == "completed"
    assert state(service) == {"from": "newer"}


def test_what_is_saved_or_forgotten_by_hand_stands_against_a_job_under_way(service: Session) -> None:
    for by_hand in ({"cursor": 100}, None):
        job = begin(service)
        service.call("save_sync_state", kind="plain", job_key="nightly", state=by_hand)
        service.complete(service.claimed(job), next_state={"cursor": 1})
        assert state(service) == by_hand
    job = begin(service)
    service.complete(service.claimed(job), next_state={"cursor": 2})
    assert state(service) == {"cursor": 2}


def test_the_same_completion_twice_counts_once(service: Session) -> None:
    job = begin(service, chunks=2)
    chunk = service.claimed(job)
    service.complete(chunk, next_state={"n": 1})
    service.complete(service.claimed(job), next_state={"n": 2})
    assert service.complete(chunk, next_state={"n": 1})["outcome"] == "completed"
    assert state(service) == {"n": 2}


def test_in_bulk_as_one_by_one(service: Session) -> None:
    job = begin(service, chunks=2)
    chunks = [service.claimed(job), service.claimed(job)]
    completions = [report | {"next_state": {f"n{n}": n}} for n, report in enumerate(reports(chunks))]
    completions[1]["next_state"] = {"n1": 1, "last": True}
    service.call("complete_chunk_jobs_safe", completions=completions)
    assert state(service) == {"n0": 0, "n1": 1, "last": True}


def test_a_job_without_key_leaves_none(service: Session) -> None:
    job = begin(service, key=None)
    assert service.complete(service.claimed(job), next_state={"n": 1})["outcome"] == "completed"
    assert service.value("select count(*) from public.sync_states") == 0


def test_sizes_and_shapes_are_named(service: Session) -> None:
    job = begin(service)
    chunk = service.claimed(job)
    fits = {"a": "x" * (65536 - len('{"a": ""}'))}
    with refused("SC004", "next_state"):
        service.complete(chunk, next_state={"a": fits["a"] + "x"})
    with refused("SC003", "next_state"):
        service.complete(chunk, next_state=[1])
    with refused("SC003", "next_state"):
        service.fail(chunk, next_state={"n": 1})
    with refused("SC003", "state"):
        service.call("save_sync_state", kind="plain", job_key="k", state=5)
    with refused("SC002", "kind"):
        service.call("save_sync_state", kind="unheard", job_key="k", state={})
    with refused("SC003", "job_key"):
        service.call("save_sync_state", kind="plain", job_key="", state={})
    assert service.complete(chunk, next_state=fits)["job_status"] == "completed"
    assert state(service) == fits


def test_a_merge_that_grows_too_large_is_refused_and_changes_nothing(service: Session) -> None:
    job = begin(service, chunks=2)
    service.complete(service.claimed(job), next_state={"a": "x" * 40_000})
    chunk = service.claimed(job)
    with refused("SC004", "next_state"):
        service.complete(chunk, next_state={"b": "x" * 40_000})
    assert service.complete(chunk, next_state={"b": 1})["job_status"] == "completed"


@pytest.mark.parametrize("owned", [True, False])
def test_users_read_their_own_and_nobody_elses(db: Database, service: Session, owned: bool) -> None:
    me, other = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
    service.call(
        "save_sync_state", kind="plain", job_key="k", state={"mine": owned}, owner_id=me if owned else other
    )
    user = db.connect("authenticated", user=me)
    assert user.rows("select state from public.sync_states") == ([{"state": {"mine": True}}] if owned else [])
    with refused("42501"):
        user.call("save_sync_state", kind="plain", job_key="k", state={})
