"""After an outage many jobs wait for webhooks: they are back in no more than one and a half times what a start takes.

Run with `-s` to see the seconds. pg_net's pace is the original's: a batch, and then a second's sleep.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest

from supabase_chunks import ChunksClient
from tests.chaos.trial import KIND, marking
from tests.polling import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from supabase_chunks.local import LocalStack

CHUNKS = 20
START = 'select public.start_sync_job(%s, (select jsonb_agg(\'{"n": 1, "ms": 200}\'::jsonb) from generate_series(1, %s)))'
OPEN = "select count(*) from public.sync_jobs where completed_at is null"


@contextmanager
def paced(functions: Path) -> Iterator[tuple[LocalStack, ChunksClient]]:
    """A stack whose webhooks leave as they do from the original."""
    with marking(functions) as stack, ChunksClient(stack.url, stack.secret_key) as client:
        stack.set_webhooks(pace=1.0)
        yield stack, client


def start(stack: LocalStack, jobs: int) -> None:
    with psycopg.connect(stack.db_url, autocommit=True) as admin:
        for _ in range(jobs):
            admin.execute(START, (KIND, CHUNKS))


def seconds_until_done(stack: LocalStack, begin: Callable[[], object]) -> float:
    began = time.monotonic()
    begin()
    with psycopg.connect(stack.db_url, autocommit=True) as admin:
        until(lambda: admin.execute(OPEN).fetchone() == (0,), seconds=300)
    return time.monotonic() - began


def wrong_address(stack: LocalStack, client: ChunksClient, jobs: int) -> float:
    """All webhooks have failed; then the address is put right."""
    client.configure("http://127.0.0.1:9", stack.secret_key)
    start(stack, jobs)
    failed = "select count(*) from chunk_private.dispatches where error is not null"

    def known() -> bool:
        client.cleanup_stuck_chunks()
        with psycopg.connect(stack.db_url) as admin:
            return admin.execute(failed).fetchone() >= (jobs,)

    until(known, seconds=60)
    return seconds_until_done(stack, lambda: client.configure(stack.url, stack.secret_key))


def crash(stack: LocalStack, client: ChunksClient, jobs: int) -> float:
    """PostgreSQL was killed, and what pg_net had to send is lost; from the first pass on."""
    stack.set_webhooks(pace=3600.0)
    client.configure(stack.url, stack.secret_key)
    start(stack, 1)
    start(stack, jobs - 1)
    stack.restart("postgres")
    stack.set_webhooks(pace=1.0)
    return seconds_until_done(stack, client.cleanup_stuck_chunks)


@pytest.mark.soak
@pytest.mark.parametrize(("outage", "jobs"), [(wrong_address, 100), (crash, 60)])
def test_the_way_back(
    functions: Path, outage: Callable[[LocalStack, ChunksClient, int], float], jobs: int
) -> None:
    with paced(functions) as (stack, _):
        without = seconds_until_done(stack, lambda: start(stack, jobs))
    with paced(functions) as (stack, client):
        back = outage(stack, client, jobs)
    print(f"{outage.__name__}: {jobs} jobs in {without:.1f} s without it, {back:.1f} s after it")
    assert back <= 1.5 * without
