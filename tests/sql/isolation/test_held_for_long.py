"""What a job needs is held for longer than a call may wait: the call changes nothing, and its repeat does all of it."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest

from tests.sql import invariants
from tests.sql.database import Database, Session, reports

# Of the roles that the API uses these have 8 s.
IMPATIENT = {"lock_timeout": "55P03", "statement_timeout": "57014"}
GATE = "select pg_advisory_xact_lock(uuid_hash_extended(%(job)s, 0))"
ROW = "select from public.chunk_processing_queue where parent_sync_job_id = %(job)s for update"
START = "select public.start_sync_job('plain', job_key => 'k')"
REQUEST = {"request_id": str(uuid.UUID(int=7))}
DONE = {"success": True, "result": 1}

# What is held, the call, and what it comes to: of the job, or of the report.
CALLS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "start": (
        START,
        "start_sync_job",
        {"kind": "plain", "job_key": "k", "chunks": [{}], **REQUEST},
        "pending",
    ),
    "append": (GATE, "append_sync_chunks", {"chunks": [{}], **REQUEST}, "running"),
    "append, its last": (GATE, "append_sync_chunks", {"chunks": [], "seal": True}, "running"),
    "cancel": (GATE, "cancel_sync_job", {}, "cancelled"),
    "cancel, a row": (ROW, "cancel_sync_job", {}, "cancelled"),
    "pause": (GATE, "pause_sync_job", {}, "paused"),
    "resume": (GATE, "resume_sync_job", {}, "running"),
    "retry": (GATE, "retry_failed_chunks", {}, "running"),
    "retry, a row": (ROW, "retry_failed_chunks", {}, "running"),
    "report": (GATE, "complete_chunk_job_safe", DONE, "completed"),
    "report, a row": (ROW, "complete_chunk_job_safe", DONE, "completed"),
    "report that adds": (GATE, "complete_chunk_job_safe", {"next_chunks": [{}]}, "completed"),
    "failure": (GATE, "complete_chunk_job_safe", {"success": False, "error": "broken"}, "retrying"),
    "reports": (GATE, "complete_chunk_jobs_safe", {}, "completed"),
    "reports, a row": (ROW, "complete_chunk_jobs_safe", {}, "completed"),
    "heartbeat": (GATE, "extend_chunk_lease", {}, "True"),
    "heartbeat, a row": (ROW, "extend_chunk_lease", {}, "True"),
    "giving back": (GATE, "release_chunk_job", {}, "released"),
}


@pytest.mark.parametrize("setting", IMPATIENT)
def test_a_call_that_cannot_wait_so_long_can_be_repeated(
    db: Database, service: Session, setting: str
) -> None:
    session, holder = db.connect(), db.connect(autocommit=False)
    for name, (lock, function, arguments, comes_to) in CALLS.items():
        # One chunk has failed, one is processing, one waits.
        job = service.start(chunks=[{}] * 3, max_retries=1, sealed=False, max_concurrency=2)["id"]
        service.fail(service.claimed(job), retryable=False)
        chunk = service.claimed(job)
        if function == "resume_sync_job":
            service.control("pause_sync_job", job)
        if function.startswith(("complete_chunk_job_", "extend", "release")):
            arguments = arguments | {"chunk_id": chunk["chunk_id"], "claim_token": chunk["claim_token"]}
        elif function == "complete_chunk_jobs_safe":
            arguments = {"completions": reports([chunk])}
        elif function != "start_sync_job":
            arguments = arguments | {"parent_sync_job_id": job}
        before = service.progress(job)
        holder.rows(lock.replace("%(job)s", f"'{job}'"))
        session.execute(f"set {setting} = '40ms'")
        with pytest.raises(psycopg.Error) as caught:
            session.call_rows(function, **arguments)
        assert caught.value.sqlstate == IMPATIENT[setting], name
        assert service.progress(job) == before, name
        holder.connection.rollback()
        session.execute(f"reset {setting}")
        answer = session.call(function, **arguments)
        answer = answer[0] if isinstance(answer, list) else answer
        assert str(answer.get("outcome", answer.get("status", answer.get("ok")))) == comes_to, name
        invariants.check(service)
        if service.progress(job)["status"] != "cancelled":
            service.control("cancel_sync_job", job)
