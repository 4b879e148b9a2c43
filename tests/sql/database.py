"""A database with the queue in it, and connections to it in every role."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import psycopg
import pytest
from psycopg.abc import Buffer
from psycopg.rows import dict_row
from psycopg.types.datetime import TimestamptzLoader
from psycopg.types.json import Jsonb

from supabase_chunks.local.postgres import PostgresServer
from tests.sql import recycling

Row = dict[str, Any]
# How many connections of a sort a database keeps from test to test.
_MOST_IDLE = 4
NEVER = datetime.max.replace(tzinfo=UTC)


# The arguments that are jsonb.
_JSON = {
    *("chunks", "payload", "result", "next_chunks", "completions", "leases"),
    *("checkpoint", "next_state", "state", "settings"),
}
# What `pass_time` moves.
_TIMESTAMPS = {
    "public.sync_jobs": ("created_at", "started_at", "completed_at"),
    "public.chunk_processing_queue": (
        *(
            "checkpoint_at",
            "ready_at",
            "locked_until",
            "started_at",
            "completed_at",
            "updated_at",
            "created_at",
        ),
    ),
    "chunk_private.slots": ("ready_at", "dispatched_at"),
    "public.sync_limits": ("blocked_until",),
    "chunk_private.limit_paces": ("free_at",),
    "chunk_private.limit_seekers": ("asked_at",),
    "chunk_private.returned_chunks": ("ready_at",),
    "chunk_private.job_counters": ("last_activity_at", "last_error_at"),
    "chunk_private.dispatches": ("created_at",),
    "chunk_private.watchdog": ("scheduled_at", "last_pass_at"),
}


class _Moment(TimestamptzLoader):
    """A timestamp, or NEVER for `infinity`, which Python's type has not."""

    def load(self, data: Buffer) -> datetime:
        return NEVER if bytes(data) == b"infinity" else super().load(data)


class Session:
    """One connection, and the queue's functions as they are called in SQL.

    Chunks are passed around as the rows that a claim returns.
    """

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self.connection = connection

    def rows(self, query: str, *parameters: Any) -> list[Row]:
        """Return all rows of a query."""
        return self.connection.execute(query, parameters or None).fetchall()

    def value(self, query: str, *parameters: Any) -> Any:
        """Return the first column of a query's only row."""
        (row,) = self.rows(query, *parameters)
        return next(iter(row.values()))

    def execute(self, query: str, *parameters: Any) -> int:
        """Run a statement; return how many rows it touched."""
        return self.connection.execute(query, parameters or None).rowcount

    def call_rows(self, function: str, /, **arguments: Any) -> list[Row]:
        """Call a function of schema public by named arguments, as rows."""
        named = ", ".join(f"{name} => %({name})s" for name in arguments)
        adapted = {
            name: Jsonb(value) if name in _JSON and value is not None else value
            for name, value in arguments.items()
        }
        query = f"select * from public.{function}({named})"
        return self.connection.execute(query, adapted).fetchall()

    def call(self, function: str, /, **arguments: Any) -> Any:
        """Call a function that returns one value."""
        (row,) = self.call_rows(function, **arguments)
        return next(iter(row.values()))

    def start(self, kind: str = "plain", **arguments: Any) -> Any:
        """Start a job; returns its progress with `created`."""
        return self.call("start_sync_job", kind=kind, **arguments)

    def claim(
        self,
        job: str | None = None,
        worker_id: str = "w",
        kinds: Sequence[str] | None = ("plain",),
        **arguments: Any,
    ) -> Row | None:
        """Claim one chunk, of any job of these kinds or of one job."""
        rows = self.call_rows(
            "claim_next_chunk_job_safe",
            worker_id=worker_id,
            parent_sync_job_id=job,
            kinds=list(kinds) if kinds is not None else None,
            **arguments,
        )
        assert len(rows) <= 1
        return rows[0] if rows else None

    def claimed(self, job: str | None = None, **arguments: Any) -> Row:
        """Claim one chunk that must be there."""
        chunk = self.claim(job, **arguments)
        assert chunk is not None, "nothing to claim"
        return chunk

    def complete(self, chunk: Row, **arguments: Any) -> Any:
        """Report a chunk done."""
        return self.call(
            "complete_chunk_job_safe",
            chunk_id=chunk["chunk_id"],
            claim_token=chunk["claim_token"],
            **arguments,
        )

    def fail(self, chunk: Row, error: str = "broken", **arguments: Any) -> Any:
        """Report a chunk failed."""
        return self.complete(chunk, success=False, error=error, **arguments)

    def extend(self, chunk: Row, **arguments: Any) -> Any:
        """Send a heartbeat."""
        return self.call(
            "extend_chunk_lease", chunk_id=chunk["chunk_id"], claim_token=chunk["claim_token"], **arguments
        )

    def give_back(self, chunk: Row, **arguments: Any) -> Any:
        """Give a claimed chunk back."""
        return self.call(
            "release_chunk_job", chunk_id=chunk["chunk_id"], claim_token=chunk["claim_token"], **arguments
        )

    def progress(self, job: str) -> Any:
        """Return a job's progress."""
        return self.call("get_sync_job_progress_safe", parent_sync_job_id=job)

    def cleanup(self, **arguments: Any) -> int:
        """Run one pass of the watchdog."""
        return int(self.call("cleanup_stuck_chunks", **arguments))

    def control(self, action: str, job: str) -> Any:
        """Cancel, pause, resume or retry: by the function's name."""
        return self.call(action, parent_sync_job_id=job)

    def chunks(self, job: str, status: str | None = None) -> list[Row]:
        """Return a job's rows of the queue in order."""
        return self.rows(
            "select q.* from public.chunk_processing_queue q"
            " where q.parent_sync_job_id = %s and (%s::text is null or q.status = %s) order by q.chunk_index",
            job,
            status,
            status,
        )

    def attempts(self, chunk_id: int) -> list[Row]:
        """Return the recorded attempts of a chunk in order."""
        return self.rows(
            "select a.* from chunk_private.chunk_attempts a where a.chunk_id = %s order by a.id", chunk_id
        )

    def drain(self, job: str | None = None, **arguments: Any) -> int:
        """Claim and complete until nothing is claimable; returns how many."""
        done = 0
        while (chunk := self.claim(job, **arguments)) is not None:
            self.complete(chunk)
            done += 1
        return done

    def slots(self, job: str) -> list[Row]:
        """Return a job's slots: one a chunk that waits to be claimed or is processing."""
        return self.rows(
            "select s.* from chunk_private.slots s where s.job_id = %s order by s.chunk_index", job
        )

    def pass_time(self, by: timedelta) -> None:
        """Let time pass, for the queue: every one of its timestamps moves back."""
        for table, columns in _TIMESTAMPS.items():
            moved = ", ".join(f"{column} = {column} - %(by)s" for column in columns)
            self.connection.execute(f"update {table} set {moved}", {"by": by})


def reports(batch: Sequence[Row]) -> list[Row]:
    """Return what says of each claimed chunk that it is done, or in a heartbeat that it is held."""
    return [{"chunk_id": chunk["chunk_id"], "claim_token": str(chunk["claim_token"])} for chunk in batch]


class Database:
    """One database of a server; closes what was opened through it."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self.server = server
        self.name = name
        # Opened, by their options: in use, and left by an earlier test.
        self._in_use: list[tuple[str, psycopg.Connection[Row]]] = []
        self._idle: list[tuple[str, psycopg.Connection[Row]]] = []
        self._keeper: psycopg.Connection[Any] | None = None

    @property
    def dsn(self) -> str:
        """The superuser's connection string."""
        return self.server.dsn_for(self.name)

    def connect(
        self,
        role: str = "service_role",
        *,
        user: str | None = None,
        autocommit: bool = True,
        settings: str = "",
    ) -> Session:
        """Open a connection that has switched to a role, as PostgREST does for a request.

        Args:
            role: The role; `supabase_admin` is the superuser.
            user: The signed-in user's id, for the role `authenticated`.
            autocommit: False keeps a transaction open until `connection.commit()`.
            settings: Further `-c name=value` options.
        """
        options = f"-c role={role} {settings}"
        connection = self._open(options)
        connection.autocommit = autocommit
        self._in_use.append((options, connection))
        if user is not None:
            claims = json.dumps({"sub": user, "role": role})
            connection.execute("select set_config('request.jwt.claims', %s, false)", (claims,))
            if not autocommit:
                connection.commit()
        return Session(connection)

    def _open(self, options: str) -> psycopg.Connection[Row]:
        for place, (kept, connection) in enumerate(self._idle):
            if kept == options:
                del self._idle[place]
                return connection
        connection = psycopg.connect(self.dsn, autocommit=True, row_factory=dict_row, options=options)
        connection.adapters.register_loader("timestamptz", _Moment)
        return connection

    def recycle(self) -> bool:
        """Make it as it was when it was new, with some of its connections; False when that cannot be done."""
        for options, connection in self._in_use:
            is_wanted = sum(kept == options for kept, _ in self._idle) < _MOST_IDLE
            if is_wanted and recycling.afresh(connection):
                self._idle.append((options, connection))
            else:
                connection.close()
        self._in_use.clear()
        if self._keeper is None:
            self._keeper = psycopg.connect(self.dsn, autocommit=True)
        return recycling.restored(self._keeper)

    def close(self) -> None:
        """Close every connection."""
        for _, connection in [*self._in_use, *self._idle]:
            connection.close()
        self._in_use.clear()
        self._idle.clear()
        if self._keeper is not None:
            self._keeper.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close."""
        self.close()


@contextmanager
def refused(code: str, argument: str | None = None) -> Iterator[None]:
    """The block must end in this SQLSTATE; the error must name the argument in its message and its detail."""
    with pytest.raises(psycopg.Error) as caught:
        yield
    error = caught.value
    assert error.sqlstate == code, f"{error.sqlstate}: {error}"
    if argument is not None:
        assert error.diag.message_detail == argument
        # A kind that is not there is itself the better name.
        assert code == "SC002" or argument in str(error.diag.message_primary)
