"""Webhooks that failed: known within one pass, sent again soon, not hammered, never in the way of a write."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.sql import invariants
from tests.sql.cleanup.hooks import answer, configure, lose, sent
from tests.sql.database import Session

HALF_A_MINUTE = timedelta(seconds=30)
REFUSED = {"error_msg": "Couldn't connect to server"}
# What an answer of pg_net looks like, and how it reads afterwards.
FAILURES: list[tuple[dict[str, Any], str]] = [
    (REFUSED, "Couldn't connect to server"),
    ({"error_msg": "Couldn't resolve host name"}, "Couldn't resolve host name"),
    ({"timed_out": True, "error_msg": "Timeout of 10000 ms reached"}, "Timeout of 10000 ms reached"),
    ({"timed_out": True}, "no answer in time"),
    ({"status_code": 401, "content": "no"}, "HTTP 401: no"),
    ({"status_code": 404, "content": "Function not found"}, "HTTP 404: Function not found"),
    ({"status_code": 301, "content": ""}, "HTTP 301: "),
    ({"status_code": 503}, "HTTP 503: "),
]


@pytest.fixture
def waiting(service: Session) -> str:
    """A job whose first webhook is in pg_net's queue."""
    configure(service)
    return str(service.start("web", chunks=[{}] * 2, max_concurrency=1)["id"])


@pytest.mark.parametrize(("outcome", "words"), FAILURES)
def test_a_failure_shows_within_one_pass_and_is_sent_again_in_it(
    service: Session, admin: Session, waiting: str, outcome: dict[str, Any], words: str
) -> None:
    answer(admin, **outcome)
    assert service.progress(waiting)["stalled"] is False
    service.cleanup()
    progress = service.progress(waiting)
    assert (progress["stalled"], progress["stalled_reason"]) == (True, f"webhook failed: {words}")
    (row,) = service.rows("select v.stalled_reason from public.chunk_processing_status v")
    assert row["stalled_reason"] == progress["stalled_reason"]
    health = service.call("chunk_system_health")
    assert health["stalled_jobs"][0]["reason"] == progress["stalled_reason"]
    assert [row["error"] for row in health["last_dispatches"]] == [None, words]
    assert len(sent(admin)) == 1


def test_a_claim_ends_the_complaint(service: Session, admin: Session, waiting: str) -> None:
    answer(admin, **REFUSED)
    service.cleanup()
    service.claimed(waiting, kinds=None)
    assert service.progress(waiting)["stalled"] is False


def test_a_dead_address_is_not_hammered_nor_forgotten(service: Session, admin: Session, waiting: str) -> None:
    moments = []
    for half_minute in range(1, 61):
        answer(admin, **REFUSED)
        service.pass_time(HALF_A_MINUTE)
        service.cleanup()
        if sent(admin):
            moments.append(half_minute)
    # At once, then less and less often, at last every five minutes.
    assert moments[:6] == [1, 2, 3, 5, 8, 14]
    assert {later - sooner for sooner, later in pairwise(moments[5:])} <= {10, 11}
    invariants.check(service)


def test_passes_in_quick_succession_send_no_more(service: Session, admin: Session, waiting: str) -> None:
    requests = 0
    for _ in range(20):
        requests += answer(admin, **REFUSED)
        service.pass_time(timedelta(seconds=1))
        service.cleanup()
    assert requests == 3


def test_when_one_goes_well_the_others_follow(service: Session, admin: Session) -> None:
    configure(service)
    jobs = {service.start("web", chunks=[{}])["id"] for _ in range(5)}
    for _ in range(14):
        answer(admin, **REFUSED)
        service.pass_time(HALF_A_MINUTE)
        service.cleanup()
    answer(admin, **REFUSED)
    service.pass_time(HALF_A_MINUTE)
    service.cleanup()
    assert sent(admin) == []
    # The server is back: the next webhook, of a new job, is answered.
    new = service.start("web", chunks=[{}])["id"]
    answer(admin, status_code=202)
    service.cleanup()
    assert {body["parent_sync_job_id"] for body in sent(admin)} == jobs
    service.claimed(new, kinds=None)
    invariants.check(service)


def test_a_failed_webhook_of_a_chunk_that_was_claimed_is_not_sent_again(
    service: Session, admin: Session, waiting: str
) -> None:
    answer(admin, timed_out=True)
    service.claimed(waiting, kinds=None)
    service.pass_time(HALF_A_MINUTE)
    service.cleanup()
    assert sent(admin) == []


def test_what_waited_for_the_configuration_goes_on_with_it(service: Session, admin: Session) -> None:
    job = service.start("web", chunks=[{}] * 2, max_concurrency=1)["id"]
    assert "not configured" in service.progress(job)["stalled_reason"]
    assert sent(admin) == []
    configure(service)
    assert [body["parent_sync_job_id"] for body in sent(admin)] == [job]


def test_an_answer_that_was_forgotten_is_no_answer(service: Session, admin: Session, waiting: str) -> None:
    lose(admin)
    service.pass_time(timedelta(minutes=6))
    service.cleanup()
    assert service.progress(waiting)["stalled_reason"] == "webhook failed: pg_net kept no answer"


# postgres, which owns our functions, has the rights of the API's roles too.
ALL = "public, postgres, anon, authenticated, service_role"
BREAKAGES = {
    "it raises": (
        "create or replace function net.http_post("
        "url text, body jsonb default '{}', params jsonb default '{}', headers jsonb default '{}',"
        " timeout_milliseconds int default 5000) returns bigint language plpgsql"
        " as $$ begin raise exception 'the disk is full'; end $$",
        "the disk is full",
    ),
    "it is gone": ("drop schema net cascade", "the extension pg_net is not installed"),
    "its function is gone": ("drop function net.http_post", "the extension pg_net is not installed"),
    "its queue is gone": ("drop table net.http_request_queue", "http_request_queue"),
    "its function is closed": (
        f"revoke all on all functions in schema net from {ALL}",
        "permission denied for function http_post",
    ),
    "its queue is closed": (
        f"revoke all on all tables in schema net from {ALL}",
        "permission denied for table http_request_queue",
    ),
    "its answers are gone": ("drop table net._http_response", "no webhook has led to a claim"),
    "the Vault is gone": ("drop schema vault cascade", "the Vault cannot be read"),
    "the Vault has no view": ("drop view vault.decrypted_secrets cascade", "the Vault cannot be read"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_nothing_of_pg_net_or_the_vault_aborts_a_write(
    service: Session, admin: Session, breakage: str
) -> None:
    configure(service)
    statement, words = BREAKAGES[breakage]
    admin.execute(statement)
    job = service.start("web", chunks=[{}] * 6, max_concurrency=2)["id"]
    first = service.claimed(job, kinds=None)
    assert service.complete(first)["outcome"] == "completed"
    assert service.fail(service.claimed(job, kinds=None))["outcome"] == "retrying"
    assert service.give_back(service.claimed(job, kinds=None))["outcome"] == "released"
    service.call(
        "append_sync_chunks", parent_sync_job_id=service.start("web", sealed=False)["id"], chunks=[{}]
    )
    service.control("pause_sync_job", job)
    service.control("resume_sync_job", job)
    service.call("trigger_next_chunk_processing", parent_sync_job_id=job)
    service.pass_time(timedelta(minutes=2))
    service.cleanup()
    progress = service.progress(job)
    assert progress["stalled"] is True
    assert words in progress["stalled_reason"]
    health = service.call("chunk_system_health")
    assert {stalled["id"] for stalled in health["stalled_jobs"]} >= {job}
    while (chunk := service.claim(job, kinds=None)) is not None:
        service.complete(chunk)
    assert service.progress(job)["status"] == "completed"
    invariants.check(service)
