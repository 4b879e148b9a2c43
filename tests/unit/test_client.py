"""Setting up clients, starting syncs, and lists."""

from __future__ import annotations

import inspect
import logging
import re
import traceback
import uuid
from datetime import date, timedelta
from operator import methodcaller
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import supabase_chunks as sc
from supabase_chunks.email import AsyncEmail, Email
from supabase_chunks.queue import AsyncQueue, Queue
from tests.unit.wire import (
    HEALTH,
    JOB,
    KEY,
    URL,
    async_client,
    body,
    outcomes,
    progress,
    rpc,
    sync_client,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import respx

NAMES = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__"}


@pytest.mark.parametrize(
    ("sync", "asynchronous"),
    [
        (sc.ChunksClient, sc.AsyncChunksClient),
        (sc.Job, sc.AsyncJob),
        (Queue, AsyncQueue),
        (Email, AsyncEmail),
    ],
)
def test_both_clients_have_the_same_methods_with_the_same_parameters(sync: type, asynchronous: type) -> None:
    def signatures(cls: type) -> dict[str, list[tuple[str, Any, Any]]]:
        return {
            NAMES.get(name, name): [
                (parameter.name, parameter.kind, parameter.default)
                for parameter in inspect.signature(member).parameters.values()
            ]
            for name, member in inspect.getmembers(cls, callable)
            if name == "__init__" or not name.startswith("_")
        }

    assert signatures(sync) == signatures(asynchronous)


@pytest.mark.parametrize("key_name", ["SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_ROLE_KEY"])
def test_from_env_reads_url_and_key(monkeypatch: pytest.MonkeyPatch, key_name: str) -> None:
    for name in ("SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_ROLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SUPABASE_URL", URL)
    monkeypatch.setenv(key_name, KEY)
    for cls in (sc.ChunksClient, sc.AsyncChunksClient):
        assert repr(cls.from_env()) == f"<{cls.__name__} {URL}>"


def test_from_env_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SUPABASE_URL", "SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_ROLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(sc.ConfigurationError, match=r"SUPABASE_URL and SUPABASE_SECRET_KEY"):
        sc.ChunksClient.from_env()


@pytest.mark.parametrize("url", ["", "abc.supabase.co", "ftp://abc", "postgresql://localhost/x"])
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(sc.ConfigurationError, match="URL"):
        sc.ChunksClient(url, KEY)


@pytest.mark.parametrize("key", ["", "  ", "a b", "schlüssel", "line\nline"])
def test_a_key_that_cannot_be_one_is_refused_without_being_repeated(key: str) -> None:
    with pytest.raises(sc.ConfigurationError, match="the key") as caught:
        sc.ChunksClient(URL, key)
    assert key.strip() == "" or key not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "key", "words"),
    [
        ('"https://abc.supabase.co"', "sb_secret_hunter2", "the project's URL is in quotes"),
        ("https://abc.supabase.co", '"sb_secret_hunter2"', "the key is in quotes"),
        ("https://abc.supabase.co", "'sb_secret_hunter2'", "the key is in quotes"),
        ("https://abc.supabase.co", 'sb_secret_hunter2"', "the key is in quotes"),
        ("https://abc.supabase.co", 'sb_secret_"hunter2', "has characters that no key has"),
        ("sb_secret_hunter2", "https://abc.supabase.co", "are the two swapped?"),
        ("eyJhbGciOi.hunter2.x", "https://abc.supabase.co", "are the two swapped?"),
        ("https://abc.supabase.co", "https://hunter2", "the key is a URL; are the two swapped?"),
        ("postgresql://postgres:hunter2@db.abc.supabase.co/postgres", "sb_secret_x", "is the database's"),
        ("https://me:hunter2@abc.supabase.co", "sb_secret_x", "name or password in it"),
        ("https://hunter2:port", "sb_secret_x", "must look like"),
        ("https://[hunter2", "sb_secret_x", "must look like"),
        ("hunter2", "sb_secret_x", "must look like"),
    ],
)
def test_what_cannot_be_a_url_or_a_key_is_said_without_its_value(
    monkeypatch: pytest.MonkeyPatch, url: str, key: str, words: str
) -> None:
    monkeypatch.setenv("SUPABASE_URL", url)
    monkeypatch.setenv("SUPABASE_SECRET_KEY", key)
    for make in (sc.ChunksClient.from_env, sc.AsyncChunksClient.from_env):
        with pytest.raises(sc.ConfigurationError, match=re.escape(words)) as caught:
            make()
        assert "hunter2" not in str(caught.value)
        assert caught.value.__context__ is None


@pytest.mark.parametrize("url", [URL, URL + "/", URL + "/rest/v1/", f"  {URL}\n"])
def test_a_url_may_be_copied_with_its_trimmings(url: str) -> None:
    assert repr(sc.ChunksClient(url, KEY)) == f"<ChunksClient {URL}>"


async def test_only_one_of_two_clients_may_be_given_the_other_sort_of_supabase_client() -> None:
    import supabase

    sync, asynchronous = supabase.create_client(URL, KEY), await supabase.acreate_client(URL, KEY)
    sc.ChunksClient.from_supabase(sync)
    sc.AsyncChunksClient.from_supabase(asynchronous)
    with pytest.raises(TypeError, match="acreate_client"):
        sc.AsyncChunksClient.from_supabase(sync)  # type: ignore[arg-type]  # the very mistake
    with pytest.raises(TypeError, match="AsyncChunksClient"):
        sc.ChunksClient.from_supabase(asynchronous)  # type: ignore[arg-type]  # as above
    with pytest.raises(TypeError, match="not a client of supabase-py"):
        sc.ChunksClient.from_supabase(object())  # type: ignore[arg-type]  # as above


async def test_a_client_of_supabase_py_gives_the_token_of_the_moment(respx_mock: respx.MockRouter) -> None:
    import supabase

    route = rpc(respx_mock, "chunk_system_health").respond(json=HEALTH)
    theirs = supabase.create_client(URL, KEY)
    with sc.ChunksClient.from_supabase(theirs) as client:
        client.health()
        theirs.options.headers["Authorization"] = "Bearer users-own"
        client.health()
        theirs.auth.get_session = lambda: SimpleNamespace(access_token="fresh")  # type: ignore[assignment, return-value]  # a session
        client.health()
    sent = [call.request.headers.get("authorization") for call in route.calls]
    assert sent == [None, "Bearer users-own", "Bearer fresh"]


async def test_an_async_client_of_supabase_py_does_so_too(respx_mock: respx.MockRouter) -> None:
    import supabase

    route = rpc(respx_mock, "chunk_system_health").respond(json=HEALTH)
    theirs = await supabase.acreate_client(URL, KEY)
    async with sc.AsyncChunksClient.from_supabase(theirs) as client:
        theirs.options.headers["Authorization"] = "Bearer users-own"
        await client.health()
    assert route.calls.last.request.headers["authorization"] == "Bearer users-own"


def test_a_session_that_cannot_be_refreshed_is_an_authentication_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import supabase

    def get_session() -> None:
        raise ValueError("Invalid Refresh Token")

    theirs = supabase.create_client(URL, KEY)
    monkeypatch.setattr(theirs.auth, "get_session", get_session)
    with pytest.raises(sc.AuthenticationError, match="Invalid Refresh Token"):
        sc.ChunksClient.from_supabase(theirs).health()


async def test_a_sync_is_started_with_what_was_said(respx_mock: respx.MockRouter) -> None:
    route = rpc(respx_mock, "start_sync_job").respond(json=progress(created=True))
    owner = uuid.uuid4()
    jobs = await outcomes(
        lambda client: client.trigger_sync(
            "custom",
            total_items=100,
            chunk_size=10,
            payload={"day": date(2026, 1, 1)},
            job_key="k",
            priority=2,
            max_concurrency=4,
            max_retries=1,
            owner_id=str(owner),
        )
    )
    assert all(job.created and str(job.id) == JOB for job in jobs)
    sent = body(route.calls.last.request)
    uuid.UUID(sent.pop("request_id"))
    assert sent == {
        "kind": "custom",
        "total_items": 100,
        "chunk_size": 10,
        "payload": {"day": "2026-01-01"},
        "job_key": "k",
        "priority": 2,
        "max_concurrency": 4,
        "max_retries": 1,
        "owner_id": str(owner),
    }


async def test_a_long_list_goes_as_an_unsealed_job_and_pages_of_which_the_last_seals(
    respx_mock: respx.MockRouter,
) -> None:
    start = rpc(respx_mock, "start_sync_job").respond(json=progress(created=True))
    append = rpc(respx_mock, "append_sync_chunks").respond(json=progress())
    jobs = await outcomes(
        lambda client: client.trigger_sync("custom", chunks=({"n": n} for n in range(2500)))
    )
    assert all(job.created for job in jobs)
    assert [body(call.request)["sealed"] for call in start.calls] == [False, False]
    pages = [body(call.request) for call in append.calls][:2]
    assert [(len(page["chunks"]), page["seal"], page["parent_sync_job_id"]) for page in pages] == [
        (1000, False, JOB),
        (500, True, JOB),
    ]
    assert len({page["request_id"] for page in pages}) == 2


async def test_a_start_repeated_after_its_reply_was_lost_goes_on_with_its_pages(
    respx_mock: respx.MockRouter,
) -> None:
    reset, found = httpx.ReadError("reset"), httpx.Response(200, json=progress(created=False))
    start = rpc(respx_mock, "start_sync_job").mock(side_effect=[reset, found] * 2)
    jobs_table = table(respx_mock, "sync_jobs").respond(json=[{"id": JOB}])
    append = rpc(respx_mock, "append_sync_chunks").respond(json=progress())
    jobs = await outcomes(
        lambda client: client.trigger_sync("custom", chunks=[{"n": n} for n in range(1500)])
    )
    assert [job.created for job in jobs] == [True, True]
    assert append.call_count == 2
    asked = jobs_table.calls.last.request.url.params
    assert asked["request_id"] == f"eq.{body(start.calls.last.request)['request_id']}"


async def test_chunks_are_not_added_to_a_job_that_was_running_already(respx_mock: respx.MockRouter) -> None:
    rpc(respx_mock, "start_sync_job").respond(json=progress(created=False))
    table(respx_mock, "sync_jobs").respond(json=[])
    append = rpc(respx_mock, "append_sync_chunks").respond(json=progress())
    jobs = await outcomes(
        lambda client: client.trigger_sync("custom", job_key="k", chunks=[{"n": n} for n in range(2500)])
    )
    assert [job.created for job in jobs] == [False, False]
    assert not append.called


async def test_a_job_whose_chunks_cannot_all_be_given_is_cancelled(respx_mock: respx.MockRouter) -> None:
    rpc(respx_mock, "start_sync_job").respond(json=progress(created=True))
    cancel = rpc(respx_mock, "cancel_sync_job").respond(json=progress("cancelled"))

    def chunks() -> Iterator[dict[str, object]]:
        yield from ({"n": n} for n in range(1500))
        yield {"n": float("nan")}

    for found in await outcomes(lambda client: client.trigger_sync("custom", chunks=chunks())):
        assert isinstance(found, sc.PayloadError)
        assert found.path == "chunks[1500].n"
        assert JOB in found.__notes__[0]
    assert cancel.call_count == 2


async def test_nothing_is_sent_when_the_first_page_is_wrong(respx_mock: respx.MockRouter) -> None:
    for found in await outcomes(lambda client: client.trigger_sync("custom", chunks=[{"raw": b"x"}])):
        assert isinstance(found, sc.PayloadError)
    assert not respx_mock.calls


async def test_a_list_is_read_page_by_page_after_the_last_key(respx_mock: respx.MockRouter) -> None:
    rows = [
        {"id": n, "parent_sync_job_id": JOB, "kind": "custom", "chunk_index": n, "status": "failed",
         "error": "x"}
        for n in range(2500)
    ]  # fmt: skip

    def answer(request: httpx.Request) -> httpx.Response:
        asked = request.url.params
        after = int(asked["chunk_index"].removeprefix("gt.")) if "chunk_index" in asked else -1
        found = [row for row in rows if int(row["chunk_index"]) > after]
        return httpx.Response(200, json=found[: min(int(asked["limit"]), 1000)])

    route = table(respx_mock, "chunk_processing_queue").mock(side_effect=answer)
    for chunks in await outcomes(lambda client: client.job(JOB).chunks(status="failed")):
        assert [chunk.chunk_index for chunk in chunks] == list(range(2500))
    first = route.calls[0].request.url.params
    assert first["status"] == "eq.failed"
    assert first["parent_sync_job_id"] == f"eq.{JOB}"
    assert "claim_token" not in first["select"]


async def test_jobs_are_listed_with_their_progress_and_filtered(respx_mock: respx.MockRouter) -> None:
    row = {**progress("failed"), "parent_sync_job_id": JOB, "created_at": "2026-01-01T00:00:00+00:00"}
    route = table(respx_mock, "chunk_processing_status").mock(
        side_effect=lambda request: httpx.Response(200, json=[] if "or" in request.url.params else [row])
    )
    for jobs in await outcomes(lambda client: client.jobs(status="failed", kind="custom", job_key="a,b")):
        assert [(str(job.id), job.snapshot.status) for job in jobs] == [(JOB, "failed")]
    asked = route.calls[0].request.url.params
    assert (asked["status"], asked["kind"], asked["job_key"]) == ("eq.failed", "eq.custom", "eq.a,b")


async def test_an_accounts_password_is_sent_and_an_id_comes_back(respx_mock: respx.MockRouter) -> None:
    account = uuid.uuid4()
    route = rpc(respx_mock, "save_email_account").respond(json=str(account))
    found = await outcomes(
        lambda client: client.email.save_account("work", host="h", username="me", password="secret")
    )
    assert found == [account, account]
    assert body(route.calls.last.request) == {
        "name": "work",
        "host": "h",
        "username": "me",
        "password": "secret",
    }


async def test_cleanup_gives_the_interval_in_seconds(respx_mock: respx.MockRouter) -> None:
    route = rpc(respx_mock, "cleanup_stuck_chunks").respond(json=3)
    assert await outcomes(lambda client: client.cleanup_stuck_chunks(stuck_after=timedelta(minutes=5))) == [
        3,
        3,
    ]
    assert body(route.calls.last.request) == {"stuck_after": "300.0 seconds"}


async def test_no_error_log_or_repr_holds_a_key_or_a_token(
    respx_mock: respx.MockRouter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = "eyJ.users.token"
    echo = {"message": f"key {KEY} token {token}", "hint": f"Bearer {token}", "details": KEY}
    rpc(respx_mock, "chunk_system_health").respond(400, json=echo)
    rpc(respx_mock, "cleanup_stuck_chunks").mock(side_effect=httpx.ConnectError(f"bad header {KEY}"))
    rpc(respx_mock, "purge_sync_jobs").respond(200, html=f"<p>{KEY}{token}</p>")
    seen: list[str] = []
    for client in (sync_client(access_token=token), async_client(access_token=token)):
        seen += [repr(client), str(client), repr(client.job(JOB)), repr(client._credentials)]
    for call in ("health", "cleanup_stuck_chunks", "purge"):
        for error in await outcomes(methodcaller(call), access_token=token):
            assert isinstance(error, sc.ChunksError)
            seen += [str(error), repr(error), repr(vars(error))]
            own = error.__traceback__ and error.__traceback__.tb_next  # the caller's frame knows the key
            seen += traceback.TracebackException(type(error), error, own, capture_locals=True).format()
    seen += caplog.text.splitlines()
    for text in seen:
        assert KEY not in text
        assert token not in text


@pytest.mark.parametrize(
    ("name", "value"), [("kind", "cust\ud800om"), ("job_key", "work\ud800"), ("job_key", "a\x00b")]
)
def test_text_that_the_database_cannot_take_is_refused_by_its_name(name: str, value: str) -> None:
    arguments: dict[str, Any] = {"kind": "custom", name: value}
    with sync_client() as client, pytest.raises(sc.PayloadError, match=name):
        client.trigger_sync(arguments.pop("kind"), **arguments)
