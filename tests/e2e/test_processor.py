"""The deployed functions themselves: who may call them, and what they leave behind when they are ended."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest

from supabase_chunks import ChunksClient
from supabase_chunks.local import LocalStack
from tests.handlers import write_functions
from tests.polling import until

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSOR = "background-sync-processor"
DEADLINE = 20.0

# A handler that does what its payload says.
HANDLER = """
import { RetryLater, serveHandler } from "../_shared/serve.ts";

export default serveHandler(async ({ payload }, { signal }) => {
  if (payload.seconds) {
    await new Promise((resolve) => {
      setTimeout(resolve, payload.seconds * 1000);
      signal.addEventListener("abort", resolve);
    });
  }
  if (payload.exit) Deno.exit(1);
  return { result: payload.result ?? null, items_processed: 1 };
});
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack with one handler more."""
    functions = write_functions(tmp_path_factory.mktemp("project") / "functions", "obedient", HANDLER)
    with LocalStack(functions=functions, functions_env={"HEARTBEAT_SECONDS": "0.5"}) as running:
        yield running


@pytest.fixture
def client(stack: LocalStack) -> Iterator[ChunksClient]:
    """The SDK, as the service."""
    with ChunksClient(stack.url, stack.secret_key) as client:
        client.save_kind("obedient", handler="obedient", max_concurrency=2, retry_delay_seconds=1)
        yield client


def call(stack: LocalStack, function: str, headers: dict[str, str], body: Any = None) -> httpx.Response:
    """Call a function as anybody could."""
    return httpx.post(f"{stack.url}/functions/v1/{function}", headers=headers, json=body, timeout=10)


def test_only_a_secret_key_opens_a_function(stack: LocalStack) -> None:
    user = stack.user_token("7c0e4f5e-6f0b-4b53-9d5a-0d1f8f6f2a10")
    refused = [
        {},
        {"apikey": "sb_secret_wrong"},
        {"apikey": stack.publishable_key},
        {"apikey": stack.anon_key},
        {"apikey": stack.publishable_key, "authorization": f"Bearer {user}"},
    ]
    for function in stack.functions:
        for headers in refused:
            assert call(stack, function, headers).status_code == 401
        for key in (stack.secret_key, stack.service_role_key):
            assert call(stack, function, {"apikey": key}, {"probe": True}).json()["ok"] is True


def test_a_refused_call_claims_nothing(stack: LocalStack, client: ChunksClient) -> None:
    stack.set_webhooks(drop=1.0)
    try:
        job = client.trigger_sync("obedient", chunks=[{}])
        assert call(stack, PROCESSOR, {"apikey": stack.publishable_key}).status_code == 401
        assert [chunk.status for chunk in job.chunks()] == ["pending"]
        answer = call(stack, PROCESSOR, {"apikey": stack.secret_key})
        assert answer.status_code == 202
        assert answer.json()["parent_sync_job_id"] == str(job.id)
        until(lambda: job.progress().status == "completed", "the chunk is done")
    finally:
        stack.set_webhooks(drop=0.0)


def test_the_legacy_key_claims_and_completes_too(stack: LocalStack, client: ChunksClient) -> None:
    stack.set_webhooks(drop=1.0)
    try:
        job = client.trigger_sync("obedient", chunks=[{"result": 0}])
        assert call(stack, PROCESSOR, {"apikey": stack.service_role_key}).status_code == 202
        until(lambda: job.progress().status == "completed", "the chunk is done")
        assert job.results() == [0]
    finally:
        stack.set_webhooks(drop=0.0)


def test_the_processor_answers_at_once_whatever_the_handler_takes(
    stack: LocalStack, client: ChunksClient
) -> None:
    stack.set_webhooks(drop=1.0)
    try:
        job = client.trigger_sync("obedient", chunks=[{"seconds": 2}])
        started = time.monotonic()
        assert call(stack, PROCESSOR, {"apikey": stack.secret_key}).status_code == 202
        assert time.monotonic() - started < 1
        assert call(stack, PROCESSOR, {"apikey": stack.secret_key}).json() == {"claimed": False}
        until(lambda: job.progress().status == "completed", "the chunk is done")
    finally:
        stack.set_webhooks(drop=0.0)


def test_falsy_results_and_large_integers_arrive_as_they_are(client: ChunksClient) -> None:
    results = [0, False, "", [], {}, None, 2**53 + 1, -(2**63)]
    job = client.trigger_sync("obedient", chunks=[{"result": result} for result in results])
    job.wait(timeout=30)
    assert [chunk.result for chunk in job.chunks()] == results


def test_a_report_outlasts_who_holds_the_jobs_gate(stack: LocalStack, client: ChunksClient) -> None:
    """As it would 20 s, with the 8 s for which the API's roles wait; one webhook and one attempt do it."""
    stack.set_webhooks(drop=1.0)
    with psycopg.connect(stack.db_url, autocommit=True) as owner, psycopg.connect(stack.db_url) as holder:
        owner.execute("alter role service_role set lock_timeout = '200ms'")
        owner.execute("notify pgrst, 'reload config'")
        try:
            job = client.trigger_sync("obedient", chunks=[{"result": 1}, {"result": 2}])
            holder.execute("select pg_advisory_xact_lock(uuid_hash_extended(%s, 0))", (job.id,))
            assert call(stack, PROCESSOR, {"apikey": stack.secret_key}).status_code == 202
            (log,) = Path(stack.logs).rglob(f"{PROCESSOR}.log")
            repeated = re.compile(rf".*report_retry.*{job.id}")
            until(lambda: len(repeated.findall(log.read_text())) > 1, "a report was stopped twice")
            holder.rollback()
            until(lambda: job.progress().ended, "it is done")
        finally:
            owner.execute("alter role service_role reset lock_timeout")
            owner.execute("notify pgrst, 'reload config'")
            stack.set_webhooks(drop=0.0)
    assert [(chunk.attempts, chunk.result) for chunk in job.chunks()] == [(1, 1), (1, 2)]
    assert job.attempts() == []


def nested(depth: int, inside: str = "1") -> str:
    """An object of so many levels; with a number as key, since without one Deno writes any depth, in some versions."""
    return '{"1":' * depth + inside + "}" * depth


# What may stand in a row that was written past the functions' checks, and what its chunk ends with.
BY_HAND = {
    nested(990): None,
    nested(990, "1e100000"): None,
    nested(10_000): "cannot be handed over",
    nested(10_000, "1e100000"): "cannot be handed over",
    '{"result": 1e100000}': "result is a number of more than 300 digits",
    '{"result": ' + nested(101) + "}": "result is nested deeper than 100 levels",
}


@pytest.mark.parametrize("where", ["chunk", "job"])
def test_a_row_that_cannot_be_read_fails_alone(stack: LocalStack, client: ChunksClient, where: str) -> None:
    """In a claim, and in the answer to the report of the chunk before it."""
    stack.set_webhooks(drop=1.0)
    try:
        # In one transaction, so that a worker that still asks finds what it is to find.
        with psycopg.connect(stack.db_url) as owner:
            start = "select public.start_sync_job('obedient', '[{}, {}, {}]') ->> 'id'"
            ids = [owner.execute(start).fetchall()[0][0] for _ in BY_HAND]
            for job_id, payload in zip(ids, BY_HAND, strict=True):
                if where == "job":
                    owner.execute(
                        "update public.sync_jobs set payload = %s::jsonb where id = %s", (payload, job_id)
                    )
                else:
                    owner.execute(
                        "update public.chunk_processing_queue set payload = %s::jsonb"
                        " where parent_sync_job_id = %s and chunk_index = 1",
                        (payload, job_id),
                    )
        jobs = [client.job(job_id) for job_id in ids]
        assert call(stack, PROCESSOR, {"apikey": stack.secret_key}).status_code == 202
        until(lambda: all(job.progress().ended for job in jobs), "every chunk has ended")
    finally:
        stack.set_webhooks(drop=0.0)
    for job, why in zip(jobs, BY_HAND.values(), strict=True):
        for chunk in job.chunks():
            # The handler looks for `result` in the chunk's payload only.
            fails = why is not None and (chunk.chunk_index == 1 if where == "chunk" else "result" not in why)
            assert (chunk.status, chunk.attempts) == ("failed" if fails else "completed", 1), chunk.error
            assert not fails or str(why) in str(chunk.error)


def test_an_ended_worker_gives_its_chunk_and_its_attempt_back(
    stack: LocalStack, client: ChunksClient
) -> None:
    job = client.trigger_sync("obedient", chunks=[{"seconds": 3}])
    until(lambda: job.progress().processing_chunks == 1, "the chunk is claimed")
    pid = stack.pids()[PROCESSOR]
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    until(lambda: job.chunks()[0].status == "pending", "it is given back")
    assert job.chunks()[0].attempts == 0
    until(lambda: stack.pids()[PROCESSOR] not in (None, pid), "another one runs")
    stack.wait_until_ready()
    client.trigger_next_chunk_processing()
    job.wait(timeout=DEADLINE)
    assert job.chunks()[0].attempts == 1


def test_cancelling_stops_the_handler(client: ChunksClient) -> None:
    job = client.trigger_sync("obedient", chunks=[{"seconds": 60}])
    until(lambda: job.progress().processing_chunks == 1, "the chunk is claimed")
    assert job.cancel().status == "cancelled"
    assert [chunk.status for chunk in job.chunks()] == ["cancelled"]


def test_a_handler_that_dies_is_tried_again_and_says_so(stack: LocalStack, client: ChunksClient) -> None:
    job = client.trigger_sync("obedient", chunks=[{"exit": True}], max_retries=0)
    job.wait(timeout=30, raise_on_failure=False)
    (chunk,) = job.chunks()
    assert chunk.status == "failed"
    assert "obedient" in str(chunk.error)
    stack.wait_until_ready()


def test_no_log_holds_a_key(stack: LocalStack) -> None:
    logs = [path for path in Path(stack.logs).rglob("*.log") if path.stem in stack.functions]
    assert {path.stem for path in logs} == set(stack.functions)
    for path in logs:
        text = path.read_text()
        for secret in (stack.secret_key, stack.service_role_key, stack.jwt_secret):
            assert secret not in text
