"""Webhooks: one a slot handed out, sent again when they led to nothing, never in the way of a write."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.sql import invariants
from tests.sql.cleanup.hooks import KEY, URL, configure, lose, sent
from tests.sql.database import Session, refused


@pytest.fixture(autouse=True)
def _configured(service: Session) -> None:
    configure(service)


def test_a_start_sends_one_webhook_for_each_released_chunk(service: Session, admin: Session) -> None:
    job = service.start("web", chunks=[{}] * 10, max_concurrency=3)["id"]
    ids = [row["id"] for row in service.chunks(job)[:3]]
    assert sent(admin) == [{"chunk_id": chunk_id, "parent_sync_job_id": job} for chunk_id in ids]
    (request,) = admin.rows(
        "select method, url, headers, timeout_milliseconds from net.http_request_queue limit 1"
    )
    assert request["method"] == "POST"
    assert request["url"] == f"{URL}/functions/v1/background-sync-processor"
    assert request["headers"]["apikey"] == KEY
    assert request["timeout_milliseconds"] > 0


def test_a_completion_sends_the_next_one(service: Session, admin: Session) -> None:
    job = service.start("web", chunks=[{}] * 3, max_concurrency=1)["id"]
    service.complete(service.claimed(job, kinds=None))
    assert [body["chunk_id"] for body in sent(admin)] == [row["id"] for row in service.chunks(job)[:2]]


def test_with_claim_next_no_webhook_is_sent(service: Session, admin: Session) -> None:
    job = service.start("web", chunks=[{}] * 3, max_concurrency=1)["id"]
    lose(admin)
    answer = service.complete(service.claimed(job, kinds=None), claim_next=True)
    assert answer["next"]["chunk_index"] == 1
    assert sent(admin) == []


def test_a_kind_without_handler_sends_nothing(service: Session, admin: Session) -> None:
    job = service.start(chunks=[{}] * 3)["id"]
    service.drain(job)
    service.pass_time(timedelta(hours=1))
    service.cleanup()
    assert service.call("trigger_next_chunk_processing") == 0
    assert sent(admin) == []


def test_a_lost_webhook_is_sent_again_at_doubling_intervals(service: Session, admin: Session) -> None:
    service.start("web", chunks=[{}])
    minute = timedelta(seconds=60)
    moments = []
    for half_minute in range(1, 40):
        lose(admin)
        service.pass_time(minute / 2)
        service.cleanup()
        if sent(admin):
            moments.append(half_minute)
    assert moments[:4] == [1, 3, 7, 15]
    invariants.check(service)


def test_a_webhook_that_is_on_its_way_is_not_sent_again(service: Session, admin: Session) -> None:
    service.start("web", chunks=[{}])
    service.pass_time(timedelta(seconds=5))
    service.cleanup()
    assert len(sent(admin)) == 1


def test_a_due_retry_gets_its_webhook_from_the_watchdog(service: Session, admin: Session) -> None:
    job = service.start("web", chunks=[{}])["id"]
    service.fail(service.claimed(job, kinds=None), retry_after_seconds=60)
    lose(admin)
    service.cleanup()
    assert sent(admin) == []
    service.pass_time(timedelta(seconds=61))
    service.cleanup()
    assert len(sent(admin)) == 1


def test_no_more_than_about_thirty_two_wait_in_pg_net(service: Session, admin: Session) -> None:
    for _ in range(30):
        service.start("web", chunks=[{}] * 4)
    lose(admin)
    for _ in range(5):
        service.pass_time(timedelta(minutes=10))
        service.cleanup()
        assert len(sent(admin)) <= 32
    assert len(sent(admin)) == 32
    invariants.check(service)


def test_trigger_sends_now_for_one_job_or_all(service: Session, admin: Session) -> None:
    one, two = (service.start("web", chunks=[{}] * 2)["id"] for _ in range(2))
    lose(admin)
    assert service.call("trigger_next_chunk_processing", parent_sync_job_id=one) == 2
    assert {body["parent_sync_job_id"] for body in sent(admin)} == {one}
    lose(admin)
    assert service.call("trigger_next_chunk_processing") == 4
    assert {body["parent_sync_job_id"] for body in sent(admin)} == {one, two}
    with refused("SC001"):
        service.call(
            "trigger_next_chunk_processing", parent_sync_job_id="00000000-0000-0000-0000-000000000000"
        )


def test_a_webhook_that_cannot_be_asked_for_breaks_nothing(service: Session, admin: Session) -> None:
    admin.execute("drop function net.http_post")
    admin.execute(
        "create function net.http_post(url text, body jsonb default '{}', params jsonb default '{}',"
        " headers jsonb default '{}', timeout_milliseconds int default 5000) returns bigint language plpgsql"
        " as $$ begin raise exception 'the disk is full'; end $$"
    )
    job = service.start("web", chunks=[{}] * 2, max_concurrency=1)["id"]
    assert service.complete(service.claimed(job, kinds=None))["outcome"] == "completed"
    progress = service.progress(job)
    assert progress["stalled"] is True
    assert "the disk is full" in progress["stalled_reason"]
    health = service.call("chunk_system_health")
    assert "the disk is full" in health["last_dispatches"][0]["error"]
    assert service.claim(job, kinds=None) is not None
    invariants.check(service)


def test_the_answers_of_the_webhooks_are_kept(service: Session, admin: Session) -> None:
    service.start("web", chunks=[{}] * 3)
    ids = [row["id"] for row in admin.rows("select id from net.http_request_queue order by id")]
    admin.execute("delete from net.http_request_queue")
    admin.execute(
        "insert into net._http_response (id, status_code, timed_out) values (%s, 202, false)", ids[0]
    )
    admin.execute(
        "insert into net._http_response (id, status_code, content, timed_out) values (%s, 401, 'no', false)",
        ids[1],
    )
    admin.execute(
        "insert into net._http_response (id, timed_out, error_msg) values (%s, true, 'too slow')", ids[2]
    )
    service.cleanup()
    found = service.rows(
        "select status_code, error from chunk_private.dispatches where answered_at is not null order by id"
    )
    assert found == [
        {"status_code": 202, "error": None},
        {"status_code": 401, "error": "HTTP 401: no"},
        {"status_code": None, "error": "too slow"},
    ]


def test_the_key_stands_in_the_vault_only(service: Session, admin: Session) -> None:
    service.start("web", chunks=[{}])
    assert admin.rows("select p.proname from pg_proc p where p.prosrc like '%%' || %s || '%%'", KEY) == []
    assert admin.rows("select command from cron.job where command like '%%' || %s || '%%'", KEY) == []
    assert KEY not in str(service.rows("select d.* from chunk_private.dispatches d"))
    assert KEY not in str(service.call("chunk_system_health"))


def test_a_retry_that_is_due_soon_gets_its_webhook_at_once(service: Session, admin: Session) -> None:
    job = service.start("web", chunks=[{}])["id"]
    chunk = service.claimed(job, kinds=None)
    lose(admin)
    service.fail(chunk, retry_after_seconds=20)
    (body,) = sent(admin)
    assert body == {"chunk_id": chunk["chunk_id"], "parent_sync_job_id": job, "wait_seconds": 20}
    assert service.claim(job, kinds=None) is None
    service.pass_time(timedelta(seconds=21))
    service.cleanup()
    assert len(sent(admin)) == 1
    assert service.claimed(job, kinds=None)["attempt"] == 2
    invariants.check(service)


def test_chunks_that_come_meanwhile_send_no_second_webhook_for_a_waiting_retry(
    service: Session, admin: Session
) -> None:
    job = service.start("web", chunks=[{}, {}], max_concurrency=4)["id"]
    first, second = (service.claimed(job, kinds=None) for _ in range(2))
    service.fail(first, retry_after_seconds=20)
    lose(admin)
    for _ in range(5):
        service.complete(second, next_chunks=[{}])
        second = service.claimed(job, kinds=None)
    assert [body["chunk_id"] for body in sent(admin)] == [row["id"] for row in service.chunks(job)[2:]]
    invariants.check(service)
