"""A sync of a million chunks, from a generator."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.contract.conftest import both, done

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supabase_chunks.local import LocalStack

COUNT = 1_000_000
LOOK_EVERY = 50_000
MEGABYTE = 1_000_000


def resident() -> int:
    """Return how many bytes of memory this process uses."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.soak
@pytest.mark.parametrize("which", ["sync", "async"])
async def test_a_million_payloads_arrive_and_memory_stays_flat(
    stack: LocalStack, kind: str, which: str, capsys: pytest.CaptureFixture[str]
) -> None:
    used: list[int] = []

    def payloads() -> Iterator[dict[str, object]]:
        for n in range(COUNT):
            if n % LOOK_EVERY == 0:
                used.append(resident())
            yield {"n": n, "text": "x" * 50}

    async with both(which, stack.url, stack.secret_key) as client:
        start = time.monotonic()
        job = await done(client.trigger_sync(kind, chunks=payloads()))
        seconds = time.monotonic() - start
        growth = (max(used[2:]) - used[1]) / MEGABYTE
        with capsys.disabled():
            print(f"\n{which}: {seconds:.0f} s, {COUNT / seconds:,.0f} chunks/s, {growth:+.1f} MB")
        assert growth < 10, f"MB, between {LOOK_EVERY} payloads and {COUNT}"
        progress = await done(job.progress())
        assert (progress.total_chunks, progress.stalled) == (COUNT, False)
    with psycopg.connect(stack.db_url) as connection:
        wrong = connection.execute(
            "select count(*) from public.chunk_processing_queue where parent_sync_job_id = %s "
            "and (payload ->> 'n')::int is distinct from chunk_index",
            [job.id],
        ).fetchone()
    assert wrong == (0,), "each is at its place"
