"""Heartbeats: cheap, fenced, and bounded in what they may say."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from tests.sql import invariants
from tests.sql.database import Database, Session, refused
from tests.sql.threads import until


def test_a_heartbeat_renews_the_lease_for_its_own_length(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job, lease_seconds=40)
    service.pass_time(timedelta(seconds=30))
    beat = service.extend(chunk)
    assert beat["ok"] is True
    service.pass_time(timedelta(seconds=30))
    assert service.cleanup() == 0
    service.extend(chunk)
    service.pass_time(timedelta(seconds=41))
    assert service.cleanup() == 1


def test_a_heartbeat_may_ask_for_another_length_and_the_next_one_keeps_it(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job)
    service.extend(chunk, lease_seconds=5)
    left = service.value(
        "select extract(epoch from locked_until - updated_at) from public.chunk_processing_queue"
    )
    assert left == 5
    service.extend(chunk)
    service.pass_time(timedelta(seconds=6))
    assert service.cleanup() == 1


def test_a_lease_that_ran_out_but_was_not_taken_yet_can_be_saved(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job)
    service.pass_time(timedelta(minutes=11))
    assert service.extend(chunk)["ok"] is True
    assert service.cleanup() == 0


def test_the_wrong_token_changes_nothing(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job)
    before = service.chunks(job)
    beat = service.extend(chunk | {"claim_token": uuid.uuid4()}, items_processed=5)
    assert (beat["ok"], beat["cancel_requested"]) == (False, False)
    assert service.chunks(job) == before
    assert service.complete(chunk | {"claim_token": uuid.uuid4()})["outcome"] == "stale"
    assert service.chunks(job) == before


def test_many_at_once_are_answered_in_order(service: Session) -> None:
    jobs = [service.start(chunks=[{}] * 3)["id"] for _ in range(3)]
    chunks = [service.claimed(job) for job in jobs]
    service.control("cancel_sync_job", jobs[1])
    leases = [{"chunk_id": c["chunk_id"], "claim_token": str(c["claim_token"])} for c in reversed(chunks)]
    leases.append({"chunk_id": 999_999, "claim_token": str(uuid.uuid4())})
    answers = service.call("extend_chunk_leases", leases=leases)
    assert [(a["chunk_id"], a["ok"], a["cancel_requested"]) for a in answers] == [
        (chunks[2]["chunk_id"], True, False),
        (chunks[1]["chunk_id"], False, True),
        (chunks[0]["chunk_id"], True, False),
        (999_999, False, False),
    ]
    assert service.call("extend_chunk_leases", leases=[]) == []


@pytest.mark.measured
def test_heartbeats_touch_no_index(db: Database, service: Session, admin: Session) -> None:
    job = service.start(chunks=[{}] * 20)["id"]
    chunks = [service.claimed(job) for _ in range(20)]
    numbers = (
        "select n_tup_upd as updates, n_tup_hot_upd as hot from pg_stat_all_tables"
        " where relid = 'public.chunk_processing_queue'::regclass"
    )
    admin.execute("vacuum public.chunk_processing_queue")
    admin.execute("set stats_fetch_consistency = none")
    beating = db.connect()
    (before,) = admin.rows(numbers)
    leases = [
        {"chunk_id": c["chunk_id"], "claim_token": str(c["claim_token"]), "items_processed": 1}
        for c in chunks
    ]
    for _ in range(50):
        beating.call("extend_chunk_leases", leases=leases)
    beating.connection.close()  # hands over its statistics
    until(lambda: admin.rows(numbers)[0]["updates"] - before["updates"] >= 1000)
    (after,) = admin.rows(numbers)
    updates, hot = after["updates"] - before["updates"], after["hot"] - before["hot"]
    assert hot >= 0.98 * updates, f"{hot} of {updates}"


def test_bad_lengths_are_refused(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job)
    for seconds in (0, -1, 86401):
        with refused("SC003", "lease_seconds"):
            service.extend(chunk, lease_seconds=seconds)
        with refused("SC003", "lease_seconds"):
            service.claim(job, lease_seconds=seconds)


def test_giving_back_costs_no_attempt_up_to_ten_times(service: Session) -> None:
    job = service.start(chunks=[{}], max_retries=0)["id"]
    for _ in range(10):
        chunk = service.claimed(job)
        assert chunk["attempt"] == 1
        assert service.give_back(chunk, reason="shutting down")["outcome"] == "released"
        invariants.check(service)
    assert service.give_back(service.claimed(job))["outcome"] == "failed"
    assert service.progress(job)["status"] == "failed"
    records = service.attempts(chunk["chunk_id"])
    assert [record["outcome"] for record in records] == ["released"] * 10 + ["failed"]
    assert records[0]["error"] == "shutting down"
    invariants.check(service)


def test_giving_back_twice_answers_the_same_and_frees_nothing_more(service: Session) -> None:
    job = service.start(chunks=[{}, {}], max_concurrency=1)["id"]
    chunk = service.claimed(job)
    assert service.give_back(chunk)["outcome"] == service.give_back(chunk)["outcome"] == "released"
    again = service.claimed(job)
    assert service.give_back(chunk)["outcome"] == "released"
    assert service.claim(job) is None
    assert service.complete(again)["outcome"] == "completed"
    invariants.check(service)


def test_a_heartbeat_that_says_nothing_of_items_keeps_what_was_said(service: Session) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job)
    service.extend(chunk, items_processed=5)
    service.extend(chunk)
    assert service.progress(job)["items_processed"] == 5
    service.complete(chunk)
    assert service.progress(job)["items_processed"] == 5


@pytest.mark.parametrize("items", [-1, 2**53])
def test_a_heartbeat_with_an_impossible_figure_is_refused(service: Session, items: int) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job)
    with refused("SC003", "items_processed"):
        service.extend(chunk, items_processed=items)
    assert service.progress(job)["items_processed"] == 0


def test_items_of_an_attempt_that_failed_or_was_given_back_are_not_counted(service: Session) -> None:
    service.call("save_sync_kind", kind="plain", retry_delay_seconds=0)
    job = service.start(chunks=[{}])["id"]
    for give_up in (service.fail, service.give_back):
        chunk = service.claimed(job)
        service.extend(chunk, items_processed=7)
        give_up(chunk)
        assert service.progress(job)["items_processed"] == 0
    last = service.claimed(job)
    assert service.progress(job)["items_processed"] == 0
    service.complete(last)
    assert service.progress(job)["items_processed"] == 0
