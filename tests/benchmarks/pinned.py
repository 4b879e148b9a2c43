"""`make bench ARGS=pinned`: does the queue stay as fast as it began while somebody's transaction holds an old snapshot?

PostgreSQL then prunes none of the outdated versions that a queue leaves behind. Every contender does some ten thousand chunks under such a
snapshot, with CLIENTS connections, a tenth after the other: the last is compared with the first. Of ours the time of each
call is taken at the start and at the end, by one connection. What a chunk costs stands beside it: WAL, commits, CPU.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from supabase_chunks.local.postgres import PostgresServer
from tests.benchmarks.contenders import (
    Contender,
    bulk,
    draining,
    one_job,
    pgmq,
    pgmq_bulk,
    procrastinate,
)
from tests.benchmarks.ground import CLIENTS, Report, pgbench_transactions

CYCLES = 100_000
# Of the others fewer: they slow down so much that as many would take ten minutes each.
THEIR_CYCLES = 20_000
PROBES = 400
CLAIM_AND_REPORT = (
    "select chunk_id, claim_token from public.claim_next_chunk_job_safe('bench', kinds => '{bench}')",
    "select public.complete_chunk_job_safe(%s, %s)",
)
FIELD: tuple[tuple[Contender, int], ...] = (
    (one_job, 1),
    (draining, 1),
    (bulk, 50),
    (pgmq, 1),
    (pgmq_bulk, 50),
    (procrastinate, 1),
)


@contextmanager
def old_snapshot(dsn: str) -> Iterator[None]:
    """Hold a snapshot, as a long report or a backup does."""
    with psycopg.connect(dsn) as connection:
        connection.execute("set transaction isolation level repeatable read")
        connection.execute("select count(*) from pg_class")
        yield


def pinned(postgres: PostgresServer, report: Report) -> None:
    """All contenders in turn; of ours each call; then what else may grow."""
    for contender, batch in FIELD:
        dsn = contender.create(postgres)
        ours = contender in (one_job, draining, bulk)
        cycles = CYCLES if ours else THEIR_CYCLES
        contender.fill(dsn, cycles + 20 * PROBES + CLIENTS * batch)
        with old_snapshot(dsn):
            before = _call_times(dsn) if contender is one_job else {}
            costs = _Costs(postgres, dsn)
            tenths = [
                batch * pgbench_transactions(dsn, contender.script, cycles // 10 // batch) for _ in range(10)
            ]
            costs.show(report, contender.name, cycles)
            after = _call_times(dsn) if contender is one_job else {}
        report.add(
            f"{contender.name}: last tenth of {cycles // 1000}k / first, old snapshot",
            f"{tenths[-1]:.0f} / {tenths[0]:.0f} a second",
            ratio=tenths[-1] / tenths[0],
            at_least=0.8 if ours else None,
        )
        for call, start in before.items():
            report.add(
                f"{call} p95 after {CYCLES // 1000}k cycles / at the start, old snapshot",
                f"{after[call]:.2f} / {start:.2f} ms",
                ratio=after[call] / start,
                at_most=1.5,
            )


def elsewhere(postgres: PostgresServer, report: Report) -> None:
    """Without an old snapshot, what a busy project has much of: kinds, jobs of one limit key, connections, ended jobs."""
    dsn = one_job.create(postgres)
    claims = {}
    with psycopg.connect(dsn, autocommit=True) as connection:
        for kinds, chunks in ((5, 200), (5_000, 2)):
            connection.execute(
                "select public.save_sync_kind('k' || n, handler => 'h') from generate_series(1, %s) n",
                (kinds,),
            )
            connection.execute(
                "select public.start_sync_job('k' || n, total_items => %s, chunk_size => 1)"
                " from generate_series(1, %s) n",
                (chunks, kinds),
            )
            connection.execute("vacuum analyze")
            claims[kinds] = _p95(
                dsn, (CLAIM_AND_REPORT[0].replace("'{bench}'", "null"), CLAIM_AND_REPORT[1]), 400
            )
    many, few = claims[5_000], claims[5]
    report.add(
        "claim+report p95, of 5,000 kinds / of 5", f"{many:.2f} / {few:.2f} ms", ratio=many / few, at_most=1.5
    )

    dsn = one_job.create(postgres)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("select public.save_sync_limit('shared', max_concurrency => 8)")
        start = (
            "select public.start_sync_job('bench', total_items => 20, chunk_size => 1, limit_key => 'shared')"
        )
        for _ in range(10):
            connection.execute(start)
        connection.execute("vacuum analyze")
        ten = _p95(dsn, CLAIM_AND_REPORT, 150)
        for _ in range(990):
            connection.execute(start)
        connection.execute("vacuum analyze")
    thousand = _p95(dsn, CLAIM_AND_REPORT, 400)
    report.add(
        "claim+report p95, 1,000 jobs of one limit key / 10",
        f"{thousand:.2f} / {ten:.2f} ms",
        ratio=thousand / ten,
        at_most=1.5,
    )

    dsn = one_job.create(postgres)
    one_job.fill(dsn, 60_000)
    eight, sixty_four = (pgbench_transactions(dsn, one_job.script, 16_000, clients=n) for n in (CLIENTS, 64))
    report.add(
        "64 connections / 8",
        f"{sixty_four:.0f} / {eight:.0f} a second",
        ratio=sixty_four / eight,
        at_least=0.8,
    )

    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "select public.start_sync_job('bench', chunks => '[{}]') from generate_series(1, 3000) n"
        )
        connection.execute("update public.sync_jobs set sealed = true")
        connection.execute("select public.cancel_sync_job(id) from public.sync_jobs")
        connection.execute("vacuum analyze")
        taken = []
        for _ in range(30):
            start_time = time.perf_counter()
            connection.execute("select public.purge_sync_jobs(older_than => interval '0', batch_size => 100)")
            taken.append((time.perf_counter() - start_time) * 1000)
    first, last = (statistics.median(part) for part in (taken[1:11], taken[-10:]))
    report.add(
        "purge of 100 jobs, the last of 3,000 / the first",
        f"{last:.1f} / {first:.1f} ms",
        ratio=last / first,
        at_most=1.5,
    )


def _p95(dsn: str, statements: tuple[str, str], times: int) -> float:
    """Of a claim with its report, in milliseconds, on one connection."""
    taken = []
    claim, complete = statements
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(times):
            start = time.perf_counter()
            chunk = connection.execute(claim, prepare=True).fetchone()
            if chunk is None:
                raise RuntimeError("nothing to claim")
            connection.execute(complete, chunk, prepare=True)
            taken.append((time.perf_counter() - start) * 1000)
    return statistics.quantiles(taken[times // 10 :], n=20)[-1]


def _call_times(dsn: str) -> dict[str, float]:
    """p95 of each call in milliseconds, on a connection that has warmed up."""
    times: dict[str, list[float]] = defaultdict(list)
    with psycopg.connect(dsn, autocommit=True) as connection:

        def timed(call: str, statement: str, *arguments: object) -> Any:
            start = time.perf_counter()
            row = connection.execute(statement, arguments, prepare=True).fetchone()
            times[call].append((time.perf_counter() - start) * 1000)
            if row is None:
                raise RuntimeError(f"{call}: nothing to claim")
            return row

        (job,) = timed("job", "select id from public.sync_jobs")
        for _ in range(PROBES):
            claim = "select chunk_id, claim_token from public.claim_next_chunk_job_safe('bench', {} => %s)"
            chunk = timed("claim", claim.format("kinds"), ["bench"])
            timed("report", "select public.complete_chunk_job_safe(%s, %s)", *chunk)
            chunk = timed("claim by job", claim.format("kinds => '{bench}', parent_sync_job_id"), job)
            (answer,) = timed(
                "claim_next", "select public.complete_chunk_job_safe(%s, %s, claim_next => true)", *chunk
            )
            following = answer["next"]
            timed(
                "report",
                "select public.complete_chunk_job_safe(%s, %s)",
                following["chunk_id"],
                following["claim_token"],
            )
            timed("progress", "select public.get_sync_job_progress_safe(%s)", job)
        for _ in range(PROBES // 10):
            (claimed,) = timed(
                "claim of 50", "select public.claim_chunk_jobs_safe('bench', 50, kinds => '{bench}')"
            )
            timed("report of 50", "select public.complete_chunk_jobs_safe(%s::jsonb)", json.dumps(claimed))
    del times["job"]
    return {call: statistics.quantiles(taken[len(taken) // 10 :], n=20)[-1] for call, taken in times.items()}


class _Costs:
    """What the server has spent since."""

    def __init__(self, postgres: PostgresServer, dsn: str) -> None:
        self._postgres, self._dsn = postgres, dsn
        self._before = self._read()

    def _read(self) -> tuple[float, float, float]:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute("select pg_stat_force_next_flush()")
            row = connection.execute(
                "select pg_current_wal_insert_lsn() - '0/0', (select xact_commit from pg_stat_database"
                " where datname = current_database())"
            ).fetchone()
            pid = connection.execute(
                "select pid from pg_stat_activity where backend_type = 'checkpointer'"
            ).fetchone()
        if row is None or pid is None:
            raise RuntimeError("the server said nothing")
        # Of all its children that have ended: pgbench's connections.
        postmaster = Path(f"/proc/{pid[0]}/stat").read_text().rsplit(")", 1)[1].split()[1]
        fields = Path(f"/proc/{postmaster}/stat").read_text().rsplit(")", 1)[1].split()
        cpu = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
        return float(row[0]), float(row[1]), cpu

    def show(self, report: Report, name: str, chunks: int) -> None:
        """Rows of what a chunk has cost, and what is left behind."""
        wal, commits, cpu = (
            (after - before) / chunks for after, before in zip(self._read(), self._before, strict=True)
        )
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            row = connection.execute("select sum(n_dead_tup) from pg_stat_user_tables").fetchone()
        report.add(f"{name}: WAL a chunk", f"{wal:.0f} bytes")
        report.add(f"{name}: commits a chunk", f"{commits:.2f}")
        report.add(f"{name}: CPU of the server a chunk", f"{cpu * 1e6:.0f} us")
        report.add(f"{name}: dead rows after, a chunk", f"{float(row[0] if row else 0) / chunks:.2f}")
