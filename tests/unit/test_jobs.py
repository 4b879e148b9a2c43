"""Watching and waiting: what is given, when it ends, and what a person is told."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import BaseModel

import supabase_chunks as sc
from tests.unit.wire import JOB, KEY, URL, async_client, outcomes, progress, rpc, sync_client, table

if TYPE_CHECKING:
    import respx

FAST = 0.001


def series(mock: respx.MockRouter, *answers: Any) -> respx.Route:
    """Let the progress be these, one after the other, and the last for ever; once for each client."""
    cycle = [a if isinstance(a, httpx.Response | Exception) else httpx.Response(200, json=a) for a in answers]
    return rpc(mock, "get_sync_job_progress_safe").mock(side_effect=cycle * 2)


async def watched(client: Any, **options: Any) -> list[sc.Progress]:
    """Return everything that watching gives."""
    watch = client.job(JOB).watch(interval=FAST, **options)
    return [seen async for seen in watch] if hasattr(watch, "__aiter__") else list(watch)


async def through_both(**options: Any) -> list[list[sc.Progress]]:
    with sync_client() as client:
        first = await watched(client, **options)
    async with async_client() as aclient:
        return [first, await watched(aclient, **options)]


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
async def test_watch_gives_each_change_until_any_end(respx_mock: respx.MockRouter, end: str) -> None:
    series(
        respx_mock,
        progress("pending"),
        progress(completed_chunks=1, eta_seconds=9),
        progress(completed_chunks=1, eta_seconds=8),
        progress(completed_chunks=2),
        progress(end, completed_chunks=2),
    )
    for seen in await through_both():
        assert [(p.status, p.completed_chunks) for p in seen] == [
            ("pending", 0),
            ("running", 1),
            ("running", 2),
            (end, 2),
        ]


async def test_watch_survives_a_restart_of_the_server(respx_mock: respx.MockRouter) -> None:
    down = [
        httpx.ConnectError("refused"),
        httpx.Response(503),
        httpx.ReadTimeout("slow"),
        httpx.Response(502),
    ]
    series(respx_mock, progress(), *down, progress("completed"))
    for seen in await through_both():
        assert [p.status for p in seen] == ["running", "completed"]


async def test_an_expired_token_ends_the_watching(respx_mock: respx.MockRouter) -> None:
    expired = httpx.Response(401, json={"code": "PGRST303", "message": "JWT expired"})
    rpc(respx_mock, "get_sync_job_progress_safe").mock(
        side_effect=itertools.cycle([httpx.Response(200, json=progress()), expired])
    )
    for found in await outcomes(lambda client: client.job(JOB).wait(interval=FAST)):
        assert isinstance(found, sc.AuthenticationError)


async def test_wait_returns_the_last_progress(respx_mock: respx.MockRouter) -> None:
    series(respx_mock, progress(), progress("completed", completed_chunks=4))
    for found in await outcomes(lambda client: client.job(JOB).wait(interval=FAST)):
        assert found.completed_chunks == 4


async def test_wait_raises_job_failed_with_the_counts_and_the_first_errors(
    respx_mock: respx.MockRouter,
) -> None:
    rpc(respx_mock, "get_sync_job_progress_safe").respond(
        json=progress("failed", failed_chunks=7, completed_chunks=3, total_chunks=10)
    )
    rows = [
        {
            "id": n,
            "parent_sync_job_id": JOB,
            "kind": "custom",
            "chunk_index": n,
            "status": "failed",
            "error": f"e{n}",
        }
        for n in range(5)
    ]
    table(respx_mock, "chunk_processing_queue").respond(json=rows)
    for found in await outcomes(lambda client: client.job(JOB).wait()):
        assert isinstance(found, sc.JobFailed)
        assert found.progress is not None
        assert [chunk.error for chunk in found.errors] == ["e0", "e1", "e2", "e3", "e4"]
        assert "7 of 10 chunks failed (3 completed)" in str(found)
        assert "chunk 4: e4" in str(found)
        assert "2 more" in str(found)
    quiet = await outcomes(lambda client: client.job(JOB).wait(raise_on_failure=False))
    assert [p.status for p in quiet] == ["failed", "failed"]


async def test_wait_raises_job_cancelled(respx_mock: respx.MockRouter) -> None:
    rpc(respx_mock, "get_sync_job_progress_safe").respond(json=progress("cancelled", cancelled_chunks=4))
    for found in await outcomes(lambda client: client.job(JOB).wait()):
        assert isinstance(found, sc.JobCancelled)


@pytest.mark.parametrize("server", ["slow job", "down"])
async def test_wait_keeps_its_timeout_and_leaves_the_job_alone(
    respx_mock: respx.MockRouter, server: str
) -> None:
    route = rpc(respx_mock, "get_sync_job_progress_safe")
    if server == "down":
        route.mock(side_effect=httpx.ConnectError("refused"))
    else:
        route.respond(json=progress())
    start = time.monotonic()
    for found in await outcomes(lambda client: client.job(JOB).wait(timeout=0.5)):
        assert isinstance(found, sc.WaitTimeout)
        assert isinstance(found, TimeoutError)
        assert JOB in str(found)
    assert 0.95 <= time.monotonic() - start < 1.3
    assert {call.request.url.path.rpartition("/")[2] for call in respx_mock.calls} == {
        "get_sync_job_progress_safe"
    }


def test_ctrl_c_leaves_the_job_alone_and_says_how_to_find_it(
    respx_mock: respx.MockRouter, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal seen
        seen += 1
        if seen > 1:
            raise KeyboardInterrupt
        return httpx.Response(200, json=progress())

    rpc(respx_mock, "get_sync_job_progress_safe").mock(side_effect=answer)
    with sync_client() as client, pytest.raises(KeyboardInterrupt):
        client.job(JOB).wait(interval=FAST)
    assert f"supabase-chunks watch {JOB}" in capsys.readouterr().err


async def test_wait_says_that_a_job_is_paused_or_stalled(
    respx_mock: respx.MockRouter, capsys: pytest.CaptureFixture[str]
) -> None:
    series(
        respx_mock,
        progress("paused"),
        progress("running", stalled=True, stalled_reason="nobody seals it"),
        progress("completed"),
    )
    await outcomes(lambda client: client.job(JOB).wait(interval=FAST, progress=True))
    said = capsys.readouterr().err
    assert said.count(f"client.job('{JOB}').resume()") == 2
    assert said.count("nobody seals it") == 2


@pytest.mark.parametrize(
    ("handler", "words"), [(None, "no handler"), ("sync-emails", "background-sync-processor")]
)
async def test_wait_says_when_nobody_works_on_the_job(
    respx_mock: respx.MockRouter,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    handler: str | None,
    words: str,
) -> None:
    monkeypatch.setattr("supabase_chunks._wait._UNCLAIMED_AFTER", 0.0)
    waiting = progress("pending", pending_chunks=4)
    series(respx_mock, waiting, waiting, waiting, progress("completed"))
    table(respx_mock, "sync_kinds").respond(json=[{"kind": "custom", "handler": handler}])
    await outcomes(lambda client: client.job(JOB).wait(interval=FAST, progress=True))
    assert capsys.readouterr().err.count(words) == 2


async def test_a_function_gets_each_snapshot(respx_mock: respx.MockRouter) -> None:
    series(respx_mock, progress(), progress("completed"))
    seen: list[str] = []
    await outcomes(
        lambda client: client.job(JOB).wait(interval=FAST, progress=lambda p: seen.append(p.status))
    )
    assert seen == ["running", "completed"] * 2


async def test_the_steering_calls_go_to_their_functions(respx_mock: respx.MockRouter) -> None:
    for function, method in (
        ("cancel_sync_job", "cancel"),
        ("pause_sync_job", "pause"),
        ("resume_sync_job", "resume"),
        ("retry_failed_chunks", "retry_failed"),
    ):
        route = rpc(respx_mock, function).respond(json=progress())
        for found in await outcomes(lambda client, name=method: getattr(client.job(JOB), name)()):
            assert isinstance(found, sc.Progress)
        assert route.call_count == 2


class Row(BaseModel):
    rows: int


async def test_results_come_in_order_as_json_or_as_a_model(respx_mock: respx.MockRouter) -> None:
    rows = [
        {"id": n, "parent_sync_job_id": JOB, "kind": "custom", "chunk_index": n, "status": "completed",
         "result": {"rows": n}, "started_at": "2026-01-01T00:00:00Z",
         "completed_at": f"2026-01-01T00:00:0{n}Z"}
        for n in range(3)
    ]  # fmt: skip
    table(respx_mock, "chunk_processing_queue").mock(
        side_effect=lambda r: httpx.Response(200, json=[] if "chunk_index" in r.url.params else rows)
    )
    assert await outcomes(lambda c: c.job(JOB).results()) == [[{"rows": 0}, {"rows": 1}, {"rows": 2}]] * 2
    assert await outcomes(lambda c: c.job(JOB).results(model=Row)) == [[Row(rows=n) for n in range(3)]] * 2
    for found in await outcomes(lambda c: c.job(JOB).results(model=int)):
        assert isinstance(found, sc.UnexpectedResponse)
    rpc(respx_mock, "list_chunk_attempts").respond(json=[])
    for timeline in await outcomes(lambda c: c.job(JOB).timeline()):
        assert [span.seconds for span in timeline] == [0.0, 1.0, 2.0]
        assert "completed, 2.00 s" in str(timeline)
        assert "<div" in timeline._repr_html_()


async def test_chunks_become_a_pandas_frame(respx_mock: respx.MockRouter) -> None:
    pytest.importorskip("pandas")
    table(respx_mock, "chunk_processing_queue").respond(json=[])
    table(respx_mock, "sync_jobs").respond(json=[{"id": JOB}])
    for frame in await outcomes(lambda c: c.job(JOB).to_pandas()):
        assert list(frame.columns)[:2] == ["id", "parent_sync_job_id"]


def test_a_job_shows_itself_without_a_request() -> None:
    client = sc.ChunksClient(URL, KEY)
    job = client.job(JOB)
    assert JOB in repr(job)
    assert JOB in job._repr_html_()
    job.snapshot = sc.Progress.model_validate(progress(kind="<b>"))
    assert "&lt;b&gt;" in job._repr_html_()
    assert "0 of 4 chunks completed" in repr(job)


def test_an_id_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(sc.PayloadError, match="id: 'x' is not a UUID"):
        sc.ChunksClient(URL, KEY).job("x")
