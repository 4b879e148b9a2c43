"""Transactions above read committed: refused by name where they would not be exact, and never half done."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.sql import invariants
from tests.sql.database import Database, Session, reports

ABOVE = ("repeatable read", "serializable")
JOB = {"parent_sync_job_id": str(uuid.UUID(int=1))}
CHUNK = {"chunk_id": 0, "claim_token": str(uuid.UUID(int=1))}
# Those that take the queue's locks, and whose name the refusal has when it is another's.
REFUSED: dict[str, dict[str, Any]] = {
    "claim_next_chunk_job_safe": {"worker_id": "w", "kinds": ["plain"]},
    "claim_chunk_jobs_safe": {"worker_id": "w", "batch_size": 2, "kinds": ["plain"]},
    "complete_chunk_job_safe": CHUNK,
    "complete_chunk_jobs_safe": {"completions": []},
    "extend_chunk_lease": CHUNK,
    "extend_chunk_leases": {"leases": []},
    "release_chunk_job": CHUNK,
    "start_sync_job": {"kind": "plain"},
    "append_sync_chunks": JOB | {"chunks": [{}]},
    "cancel_sync_job": JOB,
    "pause_sync_job": JOB,
    "resume_sync_job": JOB,
    "retry_failed_chunks": JOB,
    "trigger_next_chunk_processing": {},
    "cleanup_stuck_chunks": {},
    "purge_sync_jobs": {"older_than": timedelta(0)},
    "save_sync_limit": {"key": "k", "max_concurrency": 1},
    "block_sync_limit": {"key": "k", "seconds": 1},
    "save_chunk_settings": {"settings": {}},
    "configure_chunk_processing": {"project_url": "http://a.example", "processor_key": "sb_secret_abcdefgh"},
}
# Those that write single rows of tables without such locks: PostgreSQL itself keeps them exact, or raises 40001.
EXACT = {
    *("save_sync_kind", "remove_sync_kind", "save_sync_state", "save_email_account", "remove_email_account"),
    "pace_sync_limit",
    *("plan_email_folder", "save_synced_emails", "save_email_flags", "save_email_folders"),
    *("update_email_folder", "renumber_email_folder", "adopt_moved_emails"),
    *("begin_email_token", "save_email_token", "refuse_email_token"),
}


@pytest.mark.parametrize("level", ABOVE)
def test_whatever_takes_the_queues_locks_is_refused_by_name(
    db: Database, service: Session, level: str
) -> None:
    job = service.start(chunks=[{}] * 3)
    session = db.connect(settings=f"-c default_transaction_isolation={level.replace(' ', chr(92) + ' ')}")
    for function, arguments in REFUSED.items():
        with pytest.raises(psycopg.Error) as caught:
            session.call_rows(function, **arguments)
        error = caught.value.diag
        assert error.sqlstate == "SC005", function
        name = {"extend_chunk_lease": "extend_chunk_leases"}.get(function, function)
        assert str(error.message_primary).startswith(f"{name}() "), error.message_primary
        assert str(error.message_primary).endswith(level)
        assert "read committed" in str(error.message_hint)
    assert service.progress(job["id"]) == {k: v for k, v in job.items() if k != "created"}


def test_no_function_that_writes_is_forgotten(admin: Session) -> None:
    """The API begins a transaction as the function says, whatever its role's default is."""
    writing = admin.rows(
        "select p.proname, 'default_transaction_isolation=read committed' = any (p.proconfig) as says from pg_proc p"
        " where p.pronamespace = 'public'::regnamespace and p.provolatile = 'v' and p.prorettype <> 'trigger'::regtype"
    )
    assert {row["proname"] for row in writing} == {*REFUSED, *EXACT}
    assert [row["proname"] for row in writing if not row["says"]] == []


def test_the_levels_below_do(db: Database) -> None:
    session = db.connect(settings="-c default_transaction_isolation=read\\ uncommitted")
    job = session.start(chunks=[{}] * 3)["id"]
    session.cleanup()
    assert session.drain(job) == 3
    assert session.progress(job)["status"] == "completed"


@pytest.mark.parametrize("level", ABOVE)
def test_progress_may_be_read_at_any_level(db: Database, service: Session, level: str) -> None:
    job = service.start(chunks=[{}] * 2)["id"]
    session = db.connect(autocommit=False)
    session.execute(f"set transaction isolation level {level}")
    before = session.progress(job)
    service.drain(job)
    assert session.progress(job) == before
    session.connection.commit()
    assert session.progress(job)["status"] == "completed"


# A class of error → whether it is the item's own.
CODES = {"SC003": True, "SC004": True, "22003": True, "22P02": True} | dict.fromkeys(
    ("40001", "40P01", "55P03", "57014", "57P01", "53100", "53200", "25006", "XX000", "P0001"), False
)


@pytest.mark.parametrize("code", CODES)
def test_only_what_is_wrong_with_an_item_refuses_it(admin: Session, service: Session, code: str) -> None:
    """Whatever else happens while the list is read ends the call, to be repeated: no finished chunk has failed."""
    admin.execute(
        "create or replace function chunk_private.check_range(argument text, value bigint, lowest bigint, highest bigint)"
        f" returns void language plpgsql as $$ begin if value = 13 then raise exception using errcode = '{code}'; end if; end $$"
    )
    job = service.start(chunks=[{}] * 3)["id"]
    batch = [service.claimed(job) for _ in range(3)]
    completions = [{**report, "items_processed": 12 + n} for n, report in enumerate(reports(batch))]
    if CODES[code]:
        answers = service.call("complete_chunk_jobs_safe", completions=completions)
        assert [answer["outcome"] for answer in answers] == ["completed", "error", "completed"]
    else:
        with pytest.raises(psycopg.Error) as caught:
            service.call("complete_chunk_jobs_safe", completions=completions)
        assert caught.value.sqlstate == code
        assert service.progress(job)["processing_chunks"] == 3
    for report in reports(batch):
        service.call("complete_chunk_job_safe", **report)
    assert service.progress(job)["completed_chunks"] == 3
    invariants.check(service)
