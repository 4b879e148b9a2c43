"""An outdated report locks a chunk that is no longer its own, and waits for others: who has locks of its own may not wait for it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.sql import invariants
from tests.sql.database import Database, Row, Session, reports
from tests.sql.threads import until

Claim = Callable[[Session, Row], list[Row]]


def claim_a_batch(session: Session, _own: Row) -> list[Row]:
    claimed: list[Row] = session.call("claim_chunk_jobs_safe", worker_id="w", batch_size=5, kinds=["plain"])
    return claimed


def complete_and_claim(session: Session, own: Row) -> list[Row]:
    following = session.complete(own, claim_next=True)["next"]
    return [following] if following else []


@pytest.mark.parametrize("claim", [claim_a_batch, complete_and_claim])
def test_a_claim_does_not_wait_for_an_outdated_report(db: Database, service: Session, claim: Claim) -> None:
    job = service.start(chunks=[{}] * 3, max_concurrency=3)["id"]
    lost, busy, own = (service.claimed(job) for _ in range(3))
    failing, beating = db.connect(autocommit=False), db.connect(autocommit=False)
    reporting, claiming = db.connect(), db.connect(settings="-c statement_timeout=5s")
    failing.fail(lost, retry_after_seconds=0)
    beating.extend(busy)

    def waits_for(other: Session) -> Any:
        ours, theirs = reporting.connection.info.backend_pid, other.connection.info.backend_pid
        return until(lambda: service.value("select pg_blocking_pids(%s) = array[%s::int]", ours, theirs))

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(reporting.call, "complete_chunk_jobs_safe", completions=reports([lost, busy]))
        waits_for(failing)
        failing.connection.commit()
        waits_for(beating)
        try:
            assert claim(claiming, own) == []
        finally:
            beating.connection.commit()
        assert [answer["outcome"] for answer in late.result(10)] == ["retrying", "completed"]
    invariants.check(service)
    assert service.claimed(job)["chunk_id"] == lost["chunk_id"]
