"""A handler whose service is down for a while: few calls into it, and only the chunks in the slots pay."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from supabase_chunks import ChunksClient
from tests.chaos.trial import KIND, marking
from tests.polling import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from supabase_chunks.local import LocalStack

CAP = 4
CHUNKS = 100
# As in drain.ts.
FAILURES_OF_A_HANDLER = 3


class Service(ThreadingHTTPServer):
    """A foreign system that can be down, and counts its calls."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.down = True
        self.calls = 0
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Answer(BaseHTTPRequestHandler):
    """One of its answers."""

    server: Service

    def do_GET(self) -> None:
        self.server.calls += 1
        self.send_response(503 if self.server.down else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    """It runs, and is down."""
    with Service() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def draining(functions: Path) -> Iterator[LocalStack]:
    """A stack whose invocations drain as long as they can."""
    with marking(functions) as stack, ChunksClient(stack.url, stack.secret_key) as client:
        client.save_kind(KIND, max_concurrency=CAP, max_retries=3, retry_delay_seconds=1)
        yield stack


def test_an_outage_costs_the_chunks_in_the_slots(draining: LocalStack, service: Service) -> None:
    with ChunksClient(draining.url, draining.secret_key) as client:
        job = client.trigger_sync(KIND, chunks=[{"n": n, "url": service.url} for n in range(CHUNKS)])
        began = time.monotonic()
        # Attempts at once, after 1, 3 and 7 s; the last but one is over.
        until(lambda: time.monotonic() - began > 4.5)
        calls = service.calls
        service.down = False
        progress = job.wait(timeout=60, progress=False)
        at_risk = CAP * FAILURES_OF_A_HANDLER
        assert CAP <= calls <= 3 * at_risk
        assert (progress.completed_chunks, progress.failed_chunks) == (CHUNKS, 0)
        assert sum(chunk.attempts > 1 for chunk in job.chunks()) <= at_risk


def test_a_longer_one_fails_those_and_no_others(draining: LocalStack, service: Service) -> None:
    with ChunksClient(draining.url, draining.secret_key) as client:
        job = client.trigger_sync(
            KIND, chunks=[{"n": n, "url": service.url} for n in range(CHUNKS)], max_retries=1
        )
        until(lambda: job.progress().failed_chunks >= CAP, seconds=30)
        service.down = False
        progress = job.wait(timeout=60, progress=False, raise_on_failure=False)
        assert progress.failed_chunks <= 2 * CAP * FAILURES_OF_A_HANDLER
        assert progress.completed_chunks == CHUNKS - progress.failed_chunks
