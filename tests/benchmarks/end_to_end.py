"""The whole chain: from the completion of a chunk to the claim of the next, by webhook and by draining."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import psycopg

from supabase_chunks import ChunksClient
from supabase_chunks.local import LocalStack
from tests.benchmarks.ground import Report
from tests.handlers import write_functions

HANDLER = """
import { serveHandler } from "../_shared/serve.ts";

export default serveHandler(() => ({ result: null }));
"""


def _gap_ms(stack: LocalStack, since: str, chunks: int = 200) -> float:
    """Milliseconds (median) to the next claim, of a job whose chunks go one after the other.

    Args:
        stack: Where.
        since: From which of a chunk's times: completed_at or started_at.
        chunks: How many.
    """
    with ChunksClient(stack.url, stack.secret_key) as client:
        client.save_kind("noop", handler="noop", max_concurrency=1)
        job = client.trigger_sync("noop", total_items=chunks, chunk_size=1)
        job.wait(timeout=300)
    with psycopg.connect(stack.db_url) as connection:
        rows = connection.execute(
            f"select 1000 * extract(epoch from lead(q.started_at) over (order by q.started_at) - q.{since})::float8"
            " from public.chunk_processing_queue q where q.parent_sync_job_id = %s",
            (job.id,),
        ).fetchall()
    return statistics.median(row[0] for row in rows if row[0] is not None)


def webhooks(report: Report) -> None:
    """By webhook, by draining, and draining with pg_net at its real pace."""
    with tempfile.TemporaryDirectory() as folder:
        functions = write_functions(Path(folder) / "functions", "noop", HANDLER)
        with LocalStack(functions=functions, functions_env={"CHUNKS_PER_INVOCATION": "1"}) as stack:
            gap = _gap_ms(stack, "completed_at")
            report.add(
                "a chunk done -> the next one claimed, by webhook, ms", f"{gap:.1f}", ratio=gap, at_most=60
            )
        with LocalStack(functions=functions) as stack:
            # Draining claims in the transaction that completes: shown is the whole cycle, claim, handler, report.
            gap = _gap_ms(stack, "started_at")
            report.add(
                "a chunk claimed -> the next one claimed, draining, ms", f"{gap:.1f}", ratio=gap, at_most=15
            )
        with (
            LocalStack(functions=functions, webhook_pace=1.0) as stack,
            ChunksClient(stack.url, stack.secret_key) as client,
        ):
            client.save_kind("noop", handler="noop", max_concurrency=1)
            progress = client.trigger_sync("noop", total_items=200, chunk_size=1).wait(timeout=300)
            if progress.started_at is None or progress.completed_at is None:
                raise RuntimeError("the job has no times")
            speed = 200 / (progress.completed_at - progress.started_at).total_seconds()
            report.add(
                "200 empty chunks, cap 1, pg_net at its pace, chunks a second",
                f"{speed:.0f}",
                ratio=speed,
                at_least=20,
            )
