"""Webhooks after an outage: breadth first, no more than can be under way, and further ones as they arrive."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from tests.sql import invariants
from tests.sql.cleanup.hooks import answer, configure, lose, sent
from tests.sql.database import Session

LATER = timedelta(minutes=10)


@pytest.fixture(autouse=True)
def _configured(service: Session) -> None:
    configure(service)


def outage(service: Session, admin: Session, jobs: int, chunks: int = 4) -> list[str]:
    """Jobs whose webhooks were all lost some time ago."""
    ids = [str(service.start("web", chunks=[{}] * chunks)["id"]) for _ in range(jobs)]
    lose(admin)
    service.pass_time(LATER)
    return ids


def by_job(bodies: list[Any]) -> Counter[str]:
    return Counter(body["parent_sync_job_id"] for body in bodies)


def test_every_job_gets_one_before_any_gets_a_second(service: Session, admin: Session) -> None:
    jobs = outage(service, admin, 20)
    service.cleanup()
    counts = by_job(sent(admin))
    assert set(counts) == set(jobs)
    assert sorted(counts.values()) == [1] * 8 + [2] * 12


def test_a_job_that_somebody_works_on_comes_after_the_others(service: Session, admin: Session) -> None:
    jobs = outage(service, admin, 33, chunks=2)
    busy = service.claimed(jobs[0], kinds=None)
    service.cleanup()
    assert set(by_job(sent(admin))) == set(jobs[1:])
    service.complete(busy)


def test_a_higher_priority_still_comes_first(service: Session, admin: Session) -> None:
    outage(service, admin, 30)
    urgent = [str(service.start("web", chunks=[{}] * 4, priority=1)["id"]) for _ in range(5)]
    lose(admin)
    service.pass_time(LATER)
    service.cleanup()
    assert {job: by_job(sent(admin))[job] for job in urgent} == dict.fromkeys(urgent, 4)


def test_the_first_ones_say_that_more_is_held_back(service: Session, admin: Session) -> None:
    outage(service, admin, 33, chunks=1)
    service.cleanup()
    assert sum(body.get("more") is True for body in sent(admin)) == 4
    lose(admin)


def test_none_says_so_when_nothing_is(service: Session, admin: Session) -> None:
    outage(service, admin, 32, chunks=1)
    service.cleanup()
    assert len(sent(admin)) == 32
    assert not any("more" in body for body in sent(admin))


def test_as_they_lead_to_claims_or_are_answered_further_ones_go_out(service: Session, admin: Session) -> None:
    outage(service, admin, 100, chunks=1)
    service.cleanup()
    service.cleanup()
    assert len(sent(admin)) == 32  # as many are under way
    for body in sent(admin)[:5]:
        service.claimed(body["parent_sync_job_id"], kinds=None)
    service.cleanup()
    assert len(sent(admin)) == 37
    answer(admin, status_code=200, content='{"claimed": false}')
    service.cleanup()
    assert len(sent(admin)) == 32
    assert not set(by_job(sent(admin))) & {
        str(row["job_id"]) for row in service.rows("select job_id from chunk_private.slots where claimed")
    }
    invariants.check(service)


def test_a_claim_is_heard_before_the_answer(service: Session, admin: Session) -> None:
    """Those that are known to have failed, often even, follow the first that arrives."""
    outage(service, admin, 40, chunks=1)
    for _ in range(6):
        service.cleanup()
        answer(admin, error_msg="Couldn't connect to server")
        service.cleanup()
        service.pass_time(timedelta(seconds=1))
    answer(admin, error_msg="Couldn't connect to server")
    service.cleanup()
    assert sent(admin) == []
    new = service.start("web", chunks=[{}])["id"]
    service.cleanup()
    assert len(sent(admin)) == 1
    service.claimed(new, kinds=None)
    service.cleanup()
    assert len(sent(admin)) == 1 + 32


def test_what_is_under_way_is_not_sent_twice_by_passes_at_once(service: Session, admin: Session) -> None:
    outage(service, admin, 100, chunks=1)
    for _ in range(8):
        service.cleanup()
    assert set(by_job(sent(admin)).values()) == {1}


# pg_net's tables are unlogged: after a crash they are empty, and its ids begin again.
BEGIN_AGAIN = "alter sequence net.http_request_queue_id_seq restart"


def outcomes(service: Session) -> list[tuple[int | None, str | None]]:
    found = service.rows("select status_code, error from chunk_private.dispatches order by id")
    return [(row["status_code"], row["error"]) for row in found]


def test_an_answer_counts_for_one_dispatch_though_two_have_its_id(service: Session, admin: Session) -> None:
    service.start("web", chunks=[{}])
    lose(admin)
    admin.execute(BEGIN_AGAIN)
    service.start("web", chunks=[{}])
    ids = service.rows("select count(distinct request_id) as n from chunk_private.dispatches")
    assert ids == [{"n": 1}]
    answer(admin, status_code=202)
    for _ in range(2):
        service.cleanup()
        assert outcomes(service)[:2] == [(None, "pg_net kept no answer"), (202, None)]


def test_after_a_restart_an_older_question_takes_no_newer_answer(service: Session, admin: Session) -> None:
    service.start("web", chunks=[{}])
    service.pass_time(timedelta(hours=1))
    # The last pass was on the server before.
    admin.execute("update chunk_private.watchdog set server_began = server_began - interval '1 day'")
    answer(admin, status_code=202)
    service.cleanup()
    assert outcomes(service)[0] == (None, "pg_net kept no answer")
    assert len(sent(admin)) == 1  # and it is sent again at once


def test_answers_are_found_without_reading_all_of_them(service: Session, admin: Session) -> None:
    admin.execute(
        "insert into net._http_response (id, status_code, timed_out, created)"
        " select -n, 200, false, now() - interval '3 hours' from generate_series(1, 20000) n"
    )
    admin.execute("analyze net._http_response")
    service.start("web", chunks=[{}] * 3)
    answer(admin, status_code=202)
    read = "select seq_tup_read from pg_stat_user_tables where relid = 'net._http_response'::regclass"
    admin.execute("select pg_stat_force_next_flush()")
    before = admin.value(read)
    service.cleanup()
    service.execute("select pg_stat_force_next_flush()")
    assert admin.value(read) == before
    assert outcomes(service) == [(202, None)] * 3
