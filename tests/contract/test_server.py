"""A worker beside a server that has handlers of signals of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest

import supabase_chunks as sc
from tests.polling import until

if TYPE_CHECKING:
    from pathlib import Path

    from supabase_chunks.local import LocalStack

APP = """
import asyncio, contextlib
from fastapi import FastAPI
from supabase_chunks import AsyncChunksClient, AsyncWorker

@contextlib.asynccontextmanager
async def lifespan(app):
    async with AsyncChunksClient.from_env() as client:
        worker = AsyncWorker(client, lambda chunk: {"rows": 1}, kinds=["%s"], handle_signals=%s)
        task = asyncio.create_task(worker.run())
        yield
        worker.stop()
        await task

app = FastAPI(lifespan=lifespan)
"""


@pytest.mark.parametrize("handled", [True, False])
def test_one_sigterm_ends_uvicorn_and_the_worker_in_it(
    stack: LocalStack, kind: str, tmp_path: Path, handled: bool
) -> None:
    (tmp_path / "app.py").write_text(textwrap.dedent(APP % (kind, handled)))
    running = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "app:app", "--port", "0"],
        cwd=tmp_path,
        env={**os.environ, "SUPABASE_URL": stack.url, "SUPABASE_SECRET_KEY": stack.secret_key},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        job = sc.ChunksClient(stack.url, stack.secret_key).trigger_sync(kind)
        until(lambda: job.progress().status == "completed", "the worker runs")
        told = time.monotonic()
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=20)
    finally:
        running.kill()
    assert time.monotonic() - told < 5
    assert "Application shutdown complete" in said, said
