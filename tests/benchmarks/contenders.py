"""What is compared: each contender's queue filled, and the script of one claim+complete cycle.

The floor is a plain table with SKIP LOCKED: no retries, no lease, no progress, what a queue in PostgreSQL
cannot beat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

import psycopg

from supabase_chunks.local.postgres import PostgresServer
from tests.benchmarks.ground import create_database


@dataclass(frozen=True)
class Contender:
    """A queue: how its database is made, how it is filled, and the pgbench script of one cycle."""

    name: str
    create: Callable[[PostgresServer], str]
    fill: Callable[[str, int], None]
    script: str
    left: str

    def check_left(self, dsn: str) -> None:
        """Make sure that the queue did not run dry: a cycle that finds nothing is no cycle."""
        with psycopg.connect(dsn) as connection:
            row = connection.execute(self.left).fetchone()
        if not row or not row[0]:
            raise RuntimeError(f"{self.name}: the queue ran dry, fill it higher")


def _execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


# Ours ---------------------------------------------------------------------------------------------


def create_ours(postgres: PostgresServer) -> str:
    """Our migrations."""
    return create_database(postgres, "ours", with_queue=True)


def fill_jobs(dsn: str, chunks: int, *, jobs: int, cap: int) -> None:
    """Start jobs of equal size."""
    _execute(dsn, "truncate public.sync_jobs, chunk_private.slots cascade", "vacuum analyze")
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(jobs):
            left = chunks // jobs
            job = connection.execute(
                "select public.start_sync_job('bench', chunks => '[]', sealed => false,"
                " max_concurrency => %s) ->> 'id'",
                (cap,),
            ).fetchone()
            while left > 0 and job:
                page = min(left, 50_000)
                left -= page
                connection.execute(
                    "select public.append_sync_chunks(%s,"
                    " (select jsonb_agg('{\"n\": 1}'::jsonb) from generate_series(1, %s)), seal => %s)",
                    (job[0], page, left == 0),
                )
    _execute(dsn, "vacuum analyze")


OURS_SINGLE = """
select chunk_id, claim_token from public.claim_next_chunk_job_safe('bench', kinds => '{bench}') \\gset
select public.complete_chunk_job_safe(:chunk_id, :claim_token);
"""
# As the processor and draining workers do it: a report claims the next chunk in the same call.
OURS_DRAINING = """
\\if :chunk_id = 0
select chunk_id, claim_token from public.claim_next_chunk_job_safe('bench', kinds => '{bench}') \\gset
\\endif
select next ->> 'chunk_id' as chunk_id, next ->> 'claim_token' as claim_token
from (
  select public.complete_chunk_job_safe(:chunk_id::bigint, :claim_token::uuid, claim_next => true) -> 'next' as next
) report \\gset
"""
OURS_BULK = """
select public.claim_chunk_jobs_safe('bench', 50, kinds => '{bench}') as claimed \\gset
select public.complete_chunk_jobs_safe(:claimed::jsonb);
"""
OURS_LEFT = "select count(*) from public.chunk_processing_queue where status = 'pending'"
one_job = Contender(
    "ours, 1 job, cap 1,000",
    create_ours,
    lambda dsn, n: fill_jobs(dsn, n, jobs=1, cap=1000),
    OURS_SINGLE,
    OURS_LEFT,
)
draining = Contender(
    "ours, 1 job, claim_next",
    create_ours,
    lambda dsn, n: fill_jobs(dsn, n, jobs=1, cap=1000),
    OURS_DRAINING,
    OURS_LEFT,
)
many_jobs = Contender(
    "ours, 100 jobs, cap 16",
    create_ours,
    lambda dsn, n: fill_jobs(dsn, n, jobs=100, cap=16),
    OURS_SINGLE,
    OURS_LEFT,
)
bulk = Contender(
    "ours in batches of 50",
    create_ours,
    lambda dsn, n: fill_jobs(dsn, n, jobs=1, cap=1000),
    OURS_BULK,
    OURS_LEFT,
)


# pgmq ---------------------------------------------------------------------------------------------


def create_pgmq(postgres: PostgresServer) -> str:
    """The SQL of pgmq as its Python package ships it."""
    dsn = create_database(postgres, "pgmq")
    sql = (resources.files("pgmq") / "sql" / "pgmq.sql").read_text()
    _execute(dsn, "create schema pgmq", sql, "select pgmq.create('bench')")
    return dsn


def fill_pgmq(dsn: str, messages: int) -> None:
    """Send messages."""
    _execute(
        dsn,
        "select pgmq.purge_queue('bench')",
        "truncate pgmq.a_bench",
        "select count(*) from pgmq.send_batch('bench',"
        f" array(select '{{\"n\": 1}}'::jsonb from generate_series(1, {messages})))",
        "vacuum analyze pgmq.q_bench",
    )


pgmq = Contender(
    "pgmq read+archive",
    create_pgmq,
    fill_pgmq,
    "select msg_id from pgmq.read('bench', 600, 1) \\gset\nselect pgmq.archive('bench', :msg_id::bigint);",
    "select count(*) from pgmq.q_bench",
)
pgmq_bulk = Contender(
    "pgmq in batches of 50",
    create_pgmq,
    fill_pgmq,
    "select array_agg(msg_id) as ids from pgmq.read('bench', 600, 50) \\gset\n"
    "select count(*) from pgmq.archive('bench', :ids::bigint[]);",
    "select count(*) from pgmq.q_bench",
)


# procrastinate ------------------------------------------------------------------------------------


def create_procrastinate(postgres: PostgresServer) -> str:
    """The schema of procrastinate, and one worker."""
    dsn = create_database(postgres, "procrastinate")
    sql = (resources.files("procrastinate") / "sql" / "schema.sql").read_text()
    _execute(dsn, sql)
    return dsn


def fill_procrastinate(dsn: str, jobs: int) -> None:
    """Defer jobs."""
    _execute(
        dsn,
        "truncate procrastinate_jobs, procrastinate_workers restart identity cascade",
        "insert into procrastinate_workers default values",
        "insert into procrastinate_jobs (queue_name, task_name, priority, args)"
        f" select 'bench', 'bench', 0, '{{\"n\": 1}}' from generate_series(1, {jobs})",
        "vacuum analyze procrastinate_jobs",
    )


procrastinate = Contender(
    "procrastinate fetch+finish",
    create_procrastinate,
    fill_procrastinate,
    "select id from procrastinate_fetch_job_v2(null, 1) \\gset\n"
    "select procrastinate_finish_job_v1(:id::bigint, 'succeeded', false);",
    "select count(*) from procrastinate_jobs where status = 'todo'",
)


# The floor ----------------------------------------------------------------------------------------


def create_floor(postgres: PostgresServer) -> str:
    """A table with a status."""
    dsn = create_database(postgres, "floor")
    _execute(
        dsn,
        "create table queue (id bigint generated always as identity primary key,"
        " status text not null default 'pending', payload jsonb)",
        "create index on queue (id) where status = 'pending'",
    )
    return dsn


def fill_floor(dsn: str, rows: int) -> None:
    """Insert rows."""
    _execute(
        dsn,
        "truncate queue",
        f"insert into queue (payload) select '{{\"n\": 1}}' from generate_series(1, {rows})",
        "vacuum analyze queue",
    )


floor = Contender(
    "plain SKIP LOCKED",
    create_floor,
    fill_floor,
    "update queue set status = 'processing' where id = (select id from queue where status = 'pending'"
    " order by id limit 1 for update skip locked) returning id \\gset\nupdate queue set status = 'completed' where id = :id;",
    "select count(*) from queue where status = 'pending'",
)
