"""What the nemesis does, each fault a block: it begins at the block's begin, and is undone at its end."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg

from tests.torture.connection import connect
from tests.torture.processes import Processes, send
from tests.torture.project import Project
from tests.torture.proxy import Faults, Proxy

ROLES = ("sql", "sdk", "async-sdk", "worker", "async-worker")
SETTINGS = ("statement_timeout", "default_transaction_isolation", "default_transaction_read_only")
GATE = """
select pg_advisory_xact_lock(uuid_hash_extended(j.id, 0))
from (select s.id from public.sync_jobs s where s.completed_at is null order by s.id offset %s limit 1) j
"""
_BACKENDS = """
select a.pid from pg_stat_activity a
where a.backend_type = 'client backend' and (a.usename = 'authenticator' or a.application_name = 'torture')
order by a.state = 'active' desc, a.pid
"""


@dataclass
class Field:
    """Where the nemesis works: the project, the processes, and the chances of one fault, drawn when it was planned."""

    project: Project
    processes: Processes

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Ask as the superuser; nothing when the database is not there."""
        try:
            with connect(self.project.stack.db_url) as admin:
                cursor = admin.execute(statement.encode(), parameters or None)
                return cursor.fetchall() if cursor.description else []
        except psycopg.Error:
            return []

    def backends(self, draw: random.Random, share: float) -> list[int]:
        """Some of the server's processes that work for callers, at least one; more often those that are at work."""
        pids = [pid for (pid,) in self.sql(_BACKENDS)]
        chosen = draw.sample(pids, max(1, round(len(pids) * share))) if pids else []
        return sorted({*pids[: len(chosen) // 2], *chosen})

    def pids(self, part: str) -> list[int]:
        """The processes of a part of the stack."""
        named = self.project.stack.pids()
        names = (
            [name for name in named if name not in {"postgres", "postgrest", "supervisor"}]
            if part == "functions"
            else [part]
        )
        return [pid for name in names if (pid := named[name]) is not None]


Apply = Callable[[Field, random.Random], AbstractContextManager[None]]


def kill(part: str) -> Apply:
    @contextmanager
    def apply(field: Field, _: random.Random) -> Iterator[None]:
        field.project.stack.kill(part)
        yield
        field.project.stack.wait_until_ready()

    return apply


def freeze(part: str) -> Apply:
    @contextmanager
    def apply(field: Field, draw: random.Random) -> Iterator[None]:
        pids = field.backends(draw, 0.4) if part == "backends" else field.pids(part)
        with _frozen(pids):
            yield

    return apply


@contextmanager
def _frozen(pids: list[int | None] | list[int]) -> Iterator[None]:
    send(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        send(pids, signal.SIGCONT)


@contextmanager
def stutter(field: Field, draw: random.Random) -> Iterator[None]:
    """Backends stop for moments, at any point of what they do: so they meet where they seldom would."""
    over = threading.Event()

    def run() -> None:
        pids = field.backends(draw, 1.0)
        while pids and not over.is_set():
            with _frozen(draw.sample(pids, max(1, len(pids) // 3))):
                time.sleep(draw.uniform(0.002, 0.03))
            time.sleep(draw.uniform(0.0, 0.01))

    stuttering = threading.Thread(target=run)
    stuttering.start()
    try:
        yield
    finally:
        over.set()
        stuttering.join()


@contextmanager
def kill_backend(field: Field, draw: random.Random) -> Iterator[None]:
    """SIGKILL of one: the postmaster then ends all others and recovers from the log."""
    send(field.backends(draw, 0.0), signal.SIGKILL)
    yield


@contextmanager
def end_backends(field: Field, draw: random.Random) -> Iterator[None]:
    for pid in field.backends(draw, 0.5):
        field.sql("select pg_terminate_backend(%s)", pid)
    yield


@contextmanager
def stop_statements(field: Field, _: random.Random) -> Iterator[None]:
    for _again in range(20):
        field.sql(f"select pg_cancel_backend(b.pid) from ({_BACKENDS}) b")
    yield


@contextmanager
def kill_client(field: Field, draw: random.Random) -> Iterator[None]:
    field.processes.kill(draw.choice(ROLES))
    yield


@contextmanager
def freeze_clients(field: Field, draw: random.Random) -> Iterator[None]:
    with _frozen([field.processes.pid(role) for role in draw.sample(ROLES, 2)]):
        yield


def misbehave(which: str, **faults: float) -> Apply:
    @contextmanager
    def apply(field: Field, _: random.Random) -> Iterator[None]:
        proxy: Proxy = getattr(field.project, which)
        proxy.faults = Faults(**faults)
        try:
            yield
        finally:
            proxy.faults = Faults()

    return apply


def hold(statement: str, *, isolation: str = "read committed") -> Apply:
    """A transaction that is left open."""

    @contextmanager
    def apply(field: Field, draw: random.Random) -> Iterator[None]:
        with ExitStack() as opened:
            # Where the database is away, or the lock is held by others, there is nothing to hold.
            with suppress(psycopg.Error):
                connection = opened.enter_context(closing(connect(field.project.stack.db_url)))
                connection.execute(f"begin isolation level {isolation}".encode())
                connection.execute("set local lock_timeout = '1s'")
                connection.execute(statement.encode(), (draw.randrange(6),) if "%s" in statement else None)
            yield

    return apply


def default(setting: str, value: str) -> Apply:
    """Another default of the role that the API's calls run as, and of the database, where new sessions get it."""

    @contextmanager
    def apply(field: Field, _: random.Random) -> Iterator[None]:
        for target in ("role service_role", "database postgres"):
            field.sql(f"alter {target} set {setting} = '{value}'")
        field.sql("notify pgrst, 'reload config'")
        try:
            yield
        finally:
            whole(field)

    return apply


def whole(field: Field) -> None:
    """Take back what `default` has set, also when the database was away meanwhile."""
    for statement in (
        # Some can be set for a role, but not be reset.
        "delete from pg_db_role_setting where setrole = 'service_role'::regrole",
        *(f"alter database postgres reset {setting}" for setting in SETTINGS),
        "notify pgrst, 'reload config'",
    ):
        field.sql(statement)
