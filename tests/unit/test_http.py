"""What goes over the wire, and what becomes of every sort of answer and failure: the same in both clients."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import supabase_chunks as sc
from supabase_chunks.errors import ResponseError
from tests.unit.wire import HEALTH, JOB, KEY, URL, async_client, body, outcomes, progress, rpc, sync_client

if TYPE_CHECKING:
    import respx


def health(client: Any) -> Any:
    return client.health()


async def test_a_new_key_goes_into_apikey_alone(respx_mock: respx.MockRouter) -> None:
    route = rpc(respx_mock, "chunk_system_health").respond(json=HEALTH)
    assert await outcomes(health) == [sc.Health(version="0.1.0", postgres="18.1")] * 2
    for call in route.calls:
        assert call.request.headers["apikey"] == KEY
        assert "authorization" not in call.request.headers


async def test_a_legacy_key_is_its_own_bearer_token(respx_mock: respx.MockRouter) -> None:
    route = rpc(respx_mock, "chunk_system_health").respond(json=HEALTH)
    with sc.ChunksClient(URL, "eyJ.legacy.key") as client:
        client.health()
    assert route.calls.last.request.headers["authorization"] == "Bearer eyJ.legacy.key"
    assert route.calls.last.request.headers["apikey"] == "eyJ.legacy.key"


async def test_the_users_token_is_asked_for_at_each_request(respx_mock: respx.MockRouter) -> None:
    route = rpc(respx_mock, "chunk_system_health").respond(json=HEALTH)
    tokens = iter(["one", "two", "three", "four"])
    with sync_client(access_token=lambda: next(tokens)) as client:
        client.health()
        client.health()

    async def token() -> str:
        return next(tokens)

    async with async_client(access_token=token) as aclient:
        await aclient.health()
        await aclient.as_user("mine").health()
    sent = [call.request.headers["authorization"] for call in route.calls]
    assert sent == ["Bearer one", "Bearer two", "Bearer three", "Bearer mine"]


def test_an_async_token_function_is_refused_by_the_sync_client(respx_mock: respx.MockRouter) -> None:
    async def token() -> str:
        return "x"

    with sync_client(access_token=token) as client, pytest.raises(sc.ConfigurationError, match="sync client"):
        client.health()


async def test_arguments_left_out_are_left_to_the_database(respx_mock: respx.MockRouter) -> None:
    route = rpc(respx_mock, "save_sync_kind").respond(json={"kind": "k"})
    await outcomes(lambda client: client.save_kind("k", max_retries=0))
    assert [body(call.request) for call in route.calls] == [{"kind": "k", "max_retries": 0}] * 2


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (400, {"code": "SC001", "message": "no job"}, sc.JobNotFound),
        (400, {"code": "SC002", "message": "no kind"}, sc.UnknownKind),
        (400, {"code": "SC003", "message": "bad"}, sc.InvalidArgument),
        (400, {"code": "SC004", "message": "much"}, sc.LimitExceeded),
        (400, {"code": "SC005", "message": "state"}, sc.InvalidState),
        (400, {"code": "SC006", "message": "set up"}, sc.NotConfigured),
        (500, {"code": "57014", "message": "canceling statement"}, sc.StatementTimeout),
        (500, {"code": "55P03", "message": "canceling statement"}, sc.StatementTimeout),
        (405, {"code": "25006", "message": "read-only"}, sc.DatabaseReadOnly),
        (401, {"code": "PGRST301", "message": "JWT expired"}, sc.AuthenticationError),
        (401, {"message": "Invalid API key"}, sc.AuthenticationError),
        (403, {"code": "42501", "message": "permission denied"}, sc.PermissionDenied),
        (404, {"code": "PGRST202", "message": "no function"}, sc.FunctionsNotInstalled),
        (404, {"code": "PGRST205", "message": "no table"}, sc.FunctionsNotInstalled),
        (404, {}, sc.NotFound),
        (413, {}, sc.RequestTooLarge),
        (429, {}, sc.RateLimited),
        (500, {}, sc.ServerError),
        (502, {}, sc.ServerUnavailable),
        (503, {}, sc.ServerUnavailable),
        (504, {}, sc.ServerUnavailable),
        (540, {}, sc.ServerError),
        (500, {"code": "57P01", "message": "terminating connection"}, sc.ServerUnavailable),
        (500, {"code": "40P01", "message": "deadlock detected"}, sc.ServerUnavailable),
        (418, {"code": "P0001", "message": "raised"}, ResponseError),
    ],
)
async def test_every_error_answer_has_its_class(
    respx_mock: respx.MockRouter, status: int, answer: dict[str, str], error: type[ResponseError]
) -> None:
    rpc(respx_mock, "chunk_system_health").respond(status, json=answer)
    for found in await outcomes(health):
        assert type(found) is error
        assert found.status == status
        assert found.code == answer.get("code")


async def test_an_html_error_page_keeps_its_status_and_retry_after(respx_mock: respx.MockRouter) -> None:
    page = "<html>Too many requests</html>"
    rpc(respx_mock, "chunk_system_health").respond(429, html=page, headers={"Retry-After": "3600"})
    for found in await outcomes(health):
        assert isinstance(found, sc.RateLimited)
        assert found.retry_after == 3600
        assert found.body == page


async def test_a_database_that_died_in_the_middle_is_asked_again(respx_mock: respx.MockRouter) -> None:
    died = httpx.Response(400, json={"code": "", "details": None, "hint": None, "message": ""})
    rpc(respx_mock, "chunk_system_health").mock(side_effect=[died, httpx.Response(200, json=HEALTH)] * 2)
    assert await outcomes(health) == [sc.Health.model_validate(HEALTH)] * 2


async def test_retry_after_may_be_a_date(respx_mock: respx.MockRouter) -> None:
    headers = {"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}
    rpc(respx_mock, "chunk_system_health").respond(503, headers=headers)
    for found in await outcomes(health):
        assert found.retry_after > 1e9


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, html="<html>Log in to the hotel's network</html>"),
        httpx.Response(200, content=b'{"cut": tr', headers={"content-type": "application/json"}),
        httpx.Response(200, content=b"", headers={"content-type": "application/json"}),
        httpx.Response(200, json=[1, 2]),
        httpx.Response(200, json="text"),
        httpx.Response(204),
    ],
    ids=["html", "cut", "empty", "list", "text", "no content"],
)
async def test_a_success_that_is_something_else_is_no_success(
    respx_mock: respx.MockRouter, answer: httpx.Response
) -> None:
    rpc(respx_mock, "chunk_system_health").mock(return_value=answer)
    for found in await outcomes(health):
        assert isinstance(found, sc.UnexpectedResponse)
        assert "chunk_system_health" in str(found)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (httpx.ConnectError("[Errno -2] Name or service not known"), sc.ConnectionFailed),
        (httpx.ConnectError("[Errno 111] Connection refused"), sc.ConnectionFailed),
        (httpx.ReadError("[Errno 104] Connection reset by peer"), sc.ConnectionFailed),
        (httpx.RemoteProtocolError("Server disconnected without sending a response."), sc.ConnectionFailed),
        (httpx.ProxyError("502"), sc.ConnectionFailed),
        (httpx.ConnectTimeout("timed out"), sc.RequestTimeout),
        (httpx.ReadTimeout("timed out"), sc.RequestTimeout),
        (httpx.PoolTimeout(""), sc.RequestTimeout),
        (httpx.DecodingError("not gzip"), sc.UnexpectedResponse),
    ],
)
async def test_every_network_failure_has_its_class(
    respx_mock: respx.MockRouter, failure: Exception, error: type[Exception]
) -> None:
    rpc(respx_mock, "chunk_system_health").mock(side_effect=failure)
    for found in await outcomes(health):
        assert type(found) is error
        assert found.__cause__ is None, "httpx's error holds the request and its key"
        assert found.__context__ is None, "so it may not hang on as a context either"


async def test_a_bad_certificate_is_not_tried_again(respx_mock: respx.MockRouter) -> None:
    failure = httpx.ConnectError(f"[SSL: CERTIFICATE_VERIFY_FAILED] {ssl.OPENSSL_VERSION}")
    route = rpc(respx_mock, "chunk_system_health").mock(side_effect=failure)
    for found in await outcomes(health):
        assert isinstance(found, sc.ConnectionFailed)
    assert route.call_count == 2


async def test_passing_failures_are_tried_again_with_the_same_request(respx_mock: respx.MockRouter) -> None:
    route = rpc(respx_mock, "start_sync_job").mock(
        side_effect=[
            httpx.ReadError("reset"),
            httpx.Response(503),
            httpx.Response(200, json=progress(created=True)),
        ]
        * 2
    )
    jobs = await outcomes(lambda client: client.trigger_sync("custom", chunks=[{"n": 1}]))
    assert [str(job.id) for job in jobs] == [JOB, JOB]
    requests = [body(call.request)["request_id"] for call in route.calls]
    assert len(requests) == 6
    assert len(set(requests[:3])) == 1, (
        "a repeated start carries the id of the first, so that it makes no second job"
    )
    assert requests[0] != requests[3]


async def test_what_is_missing_in_the_project_is_said_with_the_next_commands(
    respx_mock: respx.MockRouter,
) -> None:
    answer = {"code": "PGRST202", "message": "Could not find the function", "hint": "Perhaps you meant f"}
    rpc(respx_mock, "chunk_system_health").respond(404, json=answer)
    for found in await outcomes(health):
        for words in ("chunk_system_health", "supabase-chunks init", "db push --remote", "--yes", "CLI v2"):
            assert words in str(found)


async def test_an_http_client_of_the_users_is_used_and_left_open_and_as_it_was() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, json={**HEALTH, "server_address": request.headers["apikey"]}, request=request
        )

    given = httpx.Client(transport=httpx.MockTransport(answer))
    with sc.ChunksClient(URL, KEY, http_client=given) as client:
        assert client.health().server_address == KEY
    assert not given.is_closed
    assert "apikey" not in given.headers
    given.close()

    agiven = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    async with sc.AsyncChunksClient(URL, KEY, http_client=agiven) as aclient:
        assert (await aclient.health()).server_address == KEY
    assert not agiven.is_closed
    await agiven.aclose()


async def test_a_closed_client_says_so() -> None:
    client = sync_client()
    client.close()
    with pytest.raises(sc.ConfigurationError, match="closed"):
        client.health()
    aclient = async_client()
    await aclient.aclose()
    with pytest.raises(sc.ConfigurationError, match="closed"):
        await aclient.health()
