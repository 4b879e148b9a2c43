"""A guard over the plans: in a large queue, nothing may read more than it needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

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
)


@pytest.fixture(scope="module")
def large(cluster: Cluster) -> Iterator[Database]:
    """One job of 60,000 chunks half done, three hundred small ones, and half as many ended; analysed with nothing processing."""
    with cluster.database(fresh=True) as database:
        service = database.connect(settings="-c synchronous_commit=off")
        big = service.start(total_items=CHUNKS, chunk_size=1, max_concurrency=8, job_key="big")["id"]
        for number in range(JOBS):
            service.start("web" if number % 2 else "plain", chunks=[{}] * 10, max_concurrency=2)
        for _ in range(JOBS // 2):
            service.drain(service.start("private", chunks=[{}] * 2)["id"], kinds=["private"])
        done = True
        for _ in range(60):
            batch = service.call(
                "claim_chunk_jobs_safe", worker_id="w", batch_size=8, parent_sync_job_id=big, kinds=["plain"]
            )
            reports = [
                {"chunk_id": c["chunk_id"], "claim_token": c["claim_token"], "success": done} for c in batch
            ]
            service.call("complete_chunk_jobs_safe", completions=reports)
        admin = database.connect("supabase_admin")
        admin.execute("vacuum analyze")
        yield database


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
    where = f"{node['Node Type']} on {relation} in: {' '.join(query.split())[:120]}"
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
        "complete_chunk_jobs_safe",
        completions=[
            {"chunk_id": c["chunk_id"], "claim_token": str(c["claim_token"])}
            for c in (_hold(s), _hold(s), _hold(s))
        ],
    ),
    "extend": lambda s, _big: s.extend(_hold(s)),
    "give back": lambda s, _big: s.give_back(_hold(s)),
    "progress": lambda s, big: s.progress(big),
    "append": lambda s, big: s.call(
        "append_sync_chunks",
        parent_sync_job_id=big,
        chunks=[{}],
    ),
    "pause and resume": lambda s, big: [
        s.control(action, big) for action in ("pause_sync_job", "resume_sync_job")
    ],
}


@pytest.mark.parametrize("name", ACTIONS)
def test_nothing_reads_more_than_it_needs(large: Database, name: str) -> None:
    assert Plans(large).of(ACTIONS[name]) == []


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
