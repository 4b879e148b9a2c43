"""Workers beside a start that has not committed yet."""

from __future__ import annotations

import threading

from tests.sql import invariants
from tests.sql.database import Database, Session


def test_a_claim_beside_a_large_start_never_sees_the_job_half_made(db: Database, service: Session) -> None:
    started = threading.Event()
    answer = {}

    def start() -> None:
        session = db.connect()
        answer.update(session.start(chunks=[{"n": n} for n in range(5000)], job_key="big"))
        started.set()

    seen = set()
    starter = threading.Thread(target=start)
    starter.start()
    done = 0
    while not started.is_set() or done < 50:
        chunk = service.claim()
        if chunk is not None:
            answered = service.complete(chunk)
            done += 1
            assert answered["job_status"] == "running"
        for row in service.rows("select total_chunks, status from public.chunk_processing_status"):
            seen.add((row["total_chunks"], row["status"]))
    starter.join()
    assert {total for total, _ in seen} <= {5000}
    assert "completed" not in {status for _, status in seen}
    invariants.check(service)


def test_a_start_that_is_rolled_back_leaves_nothing(db: Database, service: Session) -> None:
    open_session = db.connect(autocommit=False)
    open_session.start(chunks=[{}] * 10)
    open_session.connection.rollback()
    for table in ("public.sync_jobs", "public.chunk_processing_queue", "chunk_private.job_counters"):
        assert service.value(f"select count(*) from {table}") == 0
