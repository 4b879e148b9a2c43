"""A stack to hurt: the queue with two kinds and a handler, proxies on the ways between its parts, and a log of jobs' ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from supabase_chunks import ChunksClient
from supabase_chunks.local import LocalStack
from tests.handlers import write_functions
from tests.torture.connection import connect
from tests.torture.proxy import Proxy
from tests.torture.steps import EDGE_KIND, KIND, LEASE

HANDLER = """
import { serveHandler, Throttled } from "../_shared/serve.ts";

export default serveHandler(async ({ attempt, payload }) => {
  if (payload.ms) await new Promise((resolve) => setTimeout(resolve, payload.ms));
  if (attempt <= (payload.fails ?? 0)) throw new Error("as the chunk asks");
  if (payload.throttled && Math.random() < 0.5) throw new Throttled(1);
  const next_chunks = Array.from({ length: payload.more ?? 0 }, (_, n) => ({ m: `${payload.m}+${n}`, items: 1 }));
  return { result: { m: payload.m }, items_processed: payload.items, ...(next_chunks.length ? { next_chunks } : {}) };
});
"""
EVENTS = """
create schema torture;
create table torture.events (id bigint generated always as identity, job_id uuid, event text);
create function torture.note() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  insert into torture.events (job_id, event) values (new.id, case when new.completed_at is null then 'reopened' else new.status end);
  return null;
end
$$;
create trigger torture_note after update on public.sync_jobs for each row
  when ((old.completed_at is null) <> (new.completed_at is null)) execute function torture.note();
create trigger torture_note_at_start after insert on public.sync_jobs for each row
  when (new.completed_at is not null) execute function torture.note();
"""
EMPTY = "delete from public.sync_jobs; delete from public.sync_limits; delete from torture.events; delete from net.http_request_queue"


@dataclass(frozen=True)
class Project:
    """A running stack.

    Attributes:
        stack: It.
        clients: Between callers or workers, and PostgREST.
        functions: Between the Edge Functions, and PostgREST and each other.
        webhooks: Between the database, and the Edge Functions.
    """

    stack: LocalStack
    clients: Proxy
    functions: Proxy
    webhooks: Proxy

    def empty(self) -> None:
        """Begin without jobs."""
        with connect(self.stack.db_url) as admin:
            for statement in EMPTY.split(";"):
                admin.execute(statement.encode())


@contextmanager
def running() -> Iterator[Project]:
    """Start one."""
    with (
        TemporaryDirectory() as folder,
        Proxy("clients") as clients,
        Proxy("functions") as functions,
        Proxy("webhooks") as webhooks,
    ):
        environment = {
            "SUPABASE_URL": functions.url,
            "HEARTBEAT_SECONDS": "0.5",
            "CHUNKS_PER_INVOCATION": "5",
            "WALL_CLOCK_SECONDS": "20",
        }
        with LocalStack(
            functions=write_functions(Path(folder) / "functions", EDGE_KIND, HANDLER, without="sync-emails"),
            functions_env=environment,
        ) as stack:
            for proxy in (clients, functions, webhooks):
                proxy.target = stack.url
            with psycopg.connect(stack.postgres_url, autocommit=True) as owner:
                owner.execute(EVENTS)
            with ChunksClient(stack.url, stack.secret_key) as client:
                client.save_kind(
                    KIND, max_concurrency=4, max_retries=5, lease_seconds=LEASE, retry_delay_seconds=0
                )
                client.save_kind(
                    EDGE_KIND,
                    handler=EDGE_KIND,
                    max_concurrency=4,
                    max_retries=5,
                    lease_seconds=LEASE,
                    retry_delay_seconds=0,
                )
                client.configure(webhooks.url, stack.secret_key)
            yield Project(stack, clients, functions, webhooks)
