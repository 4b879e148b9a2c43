"""The SQL part of the goals: speed of a cycle, growth with rows and jobs, an old snapshot, progress, start."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict

import psycopg

from supabase_chunks.local.postgres import PostgresServer
from tests.benchmarks.contenders import (
    Contender,
    bulk,
    create_ours,
    draining,
    fill_jobs,
    floor,
    many_jobs,
    one_job,
    pgmq,
    pgmq_bulk,
    procrastinate,
)
from tests.benchmarks.ground import FRESH_SECONDS, Report, create_database, median_ratio, pgbench

SECONDS = 75
ROUNDS = 2


def cycles(postgres: PostgresServer, report: Report) -> None:
    """Claim+complete of every contender, in turns.

    The goals are for a round as a whole. What its first seconds say about freshly vacuumed tables stands beside it.
    """
    field: list[tuple[Contender, int, int]] = [  # with its batch, and more than it can do in a second
        (one_job, 1, 5_000),
        (draining, 1, 7_000),
        (many_jobs, 1, 5_000),
        (pgmq, 1, 5_000),
        (procrastinate, 1, 5_000),
        (floor, 1, 10_000),
        (bulk, 50, 35_000),
        (pgmq_bulk, 50, 35_000),
    ]
    dsns = {create: create(postgres) for create in dict.fromkeys(contender.create for contender, *_ in field)}
    sustained: dict[str, list[float]] = defaultdict(list)
    fresh: dict[str, list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        for contender, batch, at_most in field:
            dsn = dsns[contender.create]
            contender.fill(dsn, at_most * SECONDS)
            overall, at_first = pgbench(dsn, contender.script, seconds=SECONDS)
            contender.check_left(dsn)
            sustained[contender.name].append(batch * overall)
            fresh[contender.name].append(batch * at_first)

    def show(ours: Contender, theirs: Contender, at_least: float) -> None:
        what = f"{ours.name} / {theirs.name}"
        for row, speeds, goal in (
            (what, sustained, at_least),
            (f"{what}, first {FRESH_SECONDS} s", fresh, None),
        ):
            us, them = speeds[ours.name], speeds[theirs.name]
            report.add(
                row,
                f"{statistics.median(us):.0f} / {statistics.median(them):.0f} a second",
                ratio=median_ratio(us, them),
                at_least=goal,
            )

    for ours in (one_job, draining, many_jobs):
        for theirs, goal in ((pgmq, 1.0), (procrastinate, 1.0), (floor, 0.0)):
            show(ours, theirs, goal)
    show(bulk, one_job, 6.0)
    show(bulk, pgmq_bulk, 1.0)


def _claim_times(dsn: str, cycles: int) -> list[float]:
    """Milliseconds of each claim in a row of cycles, on one connection."""
    times = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(cycles):
            start = time.perf_counter()
            chunk = connection.execute(
                "select chunk_id, claim_token from public.claim_next_chunk_job_safe('bench', kinds => '{bench}')",
                prepare=True,
            ).fetchone()
            times.append((time.perf_counter() - start) * 1000)
            if chunk is None:
                raise RuntimeError("nothing to claim")
            connection.execute("select public.complete_chunk_job_safe(%s, %s)", chunk, prepare=True)
    return times


def growth(postgres: PostgresServer, report: Report) -> None:
    """Claims with many rows, with many jobs, and while an old snapshot is held."""
    dsn = create_ours(postgres)
    fill_jobs(dsn, 2_000, jobs=1, cap=1000)
    small = statistics.median(_claim_times(dsn, 1000))

    fill_jobs(dsn, 1_000_000, jobs=1, cap=1000)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("""
            insert into public.chunk_processing_queue (parent_sync_job_id, kind, chunk_index, status, completed_at)
            select id, 'bench', 1000000 + n, 'completed', now() from public.sync_jobs, generate_series(1, 1000000) n""")
        connection.execute("vacuum analyze public.chunk_processing_queue")
    large = statistics.median(_claim_times(dsn, 1000))
    report.add(
        "claim p50, 1M completed + 1M pending rows / 2k rows",
        f"{large:.2f} / {small:.2f} ms",
        ratio=large / small,
        at_most=1.2,
    )

    fill_jobs(dsn, 20_000, jobs=1000, cap=16)
    jobs = statistics.median(_claim_times(dsn, 1000))
    report.add(
        "claim p50, 1,000 jobs / 1 job", f"{jobs:.2f} / {small:.2f} ms", ratio=jobs / small, at_most=2.0
    )

    fill_jobs(dsn, 40_000, jobs=1, cap=1000)
    with psycopg.connect(dsn) as old:
        old.execute("set transaction isolation level repeatable read")
        old.execute("select count(*) from public.sync_jobs")
        times = _claim_times(dsn, 20_000)
    first, last = times[:1000], times[-1000:]
    start, end = (statistics.quantiles(part, n=20)[-1] for part in (first, last))
    report.add(
        "claim p95 after 20k cycles under an old snapshot / at its start",
        f"{end:.2f} / {start:.2f} ms",
        ratio=end / start,
        at_most=3.0,
    )


def _median_ms(connection: psycopg.Connection, statement: str, argument: object, times: int = 300) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        connection.execute(statement, (argument,), prepare=True).fetchone()
        taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(taken)


def progress_and_start(postgres: PostgresServer, report: Report) -> None:
    """Progress of a large job, and how long starting one takes."""
    dsn = create_ours(postgres)
    with psycopg.connect(dsn, autocommit=True) as connection:
        ids = {}
        for size in (100, 100_000):
            row = connection.execute(
                "select public.start_sync_job('bench', total_items => %s, chunk_size => 1,"
                " max_concurrency => 16) ->> 'id'",
                (size,),
            ).fetchone()
            ids[size] = row[0] if row else None
        _claim_times(dsn, 64)
        connection.execute("vacuum analyze")
        small, large = (
            _median_ms(connection, "select public.get_sync_job_progress_safe(%s)", ids[size])
            for size in (100, 100_000)
        )
        report.add(
            "progress of a 100,000-chunk job / of a 100-chunk job",
            f"{large:.2f} / {small:.2f} ms",
            ratio=large / small,
            at_most=1.5,
        )

        connection.execute("create table public.plain (like public.chunk_processing_queue including all)")
        ratios, shown = [], ""
        for _ in range(3):
            start = time.perf_counter()
            connection.execute("""
                insert into public.plain (parent_sync_job_id, kind, chunk_index, payload)
                select gen_random_uuid(), 'bench', n, '{"n": 1}' from generate_series(1, 100000) n""")
            plain = time.perf_counter() - start
            connection.execute("select jsonb_agg('{\"n\": 1}'::jsonb) from generate_series(1, 100000)")
            start = time.perf_counter()
            connection.execute(
                "select public.start_sync_job('bench', (select jsonb_agg('{\"n\": 1}'::jsonb)"
                " from generate_series(1, 100000)))"
            )
            ours = time.perf_counter() - start
            ratios.append(ours / plain)
            shown = f"{ours:.2f} / {plain:.2f} s"
        report.add(
            "starting 100,000 chunks / a plain insert of them",
            shown,
            ratio=statistics.median(ratios),
            at_most=4.0,
        )


def nothing_to_do(postgres: PostgresServer, report: Report) -> None:
    """The watchdog's pass when all is well."""
    dsn = create_database(postgres, "idle", with_queue=True)
    with psycopg.connect(dsn, autocommit=True) as connection:
        taken = _median_ms(connection, "select public.cleanup_stuck_chunks() + %s", 0)
        report.add("a watchdog pass with nothing to do", f"{taken:.2f} ms")
