"""Ways to break the queue that the checks must find.

Most put a function of another meaning before one of the queue's, which goes on in another schema: they do not depend on how it
is written inside. Some take words out of a function, where only that shows what they were there for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

_FUNCTION = """
select pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), p.pronargs, p.provolatile
from pg_proc p where p.proname = %s and p.pronamespace = 'public'::regnamespace
"""


@dataclass(frozen=True)
class Mutation:
    """One way.

    Attributes:
        what: What is broken, in words.
        function: The function that is put aside.
        body: The query that takes its place; `{original}` is a call of the original with the arguments as they came,
            or with `{original:n=expression}` the n-th of them replaced.
        found_by: The checks of which at least one must find it.
    """

    what: str
    function: str
    body: str
    found_by: frozenset[str]

    @contextmanager
    def made(self, db_url: str) -> Iterator[None]:
        """Break a database that `project.running` has set up, for the block."""
        with psycopg.connect(db_url, autocommit=True) as admin:
            row = admin.execute(_FUNCTION, (self.function,)).fetchone()
            assert row is not None, self.function
            arguments, returns, count, volatility = row
            name = self.function
            for statement in (
                f"alter function public.{name} set schema torture",
                "grant usage on schema torture to service_role",
                f"create function public.{name}({arguments}) returns {returns} language sql"
                f" {'stable' if volatility == 's' else 'volatile'} set default_transaction_isolation = 'read committed'"
                f" as $body$ {self._query(count)} $body$",
                f"revoke execute on function public.{name} from public",
                f"grant execute on function public.{name} to service_role",
                "notify pgrst, 'reload schema'",
            ):
                admin.execute(statement.encode())
        try:
            yield
        finally:
            with psycopg.connect(db_url, autocommit=True) as admin:
                admin.execute(f"drop function public.{self.function}".encode())
                admin.execute(f"alter function torture.{self.function} set schema public".encode())
                admin.execute("notify pgrst, 'reload schema'")

    def _query(self, count: int) -> str:
        given = [f"${n}" for n in range(1, count + 1)]
        query = self.body.replace("{original}", f"torture.{self.function}({', '.join(given)})")
        while "{original:" in query:
            before, _, rest = query.partition("{original:")
            change, _, after = rest.partition("}")
            place, _, expression = change.partition("=")
            changed = [*given[: int(place) - 1], expression, *given[int(place) :]]
            query = f"{before}torture.{self.function}({', '.join(changed)}){after}"
        return query


@dataclass(frozen=True)
class Cut:
    """Words that are taken out of a function.

    Attributes:
        what: What is broken, in words.
        function: The function, with its schema.
        words: What it says.
        instead: What it says then.
        found_by: The checks of which at least one must find it.
    """

    what: str
    function: str
    words: str
    instead: str
    found_by: frozenset[str]

    @contextmanager
    def made(self, db_url: str) -> Iterator[None]:
        """Break a database for the block."""
        with psycopg.connect(db_url, autocommit=True) as admin:
            row = admin.execute("select pg_get_functiondef(%s::regproc)", (self.function,)).fetchone()
            assert row is not None
            assert self.words in row[0], (
                f"{self.function} does not say {self.words!r} any more: mend this mutation"
            )
            admin.execute(row[0].replace(self.words, self.instead).encode())
        try:
            yield
        finally:
            with psycopg.connect(db_url, autocommit=True) as admin:
                admin.execute(row[0].encode())


MUTATIONS: dict[str, Mutation | Cut] = {
    "no-fence": Mutation(
        "a report counts whatever its token",
        "complete_chunk_job_safe",
        "select {original:2=coalesce((select q.claim_token from public.chunk_processing_queue q where q.id = $1), $2)}",
        frozenset({"fenced", "completed_once", "answered_alike", "kept_as_said", "held_in_the_tables"}),
    ),
    "early-recovery": Mutation(
        "the watchdog takes chunks from workers whose lease runs",
        "cleanup_stuck_chunks",
        "select {original:1='100 milliseconds'}",
        frozenset({"held_by_one", "held_in_the_tables", "heard"}),
    ),
    "no-recovery": Mutation(
        "the watchdog takes nothing from lost workers",
        "cleanup_stuck_chunks",
        "select 0",
        frozenset({"ended_in_time"}),
    ),
    "forgotten-claims": Mutation(
        "a repeated claim is a new one",
        "claim_next_chunk_job_safe",
        "select * from {original:5=null::uuid}",
        frozenset({"repeated_claims"}),
    ),
    "appended-twice": Mutation(
        "a repeated append appends again",
        "append_sync_chunks",
        "select {original:3=gen_random_uuid()}",
        frozenset({"nothing_twice"}),
    ),
    "a-chunk-less": Mutation(
        "a start that forgets its last chunk",
        "start_sync_job",
        "select {original:2=case when jsonb_array_length($2) > 1 then $2 - -1 else $2 end}",
        frozenset({"nothing_lost"}),
    ),
    "one-above-the-cap": Mutation(
        "a job may have one chunk more than its cap",
        "start_sync_job",
        "select {original:9=$9 + 1}",
        frozenset({"capped"}),
    ),
    "one-above-the-limit": Mutation(
        "a limit key may have one chunk more",
        "save_sync_limit",
        "select {original:2=$2 + 1}",
        frozenset({"limited"}),
    ),
    "deaf-block": Mutation(
        "a blocked key is not blocked",
        "block_sync_limit",
        "select {original:2=0}",
        frozenset({"blocked"}),
    ),
    "deaf-pause": Mutation(
        "a job that says that it is paused, and runs on",
        "pause_sync_job",
        'select public.get_sync_job_progress_safe($1) || \'{"status": "paused"}\'',
        frozenset({"paused"}),
    ),
    "deaf-cancel": Mutation(
        "a job that says that it is cancelled, and runs on",
        "cancel_sync_job",
        'select public.get_sync_job_progress_safe($1) || \'{"status": "cancelled"}\'',
        frozenset({"cancelled"}),
    ),
    "another-answer": Mutation(
        "a repeated report is told that it is stale",
        "complete_chunk_job_safe",
        "select case when exists (select from public.chunk_processing_queue q where q.id = $1 and q.completed_at < now())"
        ' then {original} || \'{"outcome": "stale"}\' else {original} end',
        frozenset({"answered_alike"}),
    ),
    "one-done-too-many": Mutation(
        "progress counts one more than is done",
        "get_sync_job_progress_safe",
        "select p || jsonb_build_object('completed_chunks', (p -> 'completed_chunks')::int + 1, 'pending_chunks',"
        " (p -> 'pending_chunks')::int - 1) from {original} p",
        frozenset({"progress_exact"}),
    ),
    "early-failure": Mutation(
        "a failure that could be tried again is the last",
        "complete_chunk_job_safe",
        "select {original:6=$6 and random() < 0.7}",
        frozenset({"attempts"}),
    ),
    "two-last-finishers": Cut(
        "who may be the last does not lock the job before it asks",
        "chunk_private.finish_if_done",
        "where j.id = job_id for no key update",
        "where j.id = job_id",
        frozenset({"ended_in_time", "invariants_hold"}),
    ),
    "open-gate": Cut(
        "reports enter no gate, and meet those who steer the job",
        "public.complete_chunk_job_safe",
        "pg_advisory_xact_lock_shared(uuid_hash_extended(q.parent_sync_job_id, 0))::text",
        "clock_timestamp()::text",
        frozenset({"ended_in_time", "invariants_hold", "rows_agree"}),
    ),
}
