"""Which locks a session takes, seen from outside: which it has at its end, and in what order it waits for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from tests.sql.database import Database, Session
from tests.sql.threads import until

# An advisory lock is named after an id, or a text; the number is the second part of its key.
KEYS = {
    "gate": "uuid_hash_extended(%s, 0)",
    "claim id": "uuid_hash_extended(%s, 1)",
    "user": "uuid_hash_extended(%s, 2)",
    "webhooks": "hashtextextended(%s, 3)",
    "settings": "hashtextextended(%s, 4)",
    "limit": "hashtextextended(%s, 5)",
    "mail": "uuid_hash_extended(%s, 6)",
}
# The rows of a job, and how they are locked. Foreign keys lock rows too, but only against being deleted: FOR KEY SHARE,
# which gets along with these.
ROWS = {
    "slot": ("chunk_private.slots", "job_id", "update"),
    "chunk": ("public.chunk_processing_queue", "parent_sync_job_id", "no key update"),
    "counter": ("chunk_private.job_counters", "job_id", "update"),
    "job": ("public.sync_jobs", "id", "no key update"),
    "stripe": ("chunk_private.fresh_stripes", "job_id", "update"),
    "returned": ("chunk_private.returned_chunks", "job_id", "update"),
    "state": ("public.sync_states", "job_key", "update"),
}
NAMES = (*KEYS, *ROWS)


class Subject(NamedTuple):
    """Whose locks are looked at: a job's, and those named after these."""

    job: str
    job_key: str
    claim_id: str
    user: str
    limit_key: str
    account: str

    def name(self, lock: str) -> str:
        """What a lock is named after, or its rows are found by."""
        named = {
            "claim id": self.claim_id,
            "user": self.user,
            "state": self.job_key,
            "limit": self.limit_key,
            "mail": self.account,
        }
        return f"supabase-chunks: {lock}" if lock in ("webhooks", "settings") else named.get(lock, self.job)


def held(admin: Session, pid: int, subject: Subject) -> set[str]:
    """The locks that a session's open transaction has; being alone in the gate is `gate alone`."""
    found = set()
    for name, key in KEYS.items():
        modes = admin.rows(
            "select l.mode from pg_locks l where l.pid = %s and l.locktype = 'advisory'"
            f" and (l.classid::bigint << 32 | l.objid::bigint) = {key}",
            pid,
            subject.name(name),
        )
        if modes:
            alone = name == "gate" and modes == [{"mode": "ExclusiveLock"}]
            found.add("gate alone" if alone else name)
    for name, (table, column, strength) in ROWS.items():
        every = f"select from {table} where {column} = %s"
        free = admin.rows(f"{every} for {strength} skip locked", subject.name(name))
        if len(free) < len(admin.rows(every, subject.name(name))):
            found.add(name)
    return found


class Holders:
    """Sessions that each can hold one lock."""

    def __init__(self, db: Database) -> None:
        self.admin = db.connect("supabase_admin")
        self._sessions = {name: db.connect("supabase_admin", autocommit=False) for name in NAMES}
        self._pids = {session.connection.info.backend_pid: name for name, session in self._sessions.items()}

    def waits(self, names: Iterable[str], subject: Subject, pid: int, act: Callable[[], Any]) -> list[str]:
        """While these locks are held by others, for which does `act` wait, in what order?

        Args:
            names: Of the locks.
            subject: Whose locks.
            pid: Of the session that `act` uses.
            act: What takes locks.
        """
        for name in names:
            self._hold(name, subject)
        waited = []
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(act)
            while until(lambda: self._blocking(pid) or running.done()) and not running.done():
                waited.append(self._let_go(pid))
            running.result()
        for session in self._sessions.values():
            session.connection.rollback()
        return waited

    def _let_go(self, pid: int) -> str:
        """Let go of the lock that a session waits for, and say which it was."""
        blocker = self._blocking(pid)[0]
        self._sessions[self._pids[blocker]].connection.rollback()
        until(lambda: blocker not in self._blocking(pid))
        return self._pids[blocker]

    def _blocking(self, pid: int) -> list[int]:
        pids: list[int] = self.admin.value("select pg_blocking_pids(%s)", pid)
        return pids

    def _hold(self, name: str, subject: Subject) -> None:
        session = self._sessions[name]
        if name in KEYS:
            session.execute(f"select pg_advisory_xact_lock({KEYS[name]})", subject.name(name))
        else:
            table, column, strength = ROWS[name]
            session.rows(f"select from {table} where {column} = %s for {strength}", subject.name(name))
