"""Edge Functions whose chunks take longer than an invocation: the documents' handler, one without our help, and deaths."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psycopg
import pytest

from supabase_chunks import ChunksClient, Job
from supabase_chunks.local import LocalStack
from tests.e2e.events import EventsApi, events_api
from tests.e2e.handlers import copy_functions, write_documented, write_handler
from tests.polling import until

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSOR = "background-sync-processor"
# The documents' handler leaves an invocation with less than ten seconds after each step: of 500 pages, some tenths of a second.
WALL_CLOCK_SECONDS = 2
SAVE_EVENTS = """
create table events (id int primary key);
create function save_events(events jsonb) returns bigint language sql set search_path = '' as $$
  with saved as (
    insert into public.events select e.id from jsonb_to_recordset($1) as e (id int)
    on conflict (id) do nothing returning 1
  )
  select count(*) from saved
$$;
grant all on events to service_role;
"""
# Nothing but the protocol. It never looks at the time, and takes longer than an invocation has.
PLAIN = """
export default {
  async fetch(request: Request): Promise<Response> {
    const apikey = request.headers.get("apikey")!;
    const call = async (path: string, body?: unknown) => {
      const response = await fetch(`${Deno.env.get("SUPABASE_URL")}/rest/v1/${path}`, {
        method: body === undefined ? "GET" : "POST",
        headers: { apikey, "content-type": "application/json" },
        body: JSON.stringify(body),
      });
      return await response.json();
    };
    const { chunk_id, claim_token, checkpoint, job_id, kind, owner_id, payload, time_left_ms } = await request.json();
    if (payload.answer) return Response.json(payload.answer);
    const at = checkpoint ?? { step: 0, time_left_ms: [] };
    at.time_left_ms.push(time_left_ms);
    while (at.step < 28) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      at.step += 1;
      const saved = { chunk_id, claim_token, checkpoint: at, items_processed: at.step };
      if (!(await call("rpc/extend_chunk_lease", saved)).ok) return new Response(null, { status: 409 });
    }
    const [{ job_key }] = await call(`sync_jobs?select=job_key&id=eq.${job_id}`);
    const state = await call("rpc/get_sync_state", { kind, job_key, owner_id });
    return Response.json({ result: { ...at, state }, next_state: { steps: at.step } });
  },
};
"""


@pytest.fixture(scope="module")
def api() -> Iterator[EventsApi]:
    """The API that the documents' handler asks."""
    with events_api() as running:
        yield running


@pytest.fixture(scope="module")
def stack(api: EventsApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A project with both handlers, whose invocations are short."""
    functions = copy_functions(tmp_path_factory.mktemp("project"))
    write_documented(functions, "sync-events", f"http://127.0.0.1:{api.port}")
    write_handler(functions, "plain", PLAIN)
    environment = {"WALL_CLOCK_SECONDS": str(WALL_CLOCK_SECONDS), "HEARTBEAT_SECONDS": "0.5"}
    with LocalStack(functions=functions, functions_env=environment) as running:
        with psycopg.connect(running.postgres_url) as database:
            database.execute(SAVE_EVENTS)
            database.execute("notify pgrst, 'reload schema'")
        yield running


@pytest.fixture
def client(stack: LocalStack, api: EventsApi) -> Iterator[ChunksClient]:
    """The SDK, as the service; nothing was asked or synced yet."""
    with psycopg.connect(stack.postgres_url) as database:
        database.execute("truncate events")
    api.asked.clear()
    with ChunksClient(stack.url, stack.secret_key) as client:
        client.save_kind("sync-events", handler="sync-events", retry_delay_seconds=1)
        client.save_kind("plain", handler="plain", retry_delay_seconds=1)
        yield client


def attempts(stack: LocalStack, job: Job) -> list[str]:
    """How each claim of the job's chunks ended, but those whose chunk was completed."""
    query = """
    select a.outcome from chunk_private.chunk_attempts a join chunk_processing_queue q on q.id = a.chunk_id
    where q.parent_sync_job_id = %s and a.outcome <> 'completed' order by a.id
    """
    with psycopg.connect(stack.db_url) as database:
        return [outcome for (outcome,) in database.execute(query, (job.id,))]


def found_after_its_lease(stack: LocalStack, client: ChunksClient, job: Job) -> bool:
    """Let every lease be over, and the watchdog look; whether the job's chunk was lost. A handler left behind may extend it."""
    with psycopg.connect(stack.db_url) as database:
        database.execute(
            "update chunk_processing_queue set locked_until = now() - interval '1 s' where status = 'processing'"
        )
    client.cleanup_stuck_chunks()
    return "lost" in attempts(stack, job)


def stored(stack: LocalStack) -> int:
    """How many events have arrived."""
    with psycopg.connect(stack.postgres_url) as database:
        (count,) = database.execute("select count(*) from events").fetchone() or (0,)
    return int(count)


def test_one_chunk_walks_ten_thousand_pages_and_the_next_night_goes_on_there(
    stack: LocalStack, client: ChunksClient, api: EventsApi
) -> None:
    api.total = 10_000
    job = client.trigger_sync("sync-events", job_key="walk", max_retries=0)
    done = job.wait(timeout=60)
    assert (done.total_chunks, done.items_processed) == (1, 10_000)
    assert api.asked == list(range(10_000))
    assert attempts(stack, job) == ["released"] * 19
    assert stored(stack) == 10_000
    assert client.sync_state("sync-events", "walk") == {"cursor": "10000"}

    api.total += 700
    tonight = client.trigger_sync("sync-events", job_key="walk").wait(timeout=30)
    assert tonight.items_processed == 700
    assert api.asked == list(range(10_700))
    assert client.sync_state("sync-events", "walk") == {"cursor": "10700"}


@pytest.mark.parametrize("part", ["sync-events", PROCESSOR])
def test_a_death_repeats_at_most_the_pages_since_the_last_save(
    part: str, stack: LocalStack, client: ChunksClient, api: EventsApi
) -> None:
    pid = stack.pids()[part]
    assert pid is not None
    api.total = 3000
    api.before[1750] = lambda: os.kill(pid, signal.SIGKILL)
    job = client.trigger_sync("sync-events", max_retries=1)
    until(lambda: stack.pids()[part] not in (None, pid), "it has died, and another one runs")
    stack.wait_until_ready()
    if part == PROCESSOR:
        until(lambda: found_after_its_lease(stack, client, job), "the watchdog takes the chunk back")
    assert job.wait(timeout=40).items_processed == 3000
    assert stored(stack) == 3000
    assert set(api.asked) == set(range(3000))
    # The last save before was at 1,500. A handler whose processor has died may get on a bit.
    repeated = api.repeated()
    assert repeated == list(range(1500, 1500 + len(repeated)))
    assert len(api.asked) == 3000 + len(repeated)
    assert len(repeated) == 251 if part == "sync-events" else len(repeated) <= 500


def test_a_handler_without_our_help_is_cut_off_and_goes_on(stack: LocalStack, client: ChunksClient) -> None:
    job = client.trigger_sync("plain", job_key="by hand", max_retries=0)
    assert job.wait(timeout=30).items_processed == 28
    (result,) = job.results()
    assert result["step"] == 28
    assert result["state"] is None
    assert len(result["time_left_ms"]) >= 2
    assert all(0 < time <= 1000 * WALL_CLOCK_SECONDS for time in result["time_left_ms"])
    assert set(attempts(stack, job)) == {"released"}
    assert client.sync_state("plain", "by hand") == {"steps": 28}


def test_a_checkpoint_that_cannot_be_stored_fails_its_chunk_by_name(client: ChunksClient) -> None:
    answers = [{"continue": True, "checkpoint": {"a": "x" * 9000}}, {"continue": True, "checkpoint": [1]}]
    job = client.trigger_sync("plain", chunks=[{"answer": answer} for answer in answers])
    job.wait(timeout=20, raise_on_failure=False)
    too_large, no_object = job.chunks()
    assert "checkpoint has 9009 bytes of JSON; it may have 8192" in str(too_large.error)
    assert "checkpoint is not an object" in str(no_object.error)
    assert [too_large.attempts, no_object.attempts] == [1, 1]


def test_to_continue_without_a_new_checkpoint_ends(stack: LocalStack, client: ChunksClient) -> None:
    chunk = {"answer": {"continue": True, "checkpoint": {"at": "the same"}}}
    job = client.trigger_sync("plain", chunks=[chunk], max_retries=0)
    job.wait(timeout=30, raise_on_failure=False)
    (failed,) = job.chunks()
    assert "too often: counted as an attempt" in str(failed.error)
    # One that was new, and ten that were given back for nothing.
    assert attempts(stack, job).count("released") == 11
