"""What a claim that finds nothing says to the API: when to ask again, if chunks wait for a place of their key."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.sql.database import Database, Session
from tests.sql.limit_keys.test_blocking import block
from tests.sql.limit_keys.test_places import limit, start

HEADER = "Chunks-Ask-Again-Ms"


@pytest.fixture
def api(db: Database) -> Session:
    """A connection whose calls are transactions of several statements, as the API's are."""
    return db.connect(autocommit=False)


def said(api: Session, job: str | None = None, kinds: tuple[str, ...] = ("plain",)) -> Any:
    """The headers that a claim has set; None when it has set none."""
    api.connection.rollback()
    batch = api.call(
        "claim_chunk_jobs_safe", worker_id="w", batch_size=5, parent_sync_job_id=job, kinds=list(kinds)
    )
    assert batch == []
    headers = api.value("select current_setting('response.headers', true)")
    api.connection.rollback()
    return json.loads(headers) if headers else None


def test_nothing_when_nothing_waits(service: Session, api: Session) -> None:
    assert said(api) is None
    limit(service, 1)
    start(service, 1)
    service.claimed()
    assert said(api) is None


@pytest.mark.parametrize("held", ["the same job", "another"])
def test_soon_while_a_chunk_waits_for_a_place(service: Session, api: Session, held: str) -> None:
    limit(service, 2)
    jobs = [start(service, 3), start(service, 3)]
    of = jobs if held == "another" else jobs[:1]
    for _ in range(2):
        service.claimed(of[0])
    assert said(api) == [{HEADER: "50"}]
    assert said(api, kinds=("private", "plain")) == [{HEADER: "50"}]
    assert said(api, kinds=("private",)) is None
    assert said(api, jobs[1]) == [{HEADER: "50"}]
    assert said(api, service.start("private")["id"]) is None


def test_the_end_of_a_block(service: Session, api: Session) -> None:
    limit(service, 1)
    start(service, 3)
    job = start(service, 3)
    block(service, 3600)
    for headers in (said(api), said(api, job)):
        assert 3_590_000 < int(headers[0][HEADER]) <= 3_600_000
    service.call("save_sync_limit", key="another", max_concurrency=1)
    for _ in range(2):
        service.start(chunks=[{}], limit_key="another")
    service.claimed()
    assert said(api) == [{HEADER: "50"}]


def test_headers_that_others_have_set_stay(service: Session, api: Session) -> None:
    limit(service, 1)
    start(service)
    start(service)
    service.claimed()
    api.execute("select set_config('response.headers', '[{\"X-Mine\": \"1\"}]', true)")
    assert api.call("claim_chunk_jobs_safe", worker_id="w", batch_size=5, kinds=["plain"]) == []
    headers = json.loads(api.value("select current_setting('response.headers')"))
    assert headers == [{"X-Mine": "1"}, {HEADER: "50"}]


def test_a_claim_that_finds_something_sets_none(service: Session, api: Session) -> None:
    limit(service, 1)
    start(service)
    start(service)
    assert len(api.call("claim_chunk_jobs_safe", worker_id="w", batch_size=5, kinds=["plain"])) == 1
    assert not api.value("select current_setting('response.headers', true)")
