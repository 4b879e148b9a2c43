"""A guard over the plans: in a large queue, nothing may read more than it needs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.database import Database, Session
from tests.sql.server import Cluster

CHUNKS, JOBS = 60_000, 300
# How many rows one node may read or throw away: some per slot of a job, nothing per chunk of a job or job of the queue.
BOUND = 100
BIG = (
    "chunk_processing_queue",
    "sync_jobs",
    "job_counters",
    "slots",
    "fresh_stripes",
    "chunk_attempts",
    "dispatches",
    "synced_emails",
)
NUMBERS = itertools.count()
INBOX = {"folder": "INBOX", "uidvalidity": 7}


def fill(service: Session) -> None:
    """One job of 60,000 chunks, three hundred small ones, and half as many ended; 20,000 emails; nothing processing."""
    big = service.start(total_items=CHUNKS, chunk_size=1, max_concurrency=8, job_key="big")["id"]
    for number in range(JOBS):
        service.start("web" if number % 2 else "plain", chunks=[{}] * 10, max_concurrency=2)
    for _ in range(JOBS // 2):
        service.drain(service.start("private", chunks=[{}] * 2)["id"], kinds=["private"])
    for _ in range(60):
        batch = service.call(
            "claim_chunk_jobs_safe", worker_id="w", batch_size=8, parent_sync_job_id=big, kinds=["plain"]
        )
        service.call("complete_chunk_jobs_safe", completions=[_token(chunk) for chunk in batch])
    service.execute(
        "insert into public.synced_emails (account_id, folder, uidvalidity, uid, message_id, subject, received_at)"
        " select %s, 'INBOX', 7, n, '<' || n || '@x>', 'bulk', now() from generate_series(1000, 21000) n",
        account(service),
    )


def account(session: Session) -> str:
    """An email account's id."""
    return str(
        session.value(
            "insert into public.email_accounts (name, host, username) values ('work', 'h', 'u')"
            " on conflict on constraint email_accounts_one_per_name do update set host = 'h' returning id::text"
        )
    )


@pytest.fixture(scope="module")
def large(cluster: Cluster) -> Iterator[Database]:
    """A large queue, analysed."""
    with cluster.database(fresh=True) as database:
        fill(database.connect(settings="-c synchronous_commit=off"))
        database.connect("supabase_admin").execute("vacuum analyze")
        yield database


@pytest.fixture(scope="module")
def grown(cluster: Cluster) -> Iterator[Plans]:
    """A session whose plans were made while the queue was small, as a connection pool's are; it has grown since, and nobody has analysed it."""
    with cluster.database(fresh=True) as database:
        service = database.connect(settings="-c synchronous_commit=off")
        for kind in ("plain", "web", "private"):
            service.start(
                kind, chunks=[{}] * 30, max_concurrency=20, job_key="big" if kind == "plain" else None
            )
        database.connect("supabase_admin").execute("vacuum analyze")
        session = Plans(database)
        for action in ACTIONS.values():
            for _ in range(2):
                action(session.session, session.big)
        service.control("cancel_sync_job", session.big)
        fill(service)
        session.big = service.value(
            "select id::text from public.sync_jobs where job_key = 'big' and status = 'running'"
        )
        yield session


class Plans:
    """A session whose every statement, those within functions too, is explained to us as it runs."""

    def __init__(self, database: Database) -> None:
        # The superuser may load auto_explain; the functions run as they do for service_role.
        self.session = database.connect("supabase_admin")
        self.plans: list[Any] = []
        self.big = self.session.value("select id::text from public.sync_jobs where job_key = 'big'")
        connection: psycopg.Connection[Any] = self.session.connection
        connection.add_notice_handler(self._heard)
        for setting in (
            "load 'auto_explain'",
            "set auto_explain.log_min_duration = 0",
            "set auto_explain.log_nested_statements = on",
            "set auto_explain.log_analyze = on",
            "set auto_explain.log_timing = off",
            "set auto_explain.log_format = json",
            "set auto_explain.log_level = notice",
            "set client_min_messages = notice",
            "set plan_cache_mode = force_generic_plan",
            "set role service_role",
        ):
            self.session.execute(setting)

    def _heard(self, notice: psycopg.errors.Diagnostic) -> None:
        text = notice.message_primary or ""
        if "plan:" in text:
            self.plans.append(json.loads(text.partition("plan:")[2]))

    def of(self, action: Callable[[Session, str], Any]) -> list[str]:
        """Do something, twice, and return what is wrong with the second time's plans."""
        action(self.session, self.big)
        self.plans.clear()
        action(self.session, self.big)
        assert self.plans, "no plan was heard of"
        return [problem for plan in self.plans for problem in _problems(plan["Plan"], plan["Query Text"])]


def _problems(node: dict[str, Any], query: str) -> list[str]:
    """What a node and those below it read too much of."""
    found = []
    relation = node.get("Relation Name")
    where = (
        f"{node['Node Type']} on {relation} by {node.get('Index Name')} in: {' '.join(query.split())[:120]}"
    )
    loops = node.get("Actual Loops", 1)
    if node["Node Type"] == "Seq Scan" and relation in BIG and loops:
        found.append(f"sequential: {where}")
    read = node.get("Actual Rows", 0) * loops
    thrown = (
        node.get("Rows Removed by Filter", 0) * loops + node.get("Rows Removed by Index Recheck", 0) * loops
    )
    if relation in BIG and read + thrown > BOUND:
        found.append(f"{read + thrown} rows: {where}")
    for below in node.get("Plans", []):
        found += _problems(below, query)
    return found


def _hold(session: Session) -> dict[str, Any]:
    return session.claimed(kinds=["plain"])


def _token(chunk: dict[str, Any]) -> dict[str, Any]:
    return {"chunk_id": chunk["chunk_id"], "claim_token": str(chunk["claim_token"])}


def _retry(session: Session, _big: str) -> None:
    job = session.start(chunks=[{}] * 3, priority=3)["id"]
    session.fail(session.claimed(job, kinds=["plain"]), retryable=False)
    session.control("retry_failed_chunks", job)
    session.control("cancel_sync_job", job)


def _share_a_limit(session: Session, _big: str) -> None:
    key = f"api {next(NUMBERS)}"
    session.call("save_sync_limit", key=key, max_concurrency=2)
    job = session.start(chunks=[{}] * 5, limit_key=key)["id"]
    session.complete(session.claimed(job, kinds=["plain"]))
    session.call("list_sync_limits")
    session.control("cancel_sync_job", job)


def _sync_mail(session: Session, _big: str) -> None:
    where = INBOX | {"account_id": account(session)}
    emails = [{"uid": uid, "message_id": f"<{uid}@x>", "subject": "s", "flags": []} for uid in range(1, 6)]
    session.call("save_synced_emails", **where, emails=Jsonb(emails))
    session.call("save_email_flags", **where, emails=Jsonb([{"uid": 1, "flags": ["\\Seen"]}]))
    session.call("adopt_moved_emails", **(where | {"folder": "Sent"}), emails=Jsonb([emails[2]]))


ACTIONS: dict[str, Callable[[Session, str], Any]] = {
    "claim": lambda s, _big: s.claim(kinds=["plain", "web"]),
    "claim by job": lambda s, big: s.claim(big),
    "claim a batch": lambda s, _big: s.call("claim_chunk_jobs_safe", worker_id="w", batch_size=10),
    "claim with an id": lambda s, _big: s.claim(
        kinds=["plain"], claim_id="6f7c7a44-0f4c-4b43-9a3e-6d2b4f6f7b11"
    ),
    "complete": lambda s, _big: s.complete(_hold(s)),
    "complete and claim": lambda s, _big: s.complete(_hold(s), claim_next=True),
    "complete and append": lambda s, _big: s.complete(_hold(s), next_chunks=[{}]),
    "fail": lambda s, _big: s.fail(_hold(s)),
    "fail for good": lambda s, _big: s.fail(_hold(s), retryable=False),
    "a stale report": lambda s, _big: s.complete(
        _hold(s) | {"claim_token": "6f7c7a44-0f4c-4b43-9a3e-6d2b4f6f7b11"}
    ),
    "complete in bulk": lambda s, _big: s.call(
        "complete_chunk_jobs_safe", completions=[_token(_hold(s)) for _ in range(3)]
    ),
    "fail in bulk": lambda s, _big: s.call(
        "complete_chunk_jobs_safe", completions=[_token(_hold(s)) | {"success": False} for _ in range(3)]
    ),
    "extend": lambda s, _big: s.extend(_hold(s)),
    "extend many": lambda s, _big: s.call(
        "extend_chunk_leases", leases=[_token(_hold(s)) | {"checkpoint": {"at": 1}} for _ in range(3)]
    ),
    "give back": lambda s, _big: s.give_back(_hold(s)),
    "progress": lambda s, big: s.progress(big),
    "attempts": lambda s, big: s.call("list_chunk_attempts", parent_sync_job_id=big),
    "start and cancel": lambda s, _big: s.control("cancel_sync_job", s.start(chunks=[{}] * 3)["id"]),
    "append": lambda s, big: s.call(
        "append_sync_chunks",
        parent_sync_job_id=big,
        chunks=[{}],
    ),
    "pause and resume": lambda s, big: [
        s.control(action, big) for action in ("pause_sync_job", "resume_sync_job")
    ],
    "retry and cancel": _retry,
    "share a limit": _share_a_limit,
    "sync mail": _sync_mail,
}


@pytest.mark.parametrize("name", ACTIONS)
def test_nothing_reads_more_than_it_needs(large: Database, name: str) -> None:
    assert Plans(large).of(ACTIONS[name]) == []


@pytest.mark.parametrize("name", ACTIONS)
def test_nothing_reads_more_when_the_queue_has_grown(grown: Plans, name: str) -> None:
    assert grown.of(ACTIONS[name]) == []


@pytest.mark.parametrize(
    "query",
    [
        "select count(*) from public.chunk_processing_queue where status = 'processing'",
        "select max(id) from public.chunk_processing_queue where parent_sync_job_id = (select id from public.sync_jobs limit 1)",
    ],
)
def test_the_guard_sees_what_it_shall(large: Database, query: str) -> None:
    assert Plans(large).of(lambda s, _big: s.rows(query)) != []


def test_recovery_reads_what_is_claimed_and_no_more(large: Database) -> None:
    """A pass may look at every slot in use and every active job, never at every chunk."""
    service = large.connect()
    for _ in range(20):
        service.claimed(lease_seconds=1)
    service.execute(
        "update public.chunk_processing_queue set locked_until = now() - interval '1 s' where status = 'processing'"
    )
    problems = Plans(large).of(lambda s, _big: s.cleanup())
    assert [p for p in problems if "chunk_processing_queue" in p and "sequential" in p] == []
    rows = [float(p.split(" rows")[0]) for p in problems if "chunk_processing_queue" in p and " rows" in p]
    assert max(rows, default=0) <= JOBS * 2 + 8
