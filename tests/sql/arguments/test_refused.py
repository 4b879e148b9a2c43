"""Bad input: a clear error that names the argument, and nothing half-written."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.sql import invariants
from tests.sql.database import Session, refused

TOO_MANY: list[Any] = [{}] * 100_001
START: list[tuple[str, str, dict[str, Any]]] = [
    ("SC002", "kind", {"kind": "unheard-of"}),
    ("SC002", "kind", {"kind": None}),
    ("SC003", "chunks", {"chunks": {"not": "a list"}}),
    ("SC003", "chunks", {"chunks": [{}, 5]}),
    ("SC003", "chunks", {"chunks": [[{}]]}),
    ("SC003", "chunks", {"chunks": [None]}),
    ("SC004", "chunks", {"chunks": TOO_MANY}),
    ("SC003", "chunk_size", {"chunks": [{}], "chunk_size": 10}),
    ("SC003", "chunk_size", {"total_items": 10}),
    ("SC003", "total_items", {"chunk_size": 10}),
    ("SC003", "chunk_size", {"total_items": 10, "chunk_size": 0}),
    ("SC003", "chunk_size", {"total_items": 10, "chunk_size": -5}),
    ("SC003", "total_items", {"total_items": -1, "chunk_size": 10}),
    ("SC003", "total_items", {"total_items": 2**53, "chunk_size": 10}),
    ("SC004", "chunk_size", {"total_items": 100_001, "chunk_size": 1}),
    ("SC004", "chunk_size", {"total_items": 2**53 - 1, "chunk_size": 1}),
    ("SC003", "payload", {"payload": []}),
    ("SC003", "payload", {"payload": None}),
    ("SC003", "job_key", {"job_key": ""}),
    ("SC003", "job_key", {"job_key": "x" * 501}),
    ("SC003", "priority", {"priority": 4}),
    ("SC003", "priority", {"priority": -4}),
    ("SC003", "max_concurrency", {"max_concurrency": 0}),
    ("SC003", "max_concurrency", {"max_concurrency": 1001}),
    ("SC003", "max_retries", {"max_retries": -1}),
    ("SC003", "max_retries", {"max_retries": 101}),
]


def untouched(session: Session) -> None:
    """Nothing was written."""
    assert session.value("select count(*) from public.sync_jobs") == 0
    assert session.value("select count(*) from public.chunk_processing_queue") == 0


@pytest.mark.parametrize(("code", "argument", "arguments"), START, ids=lambda value: str(value)[:40])
def test_a_start(service: Session, code: str, argument: str, arguments: dict[str, Any]) -> None:
    with refused(code, argument):
        service.start(**arguments)
    untouched(service)


APPEND: list[tuple[str, str, dict[str, Any]]] = [
    ("SC003", "chunks", {"chunks": {}}),
    ("SC003", "chunks", {"chunks": [{}, True]}),
    ("SC004", "chunks", {"chunks": TOO_MANY}),
    ("SC003", "items_total", {"chunks": [{}], "items_total": -1}),
]


@pytest.mark.parametrize(("code", "argument", "arguments"), APPEND, ids=lambda value: str(value)[:40])
def test_an_append(service: Session, code: str, argument: str, arguments: dict[str, Any]) -> None:
    job = service.start(chunks=[{}], sealed=False)["id"]
    before = service.progress(job)
    with refused(code, argument):
        service.call("append_sync_chunks", parent_sync_job_id=job, **arguments)
    assert service.progress(job) | {"eta_seconds": None} == before | {"eta_seconds": None}


REPORT: list[tuple[str, str, dict[str, Any]]] = [
    ("SC003", "success", {"success": None}),
    ("SC003", "retry_after_seconds", {"success": False, "retry_after_seconds": -1}),
    ("SC003", "retry_after_seconds", {"success": False, "retry_after_seconds": 604_801}),
    ("SC003", "next_chunks", {"next_chunks": {"a": 1}}),
    ("SC003", "next_chunks", {"next_chunks": ["x", {}]}),
    ("SC004", "next_chunks", {"next_chunks": TOO_MANY}),
    ("SC003", "next_chunks", {"success": False, "next_chunks": [{}]}),
    ("SC003", "items_processed", {"items_processed": -1}),
    ("SC003", "items_processed", {"items_processed": 2**53}),
    ("SC003", "items_total", {"items_total": -1}),
]


@pytest.mark.parametrize(("code", "argument", "arguments"), REPORT, ids=lambda value: str(value)[:40])
def test_a_report_is_refused_and_can_be_corrected(
    service: Session, code: str, argument: str, arguments: dict[str, Any]
) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job)
    with refused(code, argument):
        service.complete(chunk, **arguments)
    invariants.check(service)
    assert service.complete(chunk)["outcome"] == "completed"


CLAIM: list[tuple[str, str, dict[str, Any]]] = [
    ("SC003", "worker_id", {"worker_id": None}),
    ("SC003", "worker_id", {"worker_id": ""}),
    ("SC003", "worker_id", {"worker_id": "x" * 201}),
    ("SC002", "kinds", {"kinds": ["plain", "unheard-of"]}),
    ("SC003", "lease_seconds", {"lease_seconds": 0}),
]


@pytest.mark.parametrize(("code", "argument", "arguments"), CLAIM, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("function", ["claim_next_chunk_job_safe", "claim_chunk_jobs_safe"])
def test_a_claim(
    service: Session, function: str, code: str, argument: str, arguments: dict[str, Any]
) -> None:
    service.start(chunks=[{}])
    size = {"batch_size": 1} if function == "claim_chunk_jobs_safe" else {}
    with refused(code, argument):
        service.call_rows(function, **({"worker_id": "w", "kinds": ["plain"]} | size | arguments))
    assert service.claim() is not None


@pytest.mark.parametrize("size", [0, -1, 101, None])
def test_the_size_of_a_batch(service: Session, size: int | None) -> None:
    with refused("SC003", "batch_size"):
        service.call("claim_chunk_jobs_safe", worker_id="w", batch_size=size)


KIND: list[tuple[str, dict[str, Any]]] = [
    ("kind", {"kind": ""}),
    ("kind", {"kind": "has space"}),
    ("kind", {"kind": None}),
    ("handler", {"handler": "../escape"}),
    ("max_concurrency", {"max_concurrency": 0}),
    ("max_retries", {"max_retries": -1}),
    ("lease_seconds", {"lease_seconds": 0}),
    ("retry_delay_seconds", {"retry_delay_seconds": -1}),
]


@pytest.mark.parametrize(("argument", "arguments"), KIND, ids=lambda value: str(value)[:40])
def test_a_kind(service: Session, argument: str, arguments: dict[str, Any]) -> None:
    before = service.rows("select k.* from public.sync_kinds k order by 1")
    with refused("SC003", argument):
        service.call("save_sync_kind", **({"kind": "fine"} | arguments))
    assert service.rows("select k.* from public.sync_kinds k order by 1") == before


@pytest.mark.parametrize("function", ["complete_chunk_job_safe", "release_chunk_job"])
@pytest.mark.parametrize("chunk_id", [999_999, None])
def test_a_report_on_no_chunk(service: Session, function: str, chunk_id: int | None) -> None:
    with refused("SC001"):
        service.call(function, chunk_id=chunk_id, claim_token=uuid.uuid4())


def test_unknown_jobs(service: Session) -> None:
    nobody = str(uuid.uuid4())
    with refused("SC001"):
        service.progress(nobody)
    with refused("SC001"):
        service.claim(nobody)
    with refused("SC001"):
        service.call("append_sync_chunks", parent_sync_job_id=nobody, chunks=[{}])


# The same in every run, since it is part of the trials' names.
NOBODYS_TOKEN = str(uuid.UUID(int=1))


@pytest.mark.parametrize(
    "leases",
    [
        {},
        ["text"],
        [5],
        [{"chunk_id": "x", "claim_token": NOBODYS_TOKEN}],
        [{"chunk_id": 1, "claim_token": "no uuid"}],
        [{"chunk_id": 1, "claim_token": NOBODYS_TOKEN, "items_processed": "many"}],
        [{"chunk_id": 1, "claim_token": NOBODYS_TOKEN}] * 1001,
    ],
    ids=lambda value: str(value)[:40],
)
def test_heartbeats(service: Session, leases: Any) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job)
    with pytest.raises(psycopg.Error) as caught:
        service.connection.execute("select public.extend_chunk_leases(%s::jsonb)", (json.dumps(leases),))
    assert caught.value.sqlstate in ("SC003", "SC004")
    assert caught.value.diag.message_detail == "leases"
    assert service.complete(chunk)["outcome"] == "completed"


@pytest.mark.parametrize("completions", [{}, None, [{}] * 1001], ids=["object", "null", "too many"])
def test_a_bulk_report_that_is_no_list(service: Session, completions: Any) -> None:
    with pytest.raises(psycopg.Error) as caught:
        service.connection.execute(
            "select public.complete_chunk_jobs_safe(%s::jsonb)", (json.dumps(completions),)
        )
    assert caught.value.sqlstate in ("SC003", "SC004")
    assert caught.value.diag.message_detail == "completions"


PURGE = [
    ("older_than", {"older_than": timedelta(seconds=-1)}),
    ("older_than", {"older_than": None}),
    ("batch_size", {"batch_size": 0}),
    ("batch_size", {"batch_size": -1}),
    ("batch_size", {"batch_size": None}),
]


@pytest.mark.parametrize(("argument", "arguments"), PURGE)
def test_a_purge(service: Session, argument: str, arguments: dict[str, Any]) -> None:
    service.start(chunks=[])
    with refused("SC003", argument):
        service.call("purge_sync_jobs", **arguments)


CONFIGURE = [
    ("project_url", {"project_url": "abc.supabase.co"}),
    ("project_url", {"project_url": None}),
    ("project_url", {"project_url": "https://user:hunter2@abc.supabase.co"}),
    ("project_url", {"project_url": "sb_secret_hunter2", "processor_key": "https://abc.supabase.co"}),
    ("processor_key", {"processor_key": "postgresql://postgres:hunter2@db.abc.supabase.co/postgres"}),
    ("project_url", {"project_url": "https://abc.supabase.co/functions/v1"}),
    ("processor_key", {"processor_key": ""}),
    ("processor_key", {"processor_key": None}),
    ("processor_key", {"processor_key": "sb_publishable_abcdefgh"}),
]


@pytest.mark.parametrize(("argument", "arguments"), CONFIGURE)
def test_a_configuration(service: Session, argument: str, arguments: dict[str, Any]) -> None:
    good = {"project_url": "https://abc.supabase.co", "processor_key": "sb_secret_abcdefgh"}
    with pytest.raises(psycopg.Error) as caught:
        service.call("configure_chunk_processing", **(good | arguments))
    assert caught.value.sqlstate == "SC003"
    assert caught.value.diag.message_detail == argument
    assert argument in str(caught.value)
    assert "hunter2" not in str(caught.value)
