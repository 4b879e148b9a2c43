"""Calls whose answer was lost and that are made again."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from tests.sql import invariants
from tests.sql.database import Database, Session
from tests.sql.threads import blocked, until

REPORTS: list[dict[str, Any]] = [
    {},
    {"result": {"a": 1}, "items_processed": 4},
    {"success": False, "error": "e"},
    {"success": False, "error": "e", "retryable": False},
    {"success": False, "retry_after_seconds": 0},
    {"next_chunks": [{}]},
    {"claim_next": True},
    {"success": False, "retry_after_seconds": 600, "claim_next": True},
]
STABLE = ("chunk_id", "outcome", "chunk_status", "job_status", "next")


@pytest.mark.parametrize("report", REPORTS, ids=str)
@pytest.mark.parametrize("chunks", [1, 3])
def test_a_repeated_report_answers_what_the_first_one_did(
    service: Session, report: dict[str, Any], chunks: int
) -> None:
    job = service.start(chunks=[{}] * chunks, max_concurrency=1)["id"]
    chunk = service.claimed(job)
    first = service.complete(chunk, **report)
    before = (service.chunks(job), service.progress(job)["completed_chunks"])
    again = service.complete(chunk, **report)
    assert {name: again[name] for name in STABLE} == {name: first[name] for name in STABLE}
    assert again["remaining"] == first["remaining"]
    assert (service.chunks(job), service.progress(job)["completed_chunks"]) == before
    alone = {name: value for name, value in report.items() if name != "claim_next"}
    (in_bulk,) = service.call(
        "complete_chunk_jobs_safe",
        completions=[{"chunk_id": chunk["chunk_id"], "claim_token": str(chunk["claim_token"])} | alone],
    )
    assert {name: in_bulk[name] for name in STABLE} == {name: first[name] for name in STABLE}
    assert (service.chunks(job), service.progress(job)["completed_chunks"]) == before
    invariants.check(service)


def test_a_report_of_an_earlier_attempt_answers_for_that_attempt(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    first = service.claimed(job)
    service.fail(first, "one")
    second = service.claimed(job)
    assert service.fail(first, "one")["outcome"] == "retrying"
    service.complete(second)
    assert service.fail(first, "one")["outcome"] == "retrying"
    assert service.complete(second)["outcome"] == "completed"
    assert len(service.attempts(first["chunk_id"])) == 1


def test_a_repeat_beside_the_first_report_waits_for_it(
    db: Database, service: Session, admin: Session
) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job)
    first = db.connect(autocommit=False)
    assert first.complete(chunk, items_processed=2)["outcome"] == "completed"
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(service.complete, chunk, items_processed=2)
        until(lambda: blocked(admin))
        first.connection.commit()
        assert second.result()["outcome"] == "completed"
    assert service.progress(job)["items_processed"] == 2


def test_a_claim_with_the_same_id_returns_the_same_chunk(service: Session) -> None:
    job = service.start(chunks=[{}] * 3)["id"]
    claim_id = uuid.uuid4()
    first = service.claimed(job, claim_id=claim_id)
    assert service.claimed(job, claim_id=claim_id) == first
    assert service.claimed(claim_id=claim_id) == first
    assert service.claimed(job, claim_id=uuid.uuid4())["chunk_id"] != first["chunk_id"]
    invariants.check(service)


def test_a_batch_claim_with_the_same_id_returns_the_same_chunks(service: Session) -> None:
    service.start(chunks=[{}] * 9)
    arguments = {"worker_id": "w", "batch_size": 4, "kinds": ["plain"], "claim_id": uuid.uuid4()}
    first = service.call("claim_chunk_jobs_safe", **arguments)
    assert len(first) == 4
    assert service.call("claim_chunk_jobs_safe", **arguments) == first
    service.call(
        "complete_chunk_job_safe",
        chunk_id=first[1]["chunk_id"],
        claim_token=first[1]["claim_token"],
        claim_next=False,
    )
    assert service.call("claim_chunk_jobs_safe", **arguments) == [first[0], *first[2:]]


def test_a_repeat_of_a_claim_under_way_waits_and_gets_the_same(
    db: Database, service: Session, admin: Session
) -> None:
    job = service.start(chunks=[{}] * 3)["id"]
    claim_id = uuid.uuid4()
    first = db.connect(autocommit=False)
    chunk = first.claimed(job, claim_id=claim_id)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(service.claim, job, claim_id=claim_id)
        until(lambda: blocked(admin))
        first.connection.commit()
        assert second.result() == chunk


def test_claim_next_is_found_again_while_it_is_held(service: Session) -> None:
    job = service.start(chunks=[{"n": n} for n in range(4)], max_concurrency=1)["id"]
    chunk = service.claimed(job, lease_seconds=77)
    answer = service.complete(chunk, claim_next=True)
    following = answer["next"]
    assert following["payload"] == {"n": 1}
    assert following["attempt"] == 1
    (row,) = service.chunks(job, "processing")
    assert (row["worker_id"], row["locked_until"] - row["updated_at"]) == ("w", timedelta(seconds=77))
    assert service.complete(chunk, claim_next=True)["next"] == following
    service.call(
        "complete_chunk_job_safe", chunk_id=following["chunk_id"], claim_token=following["claim_token"]
    )
    assert service.complete(chunk, claim_next=True)["next"] is None
    invariants.check(service)


def test_claim_next_at_the_end_is_null_and_a_chain_needs_no_other_claim(service: Session) -> None:
    job = service.start(chunks=[{}] * 20, max_concurrency=2)["id"]
    chunk: Any = service.claimed(job)
    done = 0
    while chunk is not None:
        chunk = service.complete(chunk, claim_next=True)["next"]
        done += 1
    assert done == 20
    assert service.progress(job)["status"] == "completed"
    invariants.check(service)


def test_an_old_claim_id_is_no_claim_of_a_lost_chunk(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    claim_id = uuid.uuid4()
    first = service.claimed(job, claim_id=claim_id)
    service.pass_time(timedelta(minutes=11))
    service.cleanup()
    again = service.claimed(job, claim_id=claim_id)
    assert (again["attempt"], again["claim_token"] != first["claim_token"]) == (2, True)
    invariants.check(service)
