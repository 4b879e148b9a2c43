"""Workers on the real stack: retries, following chunks, heartbeats, deaths and shutting down."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections import Counter
from datetime import date
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from pydantic import BaseModel, field_validator

import supabase_chunks as sc
from tests.contract.conftest import both, done, worker_for
from tests.polling import until

if TYPE_CHECKING:
    from supabase_chunks.local import LocalStack
    from tests.contract.proxy import Proxy


async def start(client: Any, kind: str, count: int, **options: Any) -> Any:
    return await done(client.trigger_sync(kind, chunks=[{"n": n} for n in range(count)], **options))


async def test_a_handler_that_fails_is_tried_again_and_then_given_up(client: Any, kind: str) -> None:
    attempts: list[tuple[int, int]] = []

    def handler(chunk: sc.Chunk) -> None:
        attempts.append((chunk.attempt, chunk.max_attempts))
        raise ValueError("no\x00 luck")

    job = await start(client, kind, 1, max_retries=2)
    await done(worker_for(client, handler, kinds=[kind]).run_until_idle())
    assert attempts == [(1, 3), (2, 3), (3, 3)]
    (chunk,) = await done(job.chunks())
    assert chunk.status == "failed"
    assert chunk.error.startswith("ValueError: no\ufffd luck (")
    assert "test_worker.py" in chunk.error


async def test_retry_later_and_permanent_failure_steer_the_retries(client: Any, kind: str) -> None:
    runs: Counter[int] = Counter()

    def handler(chunk: sc.Chunk) -> str:
        runs[chunk.index] += 1
        if chunk.index == 0:
            raise sc.PermanentFailure("there is no such folder")
        if chunk.index == 1 and chunk.attempt == 1:
            raise sc.RetryLater(3600, "the API asks for a pause")
        if chunk.index == 2 and chunk.attempt == 1:
            raise sc.RetryLater(0)
        worker.stop()  # it would wait for the other one
        return chunk.idempotency_key

    job = await start(client, kind, 3)
    worker = worker_for(client, handler, kinds=[kind])
    await done(worker.run())
    assert runs == {0: 1, 1: 1, 2: 2}
    failed, waiting, again = await done(job.chunks())
    assert (failed.status, failed.error) == ("failed", "there is no such folder")
    assert (waiting.status, waiting.error) == ("pending", "the API asks for a pause")
    assert (waiting.ready_at - waiting.updated_at).total_seconds() == pytest.approx(3600, abs=5)
    assert (again.status, again.result) == ("completed", f"{job.id}:2")
    assert (await done(job.progress())).retrying_chunks == 1


async def test_a_result_may_plan_further_chunks_and_count_items(client: Any, kind: str) -> None:
    def handler(chunk: sc.Chunk) -> object:
        if "plan" in chunk.payload:
            return sc.Result({"pages": 3}, next_chunks=[{"page": n} for n in range(3)], items_total=30)
        chunk.report(10)
        return None

    job = await done(client.trigger_sync(kind, payload={"plan": True}))
    await done(worker_for(client, handler, kinds=[kind]).run_until_idle())
    progress = await done(job.wait(timeout=5))
    assert (progress.total_chunks, progress.items_total, progress.items_processed) == (4, 30, 30)


async def test_a_result_that_cannot_be_stored_fails_its_chunk_and_no_other(client: Any, kind: str) -> None:
    def handler(chunk: sc.Chunk) -> object:
        return {"rows": {1, 2} if chunk.index == 1 else [1, 2]}

    job = await start(client, kind, 3)
    await done(worker_for(client, handler, kinds=[kind]).run_until_idle())
    rows = await done(job.chunks())
    assert [row.status for row in rows] == ["completed", "failed", "completed"]
    assert "result.rows: set is not a JSON type" in rows[1].error


async def test_a_report_that_the_database_refuses_fails_its_chunk_and_no_other(
    client: Any, kind: str
) -> None:
    def handler(chunk: sc.Chunk) -> object:
        return sc.Result("ok", items_processed=-1 if chunk.index == 1 else 1)

    job = await start(client, kind, 3)
    await done(worker_for(client, handler, kinds=[kind]).run_until_idle())
    rows = await done(job.chunks())
    assert [row.status for row in rows] == ["completed", "failed", "completed"]
    assert "items_processed" in rows[1].error


async def test_large_results_are_delivered_in_requests_of_a_megabyte(client: Any, kind: str) -> None:
    def handler(chunk: sc.Chunk) -> str:
        return "x" * 300_000

    job = await start(client, kind, 12)
    worker = worker_for(client, handler, kinds=[kind], concurrency=12)
    assert await done(worker.run_until_idle()) == 12
    assert [len(result) for result in await done(job.results())] == [300_000] * 12


async def test_no_more_chunks_run_at_once_than_asked_for(client: Any, kind: str) -> None:
    lock, running, most = threading.Lock(), 0, 0

    def handler(chunk: sc.Chunk) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    await start(client, kind, 30)
    await done(worker_for(client, handler, kinds=[kind], concurrency=3, prefetch=5).run_until_idle())
    assert most == 3


async def test_coroutine_functions_are_handlers_too(client: Any, kind: str) -> None:
    async def handler(chunk: sc.Chunk) -> int:
        await asyncio.sleep(0)
        return int(chunk.payload["n"])

    job = await start(client, kind, 5)
    await done(worker_for(client, handler, kinds=[kind]).run_until_idle())
    assert await done(job.results()) == [0, 1, 2, 3, 4]


async def test_a_handler_that_exits_or_interrupts_fails_its_chunk_only(client: Any, kind: str) -> None:
    def handler(chunk: sc.Chunk) -> str:
        if chunk.index == 0:
            sys.exit("out")
        return "ok"

    job = await start(client, kind, 2, max_retries=0)
    await done(worker_for(client, handler, kinds=[kind]).run_until_idle())
    assert [row.status for row in await done(job.chunks())] == ["failed", "completed"]


async def test_the_lease_is_kept_alive_while_the_handler_keeps_the_cpu_busy(client: Any, kind: str) -> None:
    def handler(chunk: sc.Chunk) -> int:
        until_ = time.monotonic() + 2.0
        rounds = 0
        while time.monotonic() < until_:
            rounds += sum(range(1000))
        chunk.report(7)
        return chunk.attempt

    job = await start(client, kind, 1)
    await done(worker_for(client, handler, kinds=[kind], lease_seconds=1).run_until_idle())
    await done(client.cleanup_stuck_chunks())
    (chunk,) = await done(job.chunks())
    assert (chunk.status, chunk.result, chunk.attempts, chunk.items_processed) == ("completed", 1, 1, 7)


async def test_an_async_handler_that_blocks_the_loop_keeps_its_lease(stack: LocalStack, kind: str) -> None:
    async def handler(chunk: sc.Chunk) -> int:
        time.sleep(2.0)
        return chunk.attempt

    async with sc.AsyncChunksClient(stack.url, stack.secret_key) as client:
        job = await client.trigger_sync(kind, chunks=[{"n": 1}])
        await sc.AsyncWorker(client, handler, kinds=[kind], lease_seconds=1).run_until_idle()
        assert (await job.chunks())[0].attempts == 1
        assert (await job.progress()).status == "completed"


async def test_a_lost_lease_drops_the_result_and_tells_the_handler(
    client: Any, kind: str, stack: LocalStack, caplog: pytest.LogCaptureFixture
) -> None:
    told = threading.Event()

    def handler(chunk: sc.Chunk) -> str:
        if chunk.attempt == 1:
            with psycopg.connect(stack.db_url, autocommit=True) as connection:
                connection.execute(
                    "update public.chunk_processing_queue set locked_until = now() - interval '1 minute' "
                    "where id = %s",
                    [chunk.id],
                )
                connection.execute("select public.cleanup_stuck_chunks()")
            deadline = time.monotonic() + 5
            while not chunk.cancel_requested and time.monotonic() < deadline:
                time.sleep(0.02)
            if chunk.cancel_requested:
                told.set()
        return f"attempt {chunk.attempt}"

    job = await start(client, kind, 1)
    worker = worker_for(client, handler, kinds=[kind], lease_seconds=1, concurrency=2)
    with caplog.at_level(logging.WARNING, "supabase_chunks"):
        await done(worker.run_until_idle())
    assert told.is_set()
    assert await done(job.results()) == ["attempt 2"]
    assert "its result is dropped" in caplog.text


async def test_a_cancelled_job_tells_its_running_handlers(client: Any, kind: str, stack: LocalStack) -> None:
    heard = threading.Event()
    job = await start(client, kind, 1)

    def handler(chunk: sc.Chunk) -> None:
        with sc.ChunksClient(stack.url, stack.secret_key) as other:
            other.job(job.id).cancel()
        deadline = time.monotonic() + 5
        while not chunk.cancel_requested and time.monotonic() < deadline:
            time.sleep(0.02)
        if chunk.cancel_requested:
            heard.set()

    await done(worker_for(client, handler, kinds=[kind], lease_seconds=1).run_until_idle())
    assert heard.is_set()
    assert (await done(job.progress())).status == "cancelled"


def run_in_thread(worker: sc.Worker) -> threading.Thread:
    thread = threading.Thread(target=worker.run)
    thread.start()
    return thread


def test_an_idle_worker_starts_a_new_job_within_about_a_second(
    sync_client: sc.ChunksClient, kind: str
) -> None:
    started: list[float] = []
    worker = sc.Worker(sync_client, lambda chunk: started.append(time.monotonic()), kinds=[kind])
    thread = run_in_thread(worker)
    until(lambda: worker._core._backoff.next_idle >= 1.0)
    triggered = time.monotonic()
    sync_client.trigger_sync(kind, chunks=[{"n": 1}]).wait(timeout=5)
    worker.stop()
    thread.join(timeout=5)
    assert not thread.is_alive()
    assert started[0] - triggered < 1.3


def test_stop_lets_running_chunks_finish_and_gives_the_others_back(
    sync_client: sc.ChunksClient, kind: str
) -> None:
    gate, running = threading.Event(), threading.Semaphore(0)

    def handler(chunk: sc.Chunk) -> str:
        running.release()
        gate.wait(10)
        return "finished"

    job = sync_client.trigger_sync(kind, chunks=[{"n": n} for n in range(10)])
    worker = sc.Worker(sync_client, handler, kinds=[kind], concurrency=2, prefetch=5)
    thread = run_in_thread(worker)
    assert running.acquire(timeout=5)
    assert running.acquire(timeout=5)
    until(lambda: job.progress().processing_chunks == 7)
    worker.stop()
    until(lambda: job.progress().processing_chunks == 2)
    gate.set()
    thread.join(timeout=5)
    assert not thread.is_alive()
    progress = job.progress()
    assert (progress.completed_chunks, progress.pending_chunks) == (2, 8)
    assert {chunk.attempts for chunk in job.chunks(status="pending")} == {0}, "giving back costs no attempt"


async def test_what_finished_before_the_stop_is_reported(client: Any, kind: str) -> None:
    ran: list[int] = []

    def handler(chunk: sc.Chunk) -> None:
        ran.append(chunk.index)
        if len(ran) == 50:
            worker.stop()

    job = await start(client, kind, 100)
    worker = worker_for(client, handler, kinds=[kind], concurrency=8, prefetch=30)
    assert await done(worker.run()) == len(ran) >= 50
    assert (await done(job.progress())).completed_chunks == len(ran)
    assert (await done(job.progress())).processing_chunks == 0


def test_what_outlasts_the_grace_time_is_left_to_its_lease(sync_client: sc.ChunksClient, kind: str) -> None:
    gate, running = threading.Event(), threading.Event()

    def handler(chunk: sc.Chunk) -> None:
        running.set()
        gate.wait(20)

    job = sync_client.trigger_sync(kind, chunks=[{"n": 1}])
    worker = sc.Worker(sync_client, handler, kinds=[kind], grace=0.2, lease_seconds=1)
    thread = run_in_thread(worker)
    assert running.wait(5)
    worker.stop()
    thread.join(timeout=3)
    assert not thread.is_alive()
    assert job.progress().processing_chunks == 1
    until(lambda: sync_client.cleanup_stuck_chunks() + job.progress().pending_chunks)
    assert job.progress().pending_chunks == 1
    gate.set()


async def test_a_report_that_fails_at_the_end_is_repeated_within_the_grace_time(
    client: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = type(client._driver.transport)
    send, failures = transport.send, [sc.ServerError("down", status=500)] * 2

    def unreliable(self: Any, request: Any) -> Any:
        if getattr(request, "function", "") == "complete_chunk_jobs_safe" and failures:
            raise failures.pop()
        return send(self, request)

    monkeypatch.setattr(transport, "send", unreliable)
    job = await start(client, kind, 1)
    worker = worker_for(client, lambda chunk: worker.stop(), kinds=[kind], concurrency=1, grace=20.0)
    before = time.monotonic()
    await done(worker.run())
    assert time.monotonic() - before < 10, "and when it is delivered, nothing more is waited for"
    assert failures == []
    assert (await done(job.progress())).status == "completed"


SCRIPT = """
    import os, sys, time
    import supabase_chunks as sc

    client = sc.ChunksClient(os.environ["SUPABASE_URL"], os.environ["SUPABASE_SECRET_KEY"])

    def handler(chunk):
        print("running", chunk.attempt, flush=True)
        {body}

    print("done", sc.Worker(client, handler, kinds=[sys.argv[1]], lease_seconds={lease}, grace=5).run())
"""


def worker_process(stack: LocalStack, kind: str, body: str, lease: int = 30) -> subprocess.Popen[str]:
    """Start a worker in a process of its own, and wait until it runs a chunk."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT).format(body=body, lease=lease), kind],
        env={
            **os.environ,
            "PYTHONPATH": os.getcwd(),
            "SUPABASE_URL": stack.url,
            "SUPABASE_SECRET_KEY": stack.secret_key,
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running 1\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_running_chunk_finish(
    stack: LocalStack, sync_client: sc.ChunksClient, kind: str, number: signal.Signals
) -> None:
    job = sync_client.trigger_sync(kind, chunks=[{"n": 1}, {"n": 2}], max_concurrency=1)
    process = worker_process(stack, kind, "time.sleep(0.5); return 'finished'")
    process.send_signal(number)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert output == "done 1\n"
    assert job.results() == ["finished"]
    assert job.progress().pending_chunks == 1


@pytest.mark.parametrize("body", ["os._exit(9)", "os.kill(os.getpid(), 9)"])
def test_a_worker_that_dies_leaves_its_chunk_to_recovery(
    stack: LocalStack, sync_client: sc.ChunksClient, kind: str, body: str
) -> None:
    job = sync_client.trigger_sync(kind, chunks=[{"n": 1}])
    process = worker_process(stack, kind, body, lease=1)
    process.communicate(timeout=10)
    assert process.returncode != 0
    assert job.progress().processing_chunks == 1
    until(lambda: sync_client.cleanup_stuck_chunks() or job.progress().pending_chunks)
    attempts: list[int] = []
    sc.Worker(sync_client, lambda chunk: attempts.append(chunk.attempt), kinds=[kind]).run_until_idle()
    assert attempts == [2]
    assert job.progress().status == "completed"


@pytest.mark.parametrize("part", ["postgrest", "postgres"])
def test_a_worker_goes_on_after_a_crash(
    stack: LocalStack, sync_client: sc.ChunksClient, kind: str, part: str
) -> None:
    ran: Counter[int] = Counter()

    def handler(chunk: sc.Chunk) -> None:
        ran[chunk.index] += 1
        time.sleep(0.01)

    job = sync_client.trigger_sync(kind, chunks=[{"n": n} for n in range(150)])
    worker = sc.Worker(sync_client, handler, kinds=[kind], concurrency=4)
    thread = run_in_thread(worker)
    until(lambda: len(ran) > 20)
    stack.kill(part)
    stack.wait_until_ready()
    assert job.wait(timeout=30).completed_chunks == 150
    worker.stop()
    thread.join(timeout=10)
    assert set(ran.values()) == {1}, "a lost reply is repeated by its id, so no chunk runs twice"


async def test_the_queues_own_calls(client: Any, kind: str) -> None:
    await start(client, kind, 4)
    claim = await done(client.queue.claim("w", kinds=[kind]))
    assert (claim.chunk_index, claim.attempt, claim.payload) == (0, 1, {"n": 0})
    assert "claim_token" not in repr(claim)
    assert (await done(client.queue.extend(claim, items_processed=3))).ok
    first = await done(client.queue.complete(claim, {"ok": 1}, claim_next=True))
    again = await done(client.queue.complete(claim, {"ok": 1}, claim_next=True))
    assert first.outcome == again.outcome == "completed"
    assert first.next.chunk_id == again.next.chunk_id
    assert (await done(client.queue.release(first.next, reason="try"))).outcome == "released"
    batch = await done(client.queue.claim_batch("w", 10, kinds=[kind]))
    assert sorted(one.chunk_index for one in batch) == [1, 2, 3]
    assert (await done(client.queue.fail(batch[0], "later"))).outcome == "retrying"
    assert (await done(client.queue.fail(batch[1], "never", retryable=False))).outcome == "failed"
    stale = batch[2].model_copy(update={"claim_token": batch[1].claim_token})
    assert (await done(client.queue.complete(stale))).outcome == "stale"
    await done(client.queue.complete(batch[2]))
    await done(client.queue.complete(await done(client.queue.claim("w", kinds=[kind]))))
    assert await done(client.queue.claim("w", kinds=[kind])) is None


def test_wrong_options_are_refused_at_once(sync_client: sc.ChunksClient) -> None:
    for options in ({"kinds": []}, {"kinds": "custom"}, {"kinds": ["k"], "concurrency": 0}):
        with pytest.raises(ValueError, match="must be"):
            sc.Worker(sync_client, print, **options)  # type: ignore[arg-type]  # the very mistakes
    for handler in ({"custom": print}, None, "tasks:handler"):
        with pytest.raises(TypeError, match="handler must be a function of a chunk, not "):
            sc.Worker(sync_client, handler, kinds=["k"])  # type: ignore[call-overload]  # as above
    with pytest.raises(sc.InvalidArgument, match="payload must be a type"):
        sc.Worker(sync_client, print, kinds=["k"], payload={"k": dict})  # type: ignore[call-overload]  # as above
    with pytest.raises(TypeError, match="AsyncWorker"):
        sc.Worker(sc.AsyncChunksClient("http://localhost", "k"), print, kinds=["k"])  # type: ignore[arg-type]  # as above
    with pytest.raises(TypeError, match="AsyncChunksClient"):
        sc.AsyncWorker(sync_client, print, kinds=["k"])  # type: ignore[arg-type]  # as above


class Page(BaseModel):
    page: int
    since: date | None = None

    @field_validator("page")
    @classmethod
    def _known(cls, page: int) -> int:
        if page == 404:
            raise KeyError("the list of pages is away")
        return page


async def test_a_handler_gets_payloads_of_the_type_asked_for(client: Any, kind: str) -> None:
    seen: list[Page] = []

    def handler(chunk: sc.Chunk[Page]) -> int:
        seen.append(chunk.payload)
        return chunk.payload.page

    payloads = [
        {"page": 1, "since": "2026-01-31"},
        {"page": "hunter2"},
        {"pages": 3},
        {"page": 4},
        {"page": 404},
    ]
    job = await done(client.trigger_sync(kind, chunks=payloads, max_retries=1))
    await done(worker_for(client, handler, kinds=[kind], payload=Page).run_until_idle())
    assert sorted(seen, key=lambda page: page.page) == [Page(page=1, since=date(2026, 1, 31)), Page(page=4)]
    good, text, name, fine, away = await done(job.chunks())
    assert (good.result, fine.result) == (1, 4)
    assert (text.status, text.attempts) == (name.status, name.attempts) == ("failed", 1)
    assert text.error.startswith("the payload does not fit Page: page: Input should be a valid integer")
    assert name.error == "the payload does not fit Page: page: Field required"
    assert not [chunk.error for chunk in (text, name) if "hunter2" in chunk.error]
    # What a validator of the user's stumbles over is tried again, as what a handler does.
    assert (away.status, away.attempts) == ("failed", 2)
    assert "the list of pages is away" in away.error


async def test_results_of_another_type_are_named_and_not_shown(client: Any, kind: str) -> None:
    job = await start(client, kind, 1)
    await done(worker_for(client, lambda chunk: {"page": "hunter2"}, kinds=[kind]).run_until_idle())
    with pytest.raises(
        sc.UnexpectedResponse, match="the result of chunk 0 does not fit Page: page: "
    ) as caught:
        await done(job.results(model=Page))
    assert "hunter2" not in f"{caught.value!r} {caught.value.body}"
    with pytest.raises(sc.InvalidArgument, match="model must be a type"):
        await done(job.results(model="Page"))


async def test_waiting_warns_where_it_blocks_an_event_loop(sync_client: sc.ChunksClient, kind: str) -> None:
    job = sync_client.trigger_sync(kind, chunks=[{}])
    worker = sc.Worker(sync_client, lambda chunk: None, kinds=[kind])
    with pytest.warns(RuntimeWarning, match=r"run_until_idle\(\) blocks .* AsyncWorker") as caught:
        worker.run_until_idle()
    assert caught[0].filename == __file__
    for wait in (job.wait, lambda: list(job.watch())):
        with pytest.warns(RuntimeWarning, match="blocks .* AsyncChunksClient"):
            wait()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await asyncio.to_thread(job.wait)


async def test_a_publishable_key_cannot_work(stack: LocalStack, kind: str) -> None:
    with (
        sc.ChunksClient(
            stack.url,
            stack.publishable_key,
            access_token=stack.user_token("6f2c8d3e-0000-4000-8000-000000000000"),
        ) as user,
        pytest.raises(sc.PermissionDenied),
    ):
        sc.Worker(user, print, kinds=[kind]).run_until_idle()


@pytest.mark.parametrize("which", ["sync", "async"])
@pytest.mark.parametrize("function", ["claim_chunk_jobs_safe", "complete_chunk_jobs_safe"])
async def test_a_lost_reply_runs_no_chunk_twice_and_loses_none(
    stack: LocalStack, proxy: Proxy, kind: str, which: str, function: str
) -> None:
    ran: Counter[int] = Counter()

    def handler(chunk: sc.Chunk) -> int:
        ran[chunk.index] += 1
        if ran.total() in (1, 20):
            proxy.lose_the_next_reply_to(function)
        return chunk.index

    async with both(which, proxy.url, stack.secret_key) as client:
        job = await start(client, kind, 40)
        proxy.lose_the_next_reply_to(function)
        await done(worker_for(client, handler, kinds=[kind], concurrency=2).run_until_idle())
        assert await done(job.results()) == list(range(40))
    assert proxy.lost >= 2
    assert set(ran.values()) == {1}


async def test_idle_waits_for_a_retry(client: Any, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    def handler(chunk: sc.Chunk) -> int:
        if chunk.attempt == 1 and chunk.index == 1:
            raise sc.RetryLater(1, "one hiccup")
        if chunk.index == 2:
            raise sc.PermanentFailure("there is no page 2")
        return chunk.index

    job = await start(client, kind, 3)
    worker = worker_for(client, handler, kinds=[kind])
    with caplog.at_level(logging.INFO, logger="supabase_chunks"):
        await done(worker.run_until_idle())
    assert [row.status for row in await done(job.chunks())] == ["completed", "completed", "failed"]
    assert worker.summary() == "2 completed, 1 failed, 1 retrying"
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert ("ERROR", f"<Chunk 2 of {job.id}, attempt 1 of 4> failed for good: there is no page 2") in said
    assert ("WARNING", f"<Chunk 1 of {job.id}, attempt 1 of 4> will be tried again: one hiccup") in said
    assert said[-1] == ("INFO", f"worker {worker.worker_id}: 2 completed, 1 failed, 1 retrying")


def test_idle_workers_stay_while_others_have_all_slots(stack: LocalStack, kind: str) -> None:
    """Three workers, four slots, the first to come takes them all: the others get what follows."""
    client = sc.ChunksClient(stack.url, stack.secret_key)
    job = client.trigger_sync(kind, chunks=[{}] * 12, max_concurrency=4)
    gate = threading.Event()
    runs: list[int] = [0, 0, 0]

    def run(number: int) -> None:
        def handler(_: sc.Chunk) -> None:
            runs[number] += 1
            gate.wait(20)

        sc.Worker(client, handler, kinds=[kind], concurrency=4).run_until_idle()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: sum(runs) == 4)
    time.sleep(0.5)  # what they must outlast
    assert all(thread.is_alive() for thread in threads)
    gate.set()
    for thread in threads:
        thread.join(20)
    assert job.progress().completed_chunks == 12


def test_a_dead_worker_is_missed_in_a_minute(stack: LocalStack) -> None:
    """Unless told otherwise: with a kind of ten minutes a claim holds 45 seconds, and a heartbeat comes every 15."""
    client = sc.ChunksClient(stack.url, stack.secret_key)
    seen: list[float] = []

    def handler(chunk: sc.Chunk) -> None:
        (row,) = client.job(chunk.job_id).chunks()
        assert row.locked_until
        assert row.updated_at
        seen.append((row.locked_until - row.updated_at).total_seconds())

    client.trigger_sync("custom")
    sc.Worker(client, handler, kinds=["custom"]).run_until_idle()
    assert seen == [45.0]
