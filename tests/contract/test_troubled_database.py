"""A database that cannot do a call just now: locks held for long, read-only mode, other defaults of its roles."""

from __future__ import annotations

import asyncio
import inspect
import threading
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest

import supabase_chunks as sc
from tests.contract.conftest import done, worker_for
from tests.polling import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supabase_chunks.local import LocalStack

SETTING_OF = """
create function public.setting_of(name text) returns text language sql volatile as 'select current_setting($1)';
grant execute on function public.setting_of to service_role;
notify pgrst, 'reload schema';
"""
HELD_SECONDS = 0.7


class Settings:
    """What the API's calls as the service have set; by default that is the authenticator's."""

    def __init__(self, stack: LocalStack, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._http = httpx.Client(base_url=f"{stack.url}/rest/v1/rpc", headers={"apikey": stack.secret_key})

    def shown(self, name: str) -> str | None:
        reply = self._http.post("/setting_of", json={"name": name})
        return str(reply.json()) if reply.status_code == 200 else None

    @contextmanager
    def to(self, name: str, value: str, *, seen_as: str | None = None) -> Iterator[None]:
        """Let a setting have a value in the block; `seen_as` is the one that then shows it, if it is another."""
        seen = seen_as or name
        before = until(lambda: self.shown(seen))
        self._set(f"alter role service_role set {name} = '{value}'")
        try:
            until(lambda: self.shown(seen) == value)
            yield
        finally:
            # Some can be set for a role, but not be reset.
            self._set("delete from pg_db_role_setting where setrole = 'service_role'::regrole")
            until(lambda: self.shown(seen) == before)

    def _set(self, statement: str) -> None:
        self._connection.execute(statement.encode())
        self._connection.execute("notify pgrst, 'reload config'")


@pytest.fixture(scope="module")
def admin(stack: LocalStack) -> Iterator[psycopg.Connection]:
    """A connection as the superuser."""
    with psycopg.connect(stack.db_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def settings(stack: LocalStack, admin: psycopg.Connection) -> Iterator[Settings]:
    """The settings of the service's calls."""
    admin.execute(SETTING_OF)
    yield Settings(stack, admin)
    admin.execute("drop function public.setting_of")


@pytest.fixture
def impatient(settings: Settings, request: pytest.FixtureRequest) -> Iterator[None]:
    """A lock is waited for a fifth of the time that it is held, or less: of the API's 8 s it is two fifths of 20 s."""
    with settings.to(getattr(request, "param", "lock_timeout"), "140ms"):
        yield


@contextmanager
def held(stack: LocalStack, lock: str, *parameters: Any) -> Iterator[None]:
    """Somebody holds locks from the block's begin on, and a while into it."""
    connection = psycopg.connect(stack.db_url)
    connection.execute(lock.encode(), parameters)
    release = threading.Timer(HELD_SECONDS, connection.close)
    release.start()
    try:
        yield
    finally:
        release.join()


GATE = "select pg_advisory_xact_lock(uuid_hash_extended(%s, 0))"
STEERING = {
    "cancel": ("running", "cancelled"),
    "pause": ("running", "paused"),
    "resume": ("paused", "pending"),
    "retry_failed": ("failed", "running"),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("action", STEERING)
async def test_a_job_whose_gate_is_held_for_long_is_steered_all_the_same(
    stack: LocalStack, client: Any, kind: str, action: str
) -> None:
    before, after = STEERING[action]
    job = await done(client.trigger_sync(kind, chunks=[{}] * 3, max_retries=0))
    if before == "paused":
        await done(job.pause())
    if before == "failed":
        await done(worker_for(client, lambda chunk: 1 / 0, kinds=[kind]).run_until_idle())
    with held(stack, GATE, job.id):
        assert (await done(getattr(job, action)())).status == after


@pytest.mark.usefixtures("impatient")
async def test_a_job_starts_when_another_of_its_key_is_long_in_starting(
    stack: LocalStack, client: Any, kind: str
) -> None:
    """The other start is undone in the end, as when its client was lost."""
    start = (
        "select public.start_sync_job(%s, job_key => 'k')",
        kind,
    )
    with held(stack, *start):
        job = await done(client.trigger_sync(kind, chunks=[{}] * 2, job_key="k"))
    assert (job.created, (await done(job.progress())).total_chunks) == (True, 2)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("lock", "impatient"), [("gate", "lock_timeout"), ("row", "statement_timeout")], indirect=["impatient"]
)
async def test_a_report_lives_as_long_as_its_lease_is_kept(
    stack: LocalStack, client: Any, kind: str, lock: str
) -> None:
    """And meanwhile the worker does what others have to do, and keeps their leases."""
    job = await done(client.trigger_sync(kind, chunks=[{}] * 2))
    other = await done(client.trigger_sync(kind, chunks=[{}] * 6))
    holding: list[Any] = []

    def handler(chunk: sc.Chunk) -> str:
        if chunk.job_id == job.id and not holding:
            rows = "select from public.chunk_processing_queue where id = %s for update"
            holding.append(held(stack, *((GATE, chunk.job_id) if lock == "gate" else (rows, chunk.id))))
            holding[0].__enter__()
        return "done"

    worker = worker_for(client, handler, kinds=[kind], concurrency=2, lease_seconds=1)
    assert await done(worker.run_until_idle()) == 8
    holding[0].__exit__(None, None, None)
    for each in (job, other):
        chunks = await done(each.chunks())
        assert {(chunk.status, chunk.attempts, chunk.result) for chunk in chunks} == {
            ("completed", 1, "done")
        }


async def test_workers_wait_while_the_database_is_read_only(
    settings: Settings, client: Any, kind: str
) -> None:
    job = await done(client.trigger_sync(kind, chunks=[{}] * 4))
    worker = worker_for(client, lambda chunk: "done", kinds=[kind])
    with settings.to("transaction_read_only", "on"):
        impatient = type(client)(
            client._credentials.url, client._credentials.key, retry=sc.Retry(attempts=2, first_delay=0)
        )
        with pytest.raises(sc.DatabaseReadOnly) as caught:
            await done(impatient.save_kind("nobodys"))
        assert (caught.value.status, caught.value.code) == (405, "25006")
        work = threading.Thread(target=_work, args=[worker])
        work.start()
        until(lambda: worker._core._backoff._next_trouble > 1.0, "a second round that failed")
    work.join(20)
    assert not work.is_alive()
    assert (await done(job.progress())).completed_chunks == 4


def _work(worker: Any) -> None:
    outcome = worker.run_until_idle()
    if inspect.iscoroutine(outcome):
        asyncio.run(outcome)


async def test_the_role_may_begin_its_transactions_serializable(
    settings: Settings, client: Any, kind: str
) -> None:
    """The functions say otherwise: nothing is refused, and no finished chunk is marked failed."""
    with settings.to("default_transaction_isolation", "serializable", seen_as="transaction_isolation"):
        job = await done(client.trigger_sync(kind, chunks=[{}] * 100, job_key=str(uuid.uuid4())))
        await done(job.pause())
        await done(job.resume())
        await done(
            worker_for(client, lambda chunk: chunk.index, kinds=[kind], concurrency=16).run_until_idle()
        )
        assert await done(client.cleanup_stuck_chunks()) == 0
        progress = await done(job.progress())
        assert (progress.status, progress.completed_chunks, progress.failed_chunks) == ("completed", 100, 0)
        assert {chunk.attempts for chunk in await done(job.chunks())} == {1}
