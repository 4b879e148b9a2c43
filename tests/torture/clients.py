"""The processes that use the queue. They can be killed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import postgrest

from supabase_chunks import ChunksClient, Retry, models
from supabase_chunks.errors import ChunksError
from tests.torture import callers, workers
from tests.torture.settings import PATIENCE, Settings

# Imported before the processes are forked, rather than by each of them at its first call.
__all__ = ["ROLES", "models", "postgrest", "run"]

ROLES: dict[str, Callable[[str, Settings, float], None]] = {
    "sql": callers.by_sql,
    "sdk": callers.by_sdk,
    "async-sdk": callers.by_async_sdk,
    "worker": workers.worker,
    "async-worker": workers.async_worker,
}


def run(role: str, name: str, settings: Settings) -> None:
    """Be one of them; ends with the run, even when nobody is left to end it."""
    # What they have to say of chunks that fail is for nobody; a fault of theirs is beside their history.
    log = os.open(Path(settings.folder) / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # A first call, which sets up the rest.
    with suppress(ChunksError):
        client = ChunksClient(settings.url, settings.key, timeout=PATIENCE, retry=Retry(attempts=1))
        client.cleanup_stuck_chunks()
    began = settings.ready(name)
    ends = threading.Timer(began + settings.works_for - time.monotonic(), lambda: os._exit(0))
    ends.daemon = True
    ends.start()
    ROLES[role](name, settings, began + settings.calls_for)
