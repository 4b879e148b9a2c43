"""Names that are not there, and keys that may not: an error that says which there are, not an empty list."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import supabase_chunks as sc
from supabase_chunks._hints import hint, hints, in_a_command
from supabase_chunks._roles import SERVICE_ONLY
from tests.unit.wire import HEALTH, JOB, KEY, URL, outcomes, progress, rpc, table

if TYPE_CHECKING:
    from collections.abc import Callable

    import respx

KINDS = [{"kind": "custom"}, {"kind": "email"}]


def token(role: str) -> str:
    """A token of a role; nobody here looks at its signature."""
    claims = base64.urlsafe_b64encode(json.dumps({"role": role, "sub": "x"}).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJIUzI1NiJ9.{claims}.signature"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda client: client.jobs(status="complete"),
            "'complete': it is one of pending, running, paused, completed, failed, cancelled;"
            " did you mean 'completed'?",
        ),
        (
            lambda client: client.job(JOB).chunks(status="running"),
            "'running': it is one of pending, processing, completed, failed, cancelled",
        ),
    ],
)
async def test_a_state_that_is_none_is_refused_before_anything_is_sent(
    respx_mock: respx.MockRouter, call: Callable[[Any], Any], words: str
) -> None:
    for error in await outcomes(call):
        assert isinstance(error, sc.InvalidArgument)
        assert words in str(error)
        assert (error.code, error.details) == ("SC003", "status")
    assert not respx_mock.calls


async def test_chunks_of_a_job_that_is_not_there_are_no_empty_list(respx_mock: respx.MockRouter) -> None:
    table(respx_mock, "chunk_processing_queue").respond(json=[])
    rpc(respx_mock, "list_chunk_attempts").respond(json=[])
    jobs = table(respx_mock, "sync_jobs")
    reads: list[Callable[[Any], Any]] = [
        lambda client: client.job(JOB).chunks(),
        lambda client: client.job(JOB).results(),
        lambda client: client.job(JOB).timeline(),
        lambda client: client.job(JOB).throughput(),
        lambda client: client.job(JOB).attempts(),
    ]
    for read in reads:
        jobs.respond(json=[])
        for error in await outcomes(read):
            assert isinstance(error, sc.JobNotFound)
            assert JOB in str(error)
        jobs.respond(json=[{"id": JOB}])
        assert all(not len(getattr(found, "pieces", found)) for found in await outcomes(read))


async def test_rows_that_come_cost_no_other_request(respx_mock: respx.MockRouter) -> None:
    table(respx_mock, "chunk_processing_status").mock(
        side_effect=[httpx.Response(200, json=[progress()])] * 2
    )
    assert [len(found) for found in await outcomes(lambda client: client.jobs(kind="custom", limit=1))] == [
        1,
        1,
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("emial", "no sync kind is named 'emial'; did you mean 'email'?"),
        ("Custom", "did you mean 'custom'?"),
        ("orders", "there are custom, email; client.save_kind('orders') adds one"),
    ],
)
async def test_a_mistyped_kind_is_answered_with_the_nearest(
    respx_mock: respx.MockRouter, name: str, words: str
) -> None:
    unknown = {"code": "SC002", "message": f"no sync kind is named '{name}'"}
    for function in (
        "start_sync_job",
        "claim_next_chunk_job_safe",
        "claim_chunk_jobs_safe",
        "save_sync_state",
    ):
        rpc(respx_mock, function).respond(400, json=unknown)
    rpc(respx_mock, "get_sync_state").respond(text="null", content_type="application/json")
    table(respx_mock, "sync_kinds").respond(json=KINDS)
    table(respx_mock, "chunk_processing_status").respond(json=[])
    for call in (
        lambda client: client.trigger_sync(name),
        lambda client: client.queue.claim("w", kinds=["custom", name]),
        lambda client: client.queue.claim_batch("w", 5, kinds=[name]),
        lambda client: client.save_sync_state(name, "key", {}),
        lambda client: client.sync_state(name, "key"),
        lambda client: client.jobs(kind=name),
    ):
        for error in await outcomes(call):
            assert isinstance(error, sc.UnknownKind)
            assert words in str(error)


async def test_a_kind_that_is_there_but_not_for_users_keeps_the_databases_words(
    respx_mock: respx.MockRouter,
) -> None:
    words = "no sync kind is named 'email' that users may start"
    rpc(respx_mock, "start_sync_job").respond(400, json={"code": "SC002", "message": words})
    table(respx_mock, "sync_kinds").respond(json=KINDS)
    for error in await outcomes(lambda client: client.trigger_sync("email")):
        assert words in str(error)


CALLS: dict[str, Callable[[Any], Any]] = {
    "claim_next_chunk_job_safe": lambda client: client.queue.claim("w", kinds=["custom"]),
    "save_sync_kind": lambda client: client.save_kind("custom"),
    "remove_sync_kind": lambda client: client.remove_kind("custom"),
    "configure_chunk_processing": lambda client: client.configure(URL, KEY),
    "chunk_system_health": lambda client: client.health(),
    "cleanup_stuck_chunks": lambda client: client.cleanup_stuck_chunks(),
    "purge_sync_jobs": lambda client: client.purge(),
    "get_sync_state": lambda client: client.sync_state("custom", "key"),
    "a worker": lambda client: (sc.Worker if isinstance(client, sc.ChunksClient) else sc.AsyncWorker)(
        client, print, kinds=["custom"]
    ).run_until_idle(),
}


@pytest.mark.parametrize(
    ("key", "access_token", "given"),
    [
        ("sb_publishable_FOR-TESTS-ONLY", None, "a publishable one"),
        (token("anon"), None, "a publishable one"),
        (KEY, token("authenticated"), "a signed-in user"),
        ("sb_publishable_FOR-TESTS-ONLY", token("authenticated"), "a signed-in user"),
    ],
)
@pytest.mark.parametrize("what", CALLS)
async def test_a_key_that_may_not_is_known_before_anything_is_sent(
    respx_mock: respx.MockRouter, what: str, key: str, access_token: str | None, given: str
) -> None:
    def call(client: Any) -> Any:
        client._credentials._key, client._credentials._token = key, access_token
        return CALLS[what](client)

    for error in await outcomes(call):
        assert isinstance(error, sc.PermissionDenied)
        assert str(error).startswith(f"{what}: a secret key is needed (sb_secret_…")
        assert given in str(error)
        assert key not in str(error)
        assert not access_token or access_token not in str(error)
    assert not respx_mock.calls


@pytest.mark.parametrize(
    ("key", "access_token"),
    [
        (token("service_role"), None),
        ("sb_publishable_x", token("service_role")),
        ("eyJ.of.another-make", None),
    ],
)
async def test_whoever_may_or_might_is_let_through(
    respx_mock: respx.MockRouter, key: str, access_token: str | None
) -> None:
    assert "chunk_system_health" in SERVICE_ONLY
    rpc(respx_mock, "chunk_system_health").respond(json=HEALTH)
    with sc.ChunksClient(URL, key, access_token=access_token) as client:
        assert client.health().version


async def test_a_connection_that_fails_is_named_by_its_host(respx_mock: respx.MockRouter) -> None:
    route = rpc(respx_mock, "chunk_system_health")
    for failure, kind in (
        (httpx.ConnectError("refused"), sc.ConnectionFailed),
        (httpx.ReadTimeout("late"), sc.RequestTimeout),
    ):
        route.mock(side_effect=failure)
        for error in await outcomes(lambda client: client.health()):
            assert isinstance(error, kind)
            assert "abc.supabase.co" in str(error)
            assert "/rest/" not in str(error)
            assert KEY not in str(error)


def test_hints_are_in_the_words_of_who_reads_them() -> None:
    assert hint("job.resume()", "resume 6f2c") == "job.resume()"
    assert hints("job.resume()", "resume 6f2c") == "job.resume() or: supabase-chunks resume 6f2c"
    with in_a_command():
        assert hint("job.resume()", "resume 6f2c") == "supabase-chunks resume 6f2c"
        assert hints("job.resume()", "resume 6f2c") == "supabase-chunks resume 6f2c"
