"""The real pg_cron, on PostgreSQL 15: a job whose worker was killed comes home with nobody calling anything.

The watchdog needs read committed and writes: it does so as a role whose transactions begin otherwise.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from aiohttp import web
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from supabase_chunks.assets import migrations_dir
from supabase_chunks.local import migrations, platform
from supabase_chunks.local.net_worker import NetWorker
from supabase_chunks.local.postgres import PostgresServer
from tests.sql import invariants
from tests.sql.database import Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from concurrent.futures import Future

BIN_DIR = Path("/usr/lib/postgresql/15/bin")
SETTINGS = {
    "shared_preload_libraries": "pg_cron",
    "cron.database_name": "postgres",
    # Else pg_cron would log in, with a password that it does not have.
    "cron.use_background_workers": "on",
}
# Of the role that has scheduled the watchdog, and as which pg_cron runs it.
OTHER_DEFAULTS = """
alter role postgres set default_transaction_isolation = 'serializable';
alter role postgres set default_transaction_read_only = on;
"""
KEY = "sb_secret_for_the_tests"
CHUNKS = 5
# pg_cron before 1.5 knows minutes only, and a lease that has not ended at one is seen at the next.
TWO_MINUTES = 130.0

# Takes a chunk and never reports.
WORKER = """
import sys, time, psycopg
with psycopg.connect(sys.argv[1], autocommit=True, options="-c role=service_role") as connection:
    rows = connection.execute("select chunk_id from public.claim_next_chunk_job_safe('doomed')").fetchall()
    print(len(rows), flush=True)
    time.sleep(600)
"""


@contextmanager
def migrated() -> Iterator[str]:
    """A migrated database with the real pg_cron, as a superuser's DSN."""
    if not (BIN_DIR.parent / "lib" / "pg_cron.so").exists() and not os.environ.get("CI"):
        pytest.skip("PostgreSQL 15 with pg_cron is missing (Debian: postgresql-15-cron)")
    with PostgresServer(bin_dir=BIN_DIR, settings=SETTINGS) as server:
        platform.install(server.dsn)
        migrations.apply(server.dsn, migrations_dir())
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(OTHER_DEFAULTS)
        yield server.dsn


async def call(dsn: str, function: str, /, **arguments: Any) -> list[dict[str, Any]]:
    """Call a function of the queue as the service; return its rows."""
    async with await psycopg.AsyncConnection.connect(
        dsn, autocommit=True, options="-c role=service_role", row_factory=dict_row
    ) as connection:
        named = ", ".join(f"{name} => %({name})s" for name in arguments)
        cursor = await connection.execute(f"select * from public.{function}({named})".encode(), arguments)
        return await cursor.fetchall()


@asynccontextmanager
async def answering(dsn: str, calls: list[Any]) -> AsyncIterator[str]:
    """A project whose processor, when a webhook calls it, works until there is nothing left; yields its URL."""

    async def process(request: web.Request) -> web.Response:
        assert request.headers["apikey"] == KEY
        calls.append(await request.json())
        while rows := await call(dsn, "claim_next_chunk_job_safe", worker_id="alive"):
            (chunk,) = rows
            token = {"chunk_id": chunk["chunk_id"], "claim_token": chunk["claim_token"]}
            await call(dsn, "complete_chunk_job_safe", **token, items_processed=1)
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/functions/v1/background-sync-processor", process)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def sending(dsn: str) -> AsyncIterator[None]:
    """Webhooks leave the database."""
    task = asyncio.create_task(NetWorker(dsn, say=lambda line: None).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def lose_a_worker(database: str) -> None:
    """Start a job, kill its worker in the middle of a chunk, and see what has come of it."""
    calls: list[Any] = []
    async with answering(database, calls) as url:
        await call(database, "configure_chunk_processing", project_url=url, processor_key=KEY)
        await call(database, "save_sync_kind", kind="web", handler="do-it", lease_seconds=1)
        chunks = Jsonb([{"n": n} for n in range(CHUNKS)])
        (started,) = await call(database, "start_sync_job", kind="web", chunks=chunks)
        job = started["start_sync_job"]["id"]

        # Nothing has sent the webhook yet: this worker takes the only slot.
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WORKER, database, stdout=asyncio.subprocess.PIPE
        )
        assert worker.stdout is not None
        assert await worker.stdout.readline() == b"1\n"
        worker.kill()
        await worker.wait()

        async with sending(database):
            deadline = asyncio.get_running_loop().time() + TWO_MINUTES
            while (progress := await read(database, job))["status"] != "completed":
                assert asyncio.get_running_loop().time() < deadline, progress
                await asyncio.sleep(0.2)
    assert progress["completed_chunks"] == progress["items_processed"] == CHUNKS
    assert {body["parent_sync_job_id"] for body in calls} == {job}
    with psycopg.connect(database, autocommit=True, row_factory=dict_row) as connection:
        session = Session(connection)
        (attempt,) = session.rows("select a.outcome, a.worker_id from chunk_private.chunk_attempts a")
        assert attempt == {"outcome": "lost", "worker_id": "doomed"}
        assert session.chunks(job)[0]["attempts"] == 2
        runs = session.rows(
            "select r.status from cron.job_run_details r join cron.job j using (jobid)"
            " where j.jobname = 'supabase-chunks-watchdog'"
        )
        assert {"status": "succeeded"} in runs
        invariants.check(session)


async def read(dsn: str, job: str) -> dict[str, Any]:
    """Progress, which changes nothing."""
    (row,) = await call(dsn, "get_sync_job_progress_safe", parent_sync_job_id=job)
    progress: dict[str, Any] = row["get_sync_job_progress_safe"]
    return progress


def a_worker_is_lost() -> None:
    """On a server of its own, since that is waited for until pg_cron's minute is full."""
    with migrated() as database:
        asyncio.run(lose_a_worker(database))


@pytest.mark.meanwhile(scenario=a_worker_is_lost)
def test_a_job_of_a_killed_worker_comes_home_by_itself(scenario: Future[None]) -> None:
    scenario.result()
