"""Both Python workers, each in a process of its own."""

from __future__ import annotations

import asyncio
import time
import uuid
from pathlib import Path

import httpx

from supabase_chunks import AsyncChunksClient, AsyncWorker, Chunk, ChunksClient, Result, Throttled, Worker
from tests.torture.recorder import AsyncRecordingTransport, Recorder, RecordingTransport
from tests.torture.settings import PATIENCE, Settings
from tests.torture.steps import KIND, next_chunks


def worker(name: str, settings: Settings, _: float) -> None:
    """A `Worker`."""
    http = httpx.Client(transport=RecordingTransport(Recorder(Path(settings.folder), name)), timeout=PATIENCE)
    client = ChunksClient(settings.url, settings.key, http_client=http)

    def work(chunk: Chunk) -> Result:
        time.sleep(chunk.payload.get("ms", 0) / 1000)
        return _result(chunk)

    Worker(client, work, kinds=[KIND], concurrency=3, worker_id=name, handle_signals=False).run()


def async_worker(name: str, settings: Settings, _: float) -> None:
    """An `AsyncWorker`."""
    recorder = Recorder(Path(settings.folder), name)

    async def work(chunk: Chunk) -> Result:
        await asyncio.sleep(chunk.payload.get("ms", 0) / 1000)
        return _result(chunk)

    async def run() -> None:
        http = httpx.AsyncClient(transport=AsyncRecordingTransport(recorder), timeout=PATIENCE)
        client = AsyncChunksClient(settings.url, settings.key, http_client=http)
        await AsyncWorker(
            client, work, kinds=[KIND], concurrency=3, worker_id=name, handle_signals=False
        ).run()

    asyncio.run(run())


def _result(chunk: Chunk) -> Result:
    asked = chunk.payload
    if chunk.attempt <= asked.get("fails", 0):
        raise ValueError("as the chunk asks")
    if asked.get("throttled") and uuid.uuid4().int % 2:
        raise Throttled(1)
    return Result({"m": asked["m"]}, next_chunks=next_chunks(asked) or (), items_processed=asked["items"])
