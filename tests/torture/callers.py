"""The callers: by SQL, and by both clients of the SDK; three of each, in a process of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg.types.json import Jsonb

from supabase_chunks import AsyncChunksClient, ChunksClient, Retry, operations
from supabase_chunks.errors import ChunksError
from tests.torture.recorder import AsyncRecordingTransport, Recorder, RecordingTransport
from tests.torture.settings import PATIENCE, Settings
from tests.torture.workload import Call, Caller, CallError

_RETRY = Retry(attempts=4, max_delay=0.5)
_CALLERS = 3


def by_sql(name: str, settings: Settings, until: float) -> None:
    """Three callers with connections of their own to PostgreSQL."""
    recorder = Recorder(Path(settings.folder), name)
    callers = _callers(name, settings, until)
    _together(*(lambda caller=caller: _call_by_sql(recorder, caller, settings.db_url) for caller in callers))


def _call_by_sql(recorder: Recorder, caller: Caller, db_url: str) -> None:
    connection: psycopg.Connection | None = None
    calls = 0

    def call(step: Call) -> Any:
        nonlocal connection, calls
        calls += 1
        if connection is None or connection.closed or calls % 25 == 0:
            if connection is not None:
                connection.close()
            connection = None
            try:
                options = "-c role=service_role -c statement_timeout=1500"
                connection = psycopg.connect(
                    db_url, autocommit=True, options=options, application_name="torture", connect_timeout=2
                )
            except psycopg.Error as error:
                raise CallError from error
        operation = recorder.begin(step.function, step.arguments)
        try:
            (answer,) = connection.execute(*_statement(step)).fetchone()  # type: ignore[misc]
        except psycopg.Error as error:
            recorder.failed(operation, error.sqlstate, str(error))
            raise CallError from error
        recorder.ok(operation, answer)
        return answer

    _drive(caller, call)


def _statement(step: Call) -> tuple[Any, dict[str, Any]]:
    named = ", ".join(f"{name} => %({name})s" for name in step.arguments)
    returns_rows = step.function == "claim_next_chunk_job_safe"
    shape = (
        "coalesce(jsonb_agg(to_jsonb(r)), '[]') from public.{f}({n}) r" if returns_rows else "public.{f}({n})"
    )
    return "select " + shape.format(f=step.function, n=named), {
        name: _adapted(name, value) for name, value in step.arguments.items()
    }


def _adapted(name: str, value: Any) -> Any:
    is_json = isinstance(value, dict) or name in {"chunks", "completions", "leases", "next_chunks"}
    return Jsonb(value) if is_json else value


def by_sdk(name: str, settings: Settings, until: float) -> None:
    """Three callers that share a `ChunksClient`."""
    recorder = Recorder(Path(settings.folder), name)
    http = httpx.Client(transport=RecordingTransport(recorder), timeout=PATIENCE)
    client = ChunksClient(settings.url, settings.key, http_client=http, retry=_RETRY)

    def call(step: Call) -> Any:
        try:
            return _plain(client._driver.run(_flow(step)))
        except ChunksError as error:
            raise CallError from error

    callers = _callers(name, settings, until)
    _together(*(lambda caller=caller: _drive(caller, call) for caller in callers))


def by_async_sdk(name: str, settings: Settings, until: float) -> None:
    """Three callers that share an `AsyncChunksClient`."""
    recorder = Recorder(Path(settings.folder), name)

    async def drive(client: AsyncChunksClient, caller: Caller) -> None:
        steps = caller.run()
        step = next(steps, None)
        while step is not None:
            try:
                if isinstance(step, Call):
                    answer = _plain(await client._driver.run(_flow(step)))
                else:
                    answer = await asyncio.sleep(step)
            except ChunksError as error:
                step = _next(lambda error=error: steps.throw(CallError(str(error))))
            else:
                step = _next(lambda answer=answer: steps.send(answer))

    async def run() -> None:
        http = httpx.AsyncClient(transport=AsyncRecordingTransport(recorder), timeout=PATIENCE)
        client = AsyncChunksClient(settings.url, settings.key, http_client=http, retry=_RETRY)
        callers = _callers(name, settings, until)
        await asyncio.gather(*(drive(client, caller) for caller in callers))

    asyncio.run(run())


def _flow(step: Call) -> Any:
    return getattr(operations, step.function)(**step.arguments)


def _plain(answer: Any) -> Any:
    """An answer of the SDK as SQL gives it."""
    if isinstance(answer, list):
        return [_plain(each) for each in answer]
    return answer.model_dump(mode="json") if hasattr(answer, "model_dump") else answer


def _callers(name: str, settings: Settings, until: float) -> list[Caller]:
    return [Caller(f"{name}-{n}", settings.seed, until=until, jobs=settings.jobs) for n in range(_CALLERS)]


def _drive(caller: Caller, call: Callable[[Call], Any]) -> None:
    steps = caller.run()
    step = next(steps, None)
    while step is not None:
        try:
            answer = call(step) if isinstance(step, Call) else time.sleep(step)
        except CallError as error:
            step = _next(lambda error=error: steps.throw(error))
        else:
            step = _next(lambda answer=answer: steps.send(answer))


def _next(go_on: Callable[[], Any]) -> Any:
    try:
        return go_on()
    except StopIteration:
        return None


def _together(*work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
