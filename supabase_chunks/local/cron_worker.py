"""Runs the jobs in `cron.job` when they are due, as pg_cron's background worker would."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from supabase_chunks.local.reconnect import with_connection
from supabase_chunks.local.schedule import Interval, parse

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_SECONDS = 0.5
_JOBS = (
    "select jobid, schedule, command, username from cron.job where active and database = current_database()"
)
_BEGIN = """
insert into cron.job_run_details (jobid, job_pid, database, username, command, status, start_time)
select jobid, %s, database, username, command, 'running', clock_timestamp()
from cron.job where jobid = %s
returning runid
"""
_END = """
update cron.job_run_details
set status = %s, return_message = %s, end_time = clock_timestamp()
where runid = %s
"""


class CronWorker:
    """The clock of the local project. Times are UTC, and a job never runs twice at the same time."""

    def __init__(self, dsn: str, *, say: Callable[[str], None]) -> None:
        """Make it.

        Args:
            dsn: The database, as a superuser.
            say: Where a line of the log goes.
        """
        self._dsn = dsn
        self._say = say
        self._last_start: dict[int, float] = {}
        self._last_minute: dict[int, datetime] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._complained: set[tuple[int, str]] = set()

    async def run(self) -> None:
        """Run jobs until cancelled."""
        try:
            await with_connection(self._dsn, self._work, name="cron worker", say=self._say)
        finally:
            for task in self._running.values():
                task.cancel()

    async def _work(self, connection: psycopg.AsyncConnection) -> None:
        while True:
            cursor = await connection.execute(_JOBS)
            for job_id, schedule, command, username in await cursor.fetchall():
                if self._is_due(job_id, schedule):
                    self._running[job_id] = asyncio.create_task(self._execute(job_id, command, username))
            await asyncio.sleep(_LOOK_SECONDS)

    def _is_due(self, job_id: int, text: str) -> bool:
        """Whether to start the job now; notes the start."""
        running = self._running.get(job_id)
        if running is not None and not running.done():
            return False
        try:
            schedule = parse(text)
        except ValueError as error:
            if (job_id, text) not in self._complained:
                self._complained.add((job_id, text))
                self._say(f"cron worker: job {job_id} never runs: {error}")
            return False
        now = time.monotonic()
        if isinstance(schedule, Interval):
            # The first run comes one interval after the job is first seen.
            due = now - self._last_start.setdefault(job_id, now) >= schedule.seconds
            if due:
                self._last_start[job_id] = now
            return due
        minute = datetime.now(UTC).replace(second=0, microsecond=0)
        # A minute that had begun when the job was first seen is not made up for.
        seen = self._last_minute.setdefault(job_id, minute)
        if minute == seen:
            return False
        self._last_minute[job_id] = minute
        return schedule.matches(minute)

    async def _execute(self, job_id: int, command: str, username: str) -> None:
        try:
            async with await psycopg.AsyncConnection.connect(
                self._dsn, autocommit=True, application_name="pg_cron", connect_timeout=5
            ) as connection:
                pid = connection.info.backend_pid
                row = await (await connection.execute(_BEGIN, (pid, job_id))).fetchone()
                if row is None:
                    return
                user = sql.Identifier(username)
                try:
                    await connection.execute(sql.SQL("set session authorization {}").format(user))
                    done = await connection.execute(command.encode())
                    outcome = ("succeeded", done.statusmessage or "")
                except psycopg.Error as error:
                    if connection.closed:
                        raise
                    outcome = ("failed", f"ERROR:  {error}")
                await connection.execute("rollback; reset session authorization")
                await connection.execute(_END, (*outcome, row[0]))
        except psycopg.Error as error:
            self._say(f"cron worker: job {job_id} was cut off: {' '.join(str(error).split())[:200]}")
