"""A row that Python cannot read, written past the functions' checks, fails alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from click.testing import CliRunner

import supabase_chunks as sc
from supabase_chunks.cli import cli
from tests.contract.conftest import done, worker_for

if TYPE_CHECKING:
    from supabase_chunks.local import LocalStack

POISON = {"deep": '{"a":' * 990 + "1" + "}" * 990, "long": '{"a": 1e100000}'}


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("where", ["chunk", "job"])
async def test_a_worker_fails_the_chunk_and_runs_the_others(
    client: Any, stack: LocalStack, kind: str, poison: str, where: str
) -> None:
    good = await done(client.trigger_sync(kind, chunks=[{"n": n} for n in range(5)]))
    bad = await done(client.trigger_sync(kind, chunks=[{"n": 5}]))
    table, column = {"chunk": ("chunk_processing_queue", "parent_sync_job_id"), "job": ("sync_jobs", "id")}[
        where
    ]
    with psycopg.connect(stack.db_url, autocommit=True) as database:
        database.execute(
            f"update public.{table} set payload = %s::jsonb where {column} = %s",  # type: ignore[arg-type]
            (POISON[poison], bad.id),
        )
    seen: list[int] = []
    worker = worker_for(client, lambda chunk: seen.append(chunk.payload["n"]), kinds=[kind], concurrency=2)
    assert await done(worker.run_until_idle()) == 6
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert (await done(good.progress())).completed_chunks == 5
    progress = await done(bad.progress())
    assert progress.status == "failed"
    (chunk,) = await done(bad.chunks())
    assert chunk.attempts == 1
    assert chunk.error.startswith("cannot be read: ")
    unreadable = chunk.payload if where == "chunk" else progress.payload
    assert isinstance(unreadable, sc.Unreadable)
    assert str(unreadable) in chunk.error
    assert bad.id in {job.id for job in await done(client.jobs(kind=kind))}
    environment = {"SUPABASE_URL": stack.url, "SUPABASE_SECRET_KEY": stack.secret_key}
    for command in ("chunks", "status"):
        for options in ([], ["--json"]):
            shown = CliRunner().invoke(cli, [command, str(bad.id), *options], env=environment)
            assert shown.exit_code == 0, shown.output
