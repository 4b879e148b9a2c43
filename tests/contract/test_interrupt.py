"""Ctrl-C while a program waits for a sync."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import supabase_chunks as sc
    from supabase_chunks.local import LocalStack

SYNC = """
import sys
from supabase_chunks import ChunksClient

ChunksClient.from_env().job(sys.argv[1]).wait(progress=lambda progress: print("waiting", flush=True))
"""

ASYNC = """
import asyncio, sys
from supabase_chunks import AsyncChunksClient

async def wait():
    async with AsyncChunksClient.from_env() as client:
        await client.job(sys.argv[1]).wait(progress=lambda progress: print("waiting", flush=True))

asyncio.run(wait())
"""


@pytest.mark.parametrize("program", [SYNC, ASYNC], ids=["sync", "async"])
def test_it_ends_the_program_and_not_the_sync_and_says_how_to_come_back(
    stack: LocalStack, sync_client: sc.ChunksClient, kind: str, program: str
) -> None:
    job = sync_client.trigger_sync(kind, chunks=[{"n": 1}])
    environment = {
        **os.environ,
        "PYTHONPATH": os.getcwd(),
        "SUPABASE_URL": stack.url,
        "SUPABASE_SECRET_KEY": stack.secret_key,
    }
    with subprocess.Popen(
        [sys.executable, "-c", program, str(job.id)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background, the shell has told their children to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT
    assert f"The sync goes on. Come back with client.job('{job.id}').wait(progress=True)" in errors
    assert f"supabase-chunks watch {job.id}" in errors
    assert job.progress().pending_chunks == 1
