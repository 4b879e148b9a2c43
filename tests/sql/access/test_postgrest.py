"""Each function called as each role, through the real PostgREST."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from supabase_chunks.local import LocalStack
from tests.sql.access.test_catalog import FOR_THE_SERVICE, FOR_USERS

NOBODY = str(uuid.UUID(int=1))
JOB = {"parent_sync_job_id": NOBODY}
CHUNK = {"chunk_id": 1, "claim_token": NOBODY}
# function → arguments with which the service gets an answer, and that answer's status
CALLS: dict[str, tuple[dict[str, Any], int]] = {
    "save_sync_kind": ({"kind": "api"}, 200),
    "remove_sync_kind": ({"kind": "nobody's"}, 200),
    "save_chunk_settings": ({"settings": {}}, 200),
    "configure_chunk_processing": (
        {"project_url": "http://a.example", "processor_key": "sb_secret_abcdefgh"},
        200,
    ),
    "start_sync_job": ({"kind": "email", "chunks": [{}]}, 200),
    "append_sync_chunks": (JOB | {"chunks": []}, 400),
    "claim_next_chunk_job_safe": ({"worker_id": "w", "kinds": ["custom"]}, 200),
    "claim_chunk_jobs_safe": ({"worker_id": "w", "batch_size": 2, "kinds": ["custom"]}, 200),
    "complete_chunk_job_safe": (CHUNK | {"chunk_id": 0}, 400),
    "complete_chunk_jobs_safe": ({"completions": []}, 200),
    "extend_chunk_lease": (CHUNK, 200),
    "extend_chunk_leases": ({"leases": []}, 200),
    "release_chunk_job": (CHUNK | {"chunk_id": 0}, 400),
    "trigger_next_chunk_processing": ({}, 200),
    "cleanup_stuck_chunks": ({}, 200),
    "get_sync_job_progress_safe": (JOB, 400),
    "list_chunk_attempts": (JOB, 200),
    "cancel_sync_job": (JOB, 400),
    "pause_sync_job": (JOB, 400),
    "resume_sync_job": (JOB, 400),
    "retry_failed_chunks": (JOB, 400),
    "purge_sync_jobs": ({}, 200),
    "get_sync_state": ({"kind": "custom", "job_key": "k"}, 200),
    "save_sync_state": ({"kind": "custom", "job_key": "k", "state": {}}, 200),
    "save_sync_limit": ({"key": "k", "max_concurrency": 2}, 200),
    "block_sync_limit": ({"key": "k", "seconds": 1}, 200),
    "pace_sync_limit": ({"key": "k"}, 200),
    "list_sync_limits": ({}, 200),
    "chunk_system_health": ({}, 200),
    "save_email_account": ({"name": "a", "host": "h.example", "username": "u", "password": "p"}, 200),
    "remove_email_account": ({"name": "a"}, 200),
    "get_email_account_secret": ({"account": "nobody's"}, 200),
    "plan_email_folder": ({"account_id": NOBODY, "folder": "f", "uidvalidity": 1, "present": []}, 200),
    "save_synced_emails": ({"account_id": NOBODY, "folder": "f", "uidvalidity": 1, "emails": []}, 200),
    "save_email_flags": ({"account_id": NOBODY, "folder": "f", "uidvalidity": 1, "emails": []}, 200),
    "save_email_folders": ({"account_id": NOBODY, "folders": [{"folder": "f"}]}, 200),
    "get_email_folder": ({"account_id": NOBODY, "folder": "f"}, 200),
    "update_email_folder": (
        {
            "account_id": NOBODY,
            "folder": "f",
            "uidvalidity": 1,
            "highestmodseq": "1",
            "present_count": 1,
            "changed": [],
            "vanished": [],
        },
        200,
    ),
    "begin_email_token": ({"account_id": NOBODY}, 200),
    "save_email_token": (
        {"account_id": NOBODY, "lease": NOBODY, "access_token": "t", "expires_in": 1},
        200,
    ),
    "refuse_email_token": ({"account_id": NOBODY, "lease": NOBODY}, 200),
    "renumber_email_folder": ({"account_id": NOBODY, "folder": "f", "uidvalidity": 2}, 200),
    "adopt_moved_emails": ({"account_id": NOBODY, "folder": "f", "uidvalidity": 1, "emails": []}, 200),
}
TABLES = (
    "sync_kinds",
    "sync_jobs",
    "chunk_processing_queue",
    "sync_states",
    "chunk_processing_status",
    "email_accounts",
    "synced_emails",
)
USER, OTHER = str(uuid.uuid4()), str(uuid.uuid4())


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    """A project without its functions."""
    with LocalStack(functions=None) as running:
        yield running


def as_role(stack: LocalStack, role: str) -> httpx.Client:
    """A client of the project's REST API."""
    key = stack.secret_key if role == "service_role" else stack.publishable_key
    headers = {"apikey": key}
    if role in (USER, OTHER):
        headers["Authorization"] = f"Bearer {stack.user_token(role)}"
    return httpx.Client(base_url=f"{stack.url}/rest/v1", headers=headers, timeout=20)


@pytest.fixture(scope="module")
def clients(stack: LocalStack) -> Iterator[dict[str, httpx.Client]]:
    """One a role."""
    made = {
        "anon": as_role(stack, "anon"),
        "user": as_role(stack, USER),
        "service_role": as_role(stack, "service_role"),
    }
    yield made
    for client in made.values():
        client.close()


def test_every_function_is_called() -> None:
    assert set(CALLS) == (FOR_USERS | FOR_THE_SERVICE) - {"enqueue_chunks_from_rows"}


@pytest.mark.parametrize("function", CALLS)
def test_a_function(clients: dict[str, httpx.Client], function: str) -> None:
    arguments, expected = CALLS[function]
    answers = {role: client.post(f"/rpc/{function}", json=arguments) for role, client in clients.items()}
    assert answers["service_role"].status_code == expected, answers["service_role"].text
    if expected == 400:
        assert answers["service_role"].json()["code"] == "SC001"
    assert answers["anon"].status_code == 401, answers["anon"].text
    assert answers["anon"].json()["code"] == "42501"
    if function in FOR_USERS:
        assert answers["user"].status_code == expected, answers["user"].text
    else:
        assert answers["user"].status_code == 403, answers["user"].text
        assert answers["user"].json()["code"] == "42501"


@pytest.mark.parametrize("table", TABLES)
def test_a_table(clients: dict[str, httpx.Client], table: str) -> None:
    read = {
        role: client.get(f"/{table}", params={"limit": 1}).status_code for role, client in clients.items()
    }
    assert read == {"anon": 401, "user": 200, "service_role": 200}
    user = clients["user"]
    writes = [
        user.post(f"/{table}", json={}),
        user.patch(f"/{table}", json={"kind": "x"}),
        user.delete(f"/{table}"),
    ]
    assert not any(answer.is_success for answer in writes)


def test_the_private_schema_is_not_exposed(clients: dict[str, httpx.Client]) -> None:
    answer = clients["service_role"].get("/slots", headers={"Accept-Profile": "chunk_private"})
    assert answer.status_code == 406


def test_a_user_reads_own_rows_only_and_embeds_them(
    stack: LocalStack, clients: dict[str, httpx.Client]
) -> None:
    started = (
        clients["user"].post("/rpc/start_sync_job", json={"kind": "email", "chunks": [{"mine": 1}]}).json()
    )
    clients["service_role"].post("/rpc/start_sync_job", json={"kind": "email", "chunks": [{}]})
    query = {"select": "id,chunk_processing_queue(payload)", "id": f"eq.{started['id']}"}
    assert clients["user"].get("/sync_jobs", params=query).json() == [
        {"id": started["id"], "chunk_processing_queue": [{"payload": {"mine": 1}}]}
    ]
    with as_role(stack, OTHER) as other:
        assert other.get("/sync_jobs").json() == []
        assert other.get("/chunk_processing_status").json() == []
        refused = other.post("/rpc/cancel_sync_job", json={"parent_sync_job_id": started["id"]})
        assert (refused.status_code, refused.json()["code"]) == (400, "SC001")
    seen = clients["user"].get("/chunk_processing_status").json()
    assert started["id"] in {row["parent_sync_job_id"] for row in seen}
    assert {row["owner_id"] for row in seen} == {USER}


def test_long_calls_fit_into_the_limits_of_the_roles(clients: dict[str, httpx.Client]) -> None:
    """A hundred thousand chunks are started and cancelled by one call each; the roles' own limit is eight seconds."""
    many = {"kind": "custom", "total_items": 100_000, "chunk_size": 1}
    started = clients["service_role"].post("/rpc/start_sync_job", json=many)
    assert started.status_code == 200, started.text
    cancelled = clients["service_role"].post(
        "/rpc/cancel_sync_job", json={"parent_sync_job_id": started.json()["id"]}
    )
    assert cancelled.status_code == 200, cancelled.text
    assert cancelled.json()["cancelled_chunks"] == 100_000
