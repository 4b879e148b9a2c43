"""The callers: by SQL, and by both clients of the SDK; some of each, in a process of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg.types.json import Jsonb

from supabase_chunks import AsyncChunksClient, ChunksClient, Retry, operations
from supabase_chunks.errors import ChunksError
from tests.torture.recorder import AsyncRecordingTransport, Recorder, RecordingTransport
from tests.torture.settings import PATIENCE, Settings
from tests.torture.steps import AT_ONCE, Call, CallError, Steps, Together
from tests.torture.workload import Caller

_RETRY = Retry(attempts=4, max_delay=0.5)
# The SDK takes much of a processor, SQL little.
_CALLERS = {"sql": 6, "sdk": 2, "async-sdk": 2}
# A connection lives for so many calls: what the database defaults to reaches new ones only.
_CALLS_A_CONNECTION = 25
_JSON = {"chunks", "completions", "leases", "next_chunks"}


def by_sql(name: str, settings: Settings, until: float) -> None:
    """Callers with connections of their own to PostgreSQL."""
    recorder = Recorder(Path(settings.folder), name)
    connections = threading.local()

    def call(step: Call) -> Any:
        connection = _connection(connections, settings.db_url)
        operation = recorder.begin(step.function, step.arguments)
        try:
            (answer,) = connection.execute(*_statement(step)).fetchone()  # type: ignore[misc]
        except psycopg.Error as error:
            recorder.failed(operation, error.sqlstate, str(error))
            raise CallError from error
        recorder.ok(operation, answer)
        return answer

    _drive_all(_callers(name, settings, until), call)


def _connection(connections: threading.local, db_url: str) -> psycopg.Connection[Any]:
    """The thread's own."""
    open_ = getattr(connections, "open", None)
    connections.calls = getattr(connections, "calls", 0) + 1
    if open_ is not None and not open_.closed and connections.calls % _CALLS_A_CONNECTION:
        return open_
    if open_ is not None:
        open_.close()
    options = f"-c role=service_role -c statement_timeout={PATIENCE}s"
    try:
        connections.open = psycopg.connect(
            db_url, autocommit=True, options=options, application_name="torture", connect_timeout=2
        )
    except psycopg.Error as error:
        raise CallError from error
    return connections.open


def _statement(step: Call) -> tuple[bytes, dict[str, Any]]:
    function = f"public.{step.function}({', '.join(f'{name} => %({name})s' for name in step.arguments)})"
    if step.function == "claim_next_chunk_job_safe":  # returns rows
        function = f"coalesce(jsonb_agg(to_jsonb(r)), '[]') from {function} r"
    adapted = {
        name: Jsonb(value) if name in _JSON or isinstance(value, dict) else value
        for name, value in step.arguments.items()
    }
    return f"select {function}".encode(), adapted


def by_sdk(name: str, settings: Settings, until: float) -> None:
    """Callers that share a `ChunksClient`."""
    recorder = Recorder(Path(settings.folder), name)
    http = httpx.Client(transport=RecordingTransport(recorder), timeout=PATIENCE)
    client = ChunksClient(settings.url, settings.key, http_client=http, retry=_RETRY)

    def call(step: Call) -> Any:
        try:
            return _plain(client._driver.run(_flow(step)))
        except ChunksError as error:
            raise CallError from error

    _drive_all(_callers(name, settings, until), call)


def by_async_sdk(name: str, settings: Settings, until: float) -> None:
    """Callers that share an `AsyncChunksClient`."""
    recorder = Recorder(Path(settings.folder), name)

    async def run() -> None:
        http = httpx.AsyncClient(transport=AsyncRecordingTransport(recorder), timeout=PATIENCE)
        client = AsyncChunksClient(settings.url, settings.key, http_client=http, retry=_RETRY)

        async def call(step: Call) -> Any:
            try:
                return _plain(await client._driver.run(_flow(step)))
            except ChunksError as error:
                raise CallError from error

        async def do(step: Call | Together | float) -> Any:
            if isinstance(step, Call):
                return await call(step)
            if isinstance(step, Together):
                answers = await asyncio.gather(*map(call, step.calls), return_exceptions=True)
                return [None if isinstance(answer, CallError) else answer for answer in answers]
            return await asyncio.sleep(step)

        async def drive(steps: Steps) -> None:
            step = next(steps, None)
            while step is not None:
                try:
                    answer = await do(step)
                except CallError as error:
                    step = _next(lambda error=error: steps.throw(error))
                else:
                    step = _next(lambda answer=answer: steps.send(answer))

        await asyncio.gather(*(drive(caller.run()) for caller in _callers(name, settings, until)))

    asyncio.run(run())


def _flow(step: Call) -> Any:
    return getattr(operations, step.function)(**step.arguments)


def _plain(answer: Any) -> Any:
    """An answer of the SDK as SQL gives it."""
    if isinstance(answer, list):
        return [_plain(each) for each in answer]
    return answer.model_dump(mode="json") if hasattr(answer, "model_dump") else answer


def _callers(name: str, settings: Settings, until: float) -> list[Caller]:
    return [
        Caller(f"{name}-{n}", settings.seed, until=until, jobs=settings.jobs)
        for n in range(_CALLERS[name.rpartition("-")[0]])
    ]


def _drive_all(callers: list[Caller], call: Callable[[Call], Any]) -> None:
    """Drive callers, each in a thread, and what each does together in more of them."""

    def quietly(step: Call) -> Any:
        try:
            return call(step)
        except CallError:
            return None

    def drive(steps: Steps) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            step = next(steps, None)
            while step is not None:
                try:
                    if isinstance(step, Together):
                        answer: Any = list(pool.map(quietly, step.calls))
                    else:
                        answer = call(step) if isinstance(step, Call) else time.sleep(step)
                except CallError as error:
                    step = _next(lambda error=error: steps.throw(error))
                else:
                    step = _next(lambda answer=answer: steps.send(answer))

    threads = [threading.Thread(target=drive, args=(caller.run(),)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _next(go_on: Callable[[], Any]) -> Any:
    try:
        return go_on()
    except StopIteration:
        return None
