"""Reports in bulk answer and do what the same reports one by one do."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.sql import invariants
from tests.sql.cleanup.hooks import configure, sent
from tests.sql.database import Database, Row, Session, refused, reports

# What is reported on each of a job's first chunks; each script runs on a job of its own.
SCRIPTS: dict[str, list[dict[str, Any]]] = {
    "all done": [{}, {}, {}],
    "results and items": [
        {"result": {"n": 1}, "items_processed": 3},
        {"result": 5},
        {"items_total": 7, "items_processed": 2},
    ],
    "failures": [{"success": False, "error": "a"}, {"success": False}, {}],
    "permanent": [
        {"success": False, "error": "a", "retryable": False},
        {},
        {"success": False, "retryable": False},
    ],
    "retry later": [{"success": False, "retry_after_seconds": 600}] * 3,
    "retry now": [{"success": False, "retry_after_seconds": 0}] * 3,
    "appends": [
        {"next_chunks": [{"m": 1}, {"m": 2}], "items_total": 9},
        {"next_chunks": []},
        {"next_chunks": None},
    ],
}
SIZES = [3, 4, 6]


def run(
    session: Session, script: list[dict[str, Any]], chunks: int, how: str
) -> tuple[list[Any], list[Any], Any]:
    """Play a script on a new job; returns the answers, the rows and the progress, without what differs by nature."""
    job = session.start("web", chunks=[{"n": n} for n in range(chunks)], max_concurrency=3, max_retries=1)[
        "id"
    ]
    claimed = [session.claimed(job, kinds=None) for _ in script]
    first = claimed[0]["chunk_id"]
    if how == "single":
        answers = [session.complete(chunk, **report) for chunk, report in zip(claimed, script, strict=True)]
    else:
        answers = bulk(session, claimed, script)
    invariants.check(session)
    stable = [
        {
            "chunk": answer["chunk_id"] - first,
            "outcome": answer["outcome"],
            "status": answer["chunk_status"],
            "next": answer["next"] is not None,
        }
        for answer in answers
    ]
    rows = [
        (
            *(
                row[name]
                for name in ("chunk_index", "payload", "result", "error", "attempts", "items_processed")
            ),
            *(row[name] for name in ("items_total", "status")),
        )
        for row in session.chunks(job)
    ]
    progress = session.progress(job)
    figures = {
        name: value
        for name, value in progress.items()
        if name.endswith("_chunks") or name.startswith("items_")
    }
    return stable, sorted(rows, key=str), figures | {"status": progress["status"]}


def bulk(session: Session, claimed: list[Row], script: list[dict[str, Any]]) -> Any:
    """Report in one call."""
    completions = [
        report | {"chunk_id": chunk["chunk_id"], "claim_token": str(chunk["claim_token"])}
        for chunk, report in zip(claimed, script, strict=True)
    ]
    return session.call("complete_chunk_jobs_safe", completions=completions)


@pytest.mark.parametrize("chunks", SIZES)
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_same_script(service: Session, admin: Session, name: str, chunks: int) -> None:
    configure(service)
    script = SCRIPTS[name]
    one = run(service, script, chunks, "single")
    by_one = len(sent(admin))
    many = run(service, script, chunks, "bulk")
    assert many[0] == one[0]
    assert many[2] == one[2]
    if not any(report.get("retry_after_seconds") == 0 for report in script):
        assert many[1] == one[1]
        assert len(sent(admin)) == 2 * by_one


def test_a_bad_item_gets_its_own_answer_and_the_others_go_through(service: Session) -> None:
    job = service.start(chunks=[{}] * 4)["id"]
    chunks = [service.claimed(job) for _ in range(3)]
    good = [{"chunk_id": c["chunk_id"], "claim_token": str(c["claim_token"])} for c in chunks]
    completions = [
        good[0],
        {"chunk_id": "x", "claim_token": "y"},
        good[1] | {"items_processed": -1},
        good[1] | {"items_processed": 2**53},
        good[1] | {"success": None, "error": "x"},
        good[1] | {"claim_next": True},
        {"claim_token": str(uuid.uuid4())},
        5,
        None,
        {"chunk_id": 999_999, "claim_token": str(uuid.uuid4())},
        good[2] | {"claim_token": str(uuid.uuid4())},
        good[2] | {"result": {"ok": True}},
    ]
    answers = service.call("complete_chunk_jobs_safe", completions=completions)
    outcomes = [answer["outcome"] for answer in answers]
    assert outcomes == [
        "completed",
        *["error"] * 9,
        "stale",
        "completed",
    ]
    assert all(answer["message"] and answer["code"] for answer in answers if answer["outcome"] == "error")
    assert answers[4]["code"] == "SC003"
    assert (answers[5]["code"], "claim_next" in answers[5]["message"]) == ("SC003", True)
    assert answers[9]["code"] == "SC001"
    assert service.complete(chunks[1])["outcome"] == "completed"
    invariants.check(service)


def test_reports_on_many_jobs_finish_each_of_them_once(service: Session) -> None:
    jobs = [service.start(chunks=[{}] * 5)["id"] for _ in range(8)]
    batch = service.call("claim_chunk_jobs_safe", worker_id="w", batch_size=100, kinds=["plain"])
    assert len(batch) == 40
    answers = service.call("complete_chunk_jobs_safe", completions=reports(batch))
    assert {(a["outcome"], a["job_status"], a["remaining"]) for a in answers} == {
        ("completed", "completed", 0)
    }
    assert [service.progress(job)["status"] for job in jobs] == ["completed"] * 8
    assert service.rows("select distinct tests.finishes(id) as finishes from public.sync_jobs") == [
        {"finishes": 1}
    ]
    invariants.check(service)


def test_one_chunk_twice_in_a_batch_counts_once(service: Session) -> None:
    job = service.start(chunks=[{}, {}])["id"]
    chunk = service.claimed(job)
    answers = bulk(service, [chunk, chunk], [{"items_processed": 3}, {"items_processed": 3}])
    assert [answer["outcome"] for answer in answers] == ["completed", "completed"]
    progress = service.progress(job)
    assert (progress["completed_chunks"], progress["items_processed"]) == (1, 3)
    invariants.check(service)


def test_nothing_is_answered_with_nothing(service: Session) -> None:
    assert service.call("complete_chunk_jobs_safe", completions=[]) == []


@pytest.mark.parametrize("how", ["single", "bulk"])
def test_reports_of_a_cancelled_job(service: Session, how: str) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job)
    service.control("cancel_sync_job", job)
    answer = service.complete(chunk) if how == "single" else bulk(service, [chunk], [{}])[0]
    assert (answer["outcome"], answer["chunk_status"], answer["job_status"]) == (
        "cancelled",
        "cancelled",
        "cancelled",
    )


def test_a_paused_job_passes_no_slot_on(db: Database, service: Session) -> None:
    job = service.start(chunks=[{}] * 6, max_concurrency=2)["id"]
    chunks = [service.claimed(job), service.claimed(job)]
    service.control("pause_sync_job", job)
    answers = bulk(service, chunks, [{}, {"success": False}])
    assert [(a["outcome"], a["next"]) for a in answers] == [("completed", None), ("retrying", None)]
    invariants.check(service)
    service.control("resume_sync_job", job)
    invariants.check(service)
    assert service.drain(job) == 5


def test_a_call_carries_at_most_100_000_next_chunks(service: Session) -> None:
    job = service.start(chunks=[{}, {}])["id"]
    pages = [{"next_chunks": [{}] * 50_001}, {"next_chunks": [{}] * 50_000}]
    with refused("SC004", "completions"):
        bulk(service, [service.claimed(job), service.claimed(job)], pages)
    assert service.progress(job)["total_chunks"] == 2
    invariants.check(service)
