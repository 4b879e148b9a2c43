"""Who puts things right after the last fault, as an operator would: seals, resumes, runs the watchdog, asks for webhooks."""

from __future__ import annotations

import time
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from tests.torture.connection import connect
from tests.torture.recorder import Recorder

_OPEN = (
    "select j.id::text, j.status, j.sealed from public.sync_jobs j where j.completed_at is null order by j.id"
)


class Steward:
    """Calls by SQL, recorded as all calls are."""

    def __init__(self, db_url: str, recorder: Recorder) -> None:
        """Take the database and where to record."""
        self._db_url = db_url
        self._recorder = recorder

    def call(self, function: str, **arguments: Any) -> Any:
        """Call a function; None when it was not done."""
        named = ", ".join(f"{name} => %({name})s" for name in arguments)
        sent = {name: Jsonb(value) if isinstance(value, list) else value for name, value in arguments.items()}
        try:
            with connect(self._db_url, role="service_role") as connection:
                operation = self._recorder.begin(function, arguments)
                try:
                    (answer,) = connection.execute(
                        f"select public.{function}({named})".encode(), sent
                    ).fetchone()  # type: ignore[misc]
                except psycopg.Error as error:
                    self._recorder.failed(operation, error.sqlstate, str(error))
                    return None
        except psycopg.Error:
            return None
        self._recorder.ok(operation, answer)
        return answer

    def settle(self, bound: float) -> float:
        """Put everything right and wait until all jobs have ended; returns after how many seconds, or the bound."""
        began = time.monotonic()
        operation = self._recorder.begin("settle", {})
        self.call("block_sync_limit", key="narrow", seconds=0)
        next_pass = 0.0
        while (open_jobs := self._open()) and time.monotonic() < began + bound:
            if time.monotonic() >= next_pass:
                for job, status, sealed in open_jobs:
                    if not sealed:
                        self.call("append_sync_chunks", parent_sync_job_id=job, chunks=[], seal=True)
                    if status == "paused":
                        self.call("resume_sync_job", parent_sync_job_id=job)
                self.call("cleanup_stuck_chunks")
                self.call("trigger_next_chunk_processing")
                next_pass = time.monotonic() + 0.7
            time.sleep(0.05)
        self._recorder.ok(operation, {"bound": bound, "open": [job for job, _, _ in open_jobs]})
        return time.monotonic() - began

    def _open(self) -> list[tuple[str, str, bool]]:
        with connect(self._db_url) as connection:
            return connection.execute(_OPEN).fetchall()
