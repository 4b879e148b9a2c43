"""Checkpoints: a later attempt goes on where one stopped, and progress makes attempts count anew."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.sql import invariants
from tests.sql.database import Row, Session, refused


def save(session: Session, chunk: Row, checkpoint: Any, items: int | None = None) -> Any:
    return session.call(
        "extend_chunk_lease",
        chunk_id=chunk["chunk_id"],
        claim_token=chunk["claim_token"],
        checkpoint=checkpoint,
        items_processed=items,
    )


def give_back(session: Session, chunk: Row, **arguments: Any) -> Any:
    return session.call(
        "release_chunk_job", chunk_id=chunk["chunk_id"], claim_token=chunk["claim_token"], **arguments
    )


def lose(session: Session) -> None:
    """Let the lease run out, and the watchdog see it."""
    session.pass_time(timedelta(minutes=11))
    assert session.cleanup() == 1


@pytest.mark.parametrize("how", ["fail", "lose", "give back"])
def test_a_later_attempt_goes_on_from_the_checkpoint(service: Session, how: str) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job)
    assert chunk["checkpoint"] is None
    assert save(service, chunk, {"page": 5}, items=50)["ok"] is True
    service.extend(chunk, items_processed=70)
    assert service.progress(job)["items_processed"] == 70
    if how == "fail":
        service.fail(chunk, retry_after_seconds=0)
    elif how == "lose":
        lose(service)
    else:
        give_back(service, chunk)
    assert service.progress(job)["items_processed"] == 50
    invariants.check(service)
    again = service.claimed(job)
    assert again["checkpoint"] == {"page": 5}
    assert service.progress(job)["items_processed"] == 50
    service.complete(again, items_processed=90)
    (row,) = service.chunks(job)
    assert (row["checkpoint"], row["items_processed"]) == (None, 90)
    assert service.progress(job)["items_processed"] == 90
    invariants.check(service)


def test_only_the_present_token_saves(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    old = service.claimed(job)
    save(service, old, {"page": 1})
    lose(service)
    new = service.claimed(job)
    assert save(service, new, {"page": 2})["ok"] is True
    assert save(service, old, {"page": 9})["ok"] is False
    assert give_back(service, old, checkpoint={"page": 9})["outcome"] == "stale"
    service.fail(new, retry_after_seconds=0)
    assert service.claimed(job)["checkpoint"] == {"page": 2}


def test_progress_lets_the_attempts_count_anew_and_a_poisoned_step_fails_after_all(service: Session) -> None:
    job = service.start(chunks=[{}], max_retries=2)["id"]
    for page in range(10):
        chunk = service.claimed(job)
        assert chunk["attempt"] == (1 if page == 0 else 2)
        save(service, chunk, {"page": page})
        assert service.fail(chunk, retry_after_seconds=0)["outcome"] == "retrying"
        assert service.progress(job)["retrying_chunks"] == 1
    outcomes = []
    while chunks := service.claim(job):
        save(service, chunks, {"page": 9})  # the same is no progress
        outcomes.append(service.fail(chunks, "poison", retry_after_seconds=0)["outcome"])
    # The attempt that saved the last new one was the first.
    assert outcomes == ["retrying", "failed"]
    invariants.check(service)


def test_giving_back_with_progress_costs_nothing_and_has_no_limit(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    seen = []
    for page in range(40):
        chunk = service.claimed(job)
        assert chunk["attempt"] == 1
        seen.append(service.progress(job)["items_processed"])
        assert (
            give_back(service, chunk, checkpoint={"page": page}, items_processed=page * 10)["outcome"]
            == "released"
        )
        invariants.check(service)
    assert seen == sorted(seen), "progress goes down at a give-back"
    assert service.progress(job)["retrying_chunks"] == 0
    chunk = service.claimed(job)
    assert service.complete(chunk)["job_status"] == "completed"


def test_checkpoints_for_ever_end(service: Session, admin: Session) -> None:
    """`{saved_at: now}` is new each time: it counts as progress so often, and then it is only stored."""
    admin.execute("update chunk_private.settings set max_checkpoints = 5, max_given_back = 2")
    job = service.start(chunks=[{}], max_retries=1)["id"]
    for n in range(100):
        chunks = service.claim(job)
        if not chunks:
            break
        give_back(service, chunks, checkpoint={"saved_at": n})
        service.execute("update chunk_private.returned_chunks set ready_at = now()")
        service.execute("update chunk_private.slots set ready_at = now()")
    assert service.progress(job)["status"] == "failed"
    assert n < 15
    (row,) = service.chunks(job)
    assert row["checkpoints"] == 5
    invariants.check(service)


def test_the_size_is_bounded_and_named(service: Session) -> None:
    chunk = service.claimed(service.start(chunks=[{}])["id"])
    fits = {"a": "x" * (8192 - len('{"a": ""}'))}
    assert save(service, chunk, fits)["ok"] is True
    with refused("SC004", "checkpoint"):
        save(service, chunk, {"a": fits["a"] + "x"})
    for wrong in (5, "text", [1], True):
        with refused("SC003", "checkpoint"):
            save(service, chunk, wrong)
    with refused("SC004", "checkpoint"):
        give_back(service, chunk, checkpoint={"a": fits["a"] + "x"})
    (row,) = service.chunks(str(chunk["parent_sync_job_id"]))
    assert (row["checkpoint"], row["status"]) == (fits, "processing")


def test_what_json_can_hold_is_kept(service: Session) -> None:
    chunk = service.claimed(service.start(chunks=[{}])["id"])
    kept = {"big": 2**63, "text": "\U0001f600 \\", "nested": {"a": [None, True, 1.5]}}
    save(service, chunk, kept)
    service.fail(chunk, retry_after_seconds=0)
    assert service.claimed(str(chunk["parent_sync_job_id"]))["checkpoint"] == kept


@pytest.mark.parametrize("from_start", [False, True])
def test_reopened_chunks_go_on_unless_told(service: Session, from_start: bool) -> None:
    job = service.start(chunks=[{}, {}], max_retries=0)["id"]
    chunk, other = service.claimed(job), service.claimed(job)
    save(service, chunk, {"page": 3}, items=30)
    service.fail(chunk)
    service.complete(other, items_processed=7)
    assert service.progress(job)["items_processed"] == 37
    service.call("retry_failed_chunks", parent_sync_job_id=job, from_start=from_start)
    assert service.progress(job)["items_processed"] == (7 if from_start else 37)
    invariants.check(service)
    again = service.claimed(job)
    assert again["checkpoint"] == (None if from_start else {"page": 3})
    service.complete(again, items_processed=44)
    assert service.progress(job)["items_processed"] == 51
    invariants.check(service)


def test_cancelling_keeps_the_figures(service: Session) -> None:
    job = service.start(chunks=[{}] * 3)["id"]
    first, second = service.claimed(job), service.claimed(job)
    give_back(service, first, checkpoint={"n": 1}, items_processed=10)
    save(service, second, {"n": 2}, items=20)
    service.extend(second, items_processed=25)
    assert service.progress(job)["items_processed"] == 35
    service.control("cancel_sync_job", job)
    assert service.progress(job)["items_processed"] == 35
    invariants.check(service)


def test_many_heartbeats_save_each_its_own(service: Session) -> None:
    job = service.start(chunks=[{}] * 3)["id"]
    chunks = [service.claimed(job) for _ in range(3)]
    leases = [
        {
            "chunk_id": c["chunk_id"],
            "claim_token": str(c["claim_token"]),
            "checkpoint": {"n": n} if n else None,
        }
        for n, c in enumerate(chunks)
    ]
    assert all(answer["ok"] for answer in service.call("extend_chunk_leases", leases=leases))
    assert [row["checkpoint"] for row in service.chunks(job)] == [None, {"n": 1}, {"n": 2}]
