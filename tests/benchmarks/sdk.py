"""The SDK part of the goals: what a call, an import and a worker cost."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import resources

import httpx
import procrastinate
import psycopg

from supabase_chunks import ChunksClient, Worker
from supabase_chunks.local import LocalStack
from tests.benchmarks.ground import Report

JOBS = 4_000


def imports(report: Report) -> None:
    """`import supabase_chunks` against `import supabase`, each in a new interpreter."""

    def seconds(module: str) -> float:
        code = (
            f"import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
        )
        return float(
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        )

    for module in ("supabase_chunks", "supabase"):
        seconds(module)  # compiles, and warms the disk
    pairs = [(seconds("supabase_chunks"), seconds("supabase")) for _ in range(7)]
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    report.add(
        "import supabase_chunks / import supabase",
        f"{ours * 1000:.0f} / {theirs * 1000:.0f} ms",
        ratio=ratio,
        at_most=0.25,
    )


def _median_ms(call: Callable[[], object], times: int = 400) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(taken)


def progress(report: Report) -> None:
    """`Job.progress()` against the same request sent with bare httpx."""
    with (
        LocalStack(functions=None) as stack,
        ChunksClient(stack.url, stack.secret_key) as client,
        httpx.Client() as bare,
    ):
        job = client.trigger_sync("custom", total_items=1000, chunk_size=10)
        url = f"{stack.url}/rest/v1/rpc/get_sync_job_progress_safe"

        def plain() -> object:
            answer = bare.post(
                url, json={"parent_sync_job_id": str(job.id)}, headers={"apikey": stack.secret_key}
            )
            return answer.json()

        rounds = [(_median_ms(job.progress), _median_ms(plain)) for _ in range(5)]
    ratio = statistics.median(a / b for a, b in rounds)
    ours, theirs = (statistics.median(side) for side in zip(*rounds, strict=True))
    report.add("SDK progress() / bare httpx", f"{ours:.2f} / {theirs:.2f} ms", ratio=ratio, at_most=1.3)


def _our_worker(stack: LocalStack) -> float:
    """Chunks a second of a `Worker` whose handler does nothing, through PostgREST."""
    with ChunksClient(stack.url, stack.secret_key) as client:
        client.save_kind("noop", max_concurrency=1000)
        client.trigger_sync("noop", total_items=JOBS, chunk_size=1)
        start = time.perf_counter()
        done = Worker(client, lambda chunk: None, kinds=["noop"], concurrency=4, prefetch=96).run_until_idle()
        if done != JOBS:
            raise RuntimeError(f"{done} of {JOBS} chunks were worked")
        return done / (time.perf_counter() - start)


async def _procrastinate_worker(dsn: str) -> float:
    """Jobs a second of procrastinate's worker whose task does nothing, on its direct connection."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn))

    @app.task(name="noop")
    async def noop(n: int) -> None:
        """Do nothing."""

    async with app.open_async():
        for first in range(0, JOBS, 500):
            await noop.batch_defer_async(*({"n": n} for n in range(first, first + 500)))
        start = time.perf_counter()
        await app.run_worker_async(
            wait=False, concurrency=100, install_signal_handlers=False, listen_notify=False
        )
        return JOBS / (time.perf_counter() - start)


def worker(report: Report) -> None:
    """Our worker through PostgREST against procrastinate's on its direct connection, on one PostgreSQL."""
    with LocalStack(functions=None) as stack:
        dsn = stack.db_url.rsplit("/", 1)[0] + "/procrastinate"
        with psycopg.connect(stack.db_url, autocommit=True) as connection:
            connection.execute("create database procrastinate")
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute((resources.files("procrastinate") / "sql" / "schema.sql").read_text())
        rounds = [(_our_worker(stack), asyncio.run(_procrastinate_worker(dsn))) for _ in range(3)]
    ours, theirs = (statistics.median(side) for side in zip(*rounds, strict=True))
    report.add(
        "Worker, no-op, through PostgREST / procrastinate's worker",
        f"{ours:.0f} / {theirs:.0f} a second",
        ratio=statistics.median(a / b for a, b in rounds),
        at_least=3.0,
    )
