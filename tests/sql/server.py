"""PostgreSQL servers for the tests: one a version and session, with a migrated template database to clone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from supabase_chunks.local import migrations, platform
from supabase_chunks.local.postgres import PostgresServer
from tests.sql import recycling
from tests.sql.database import Database

ROOT = Path(__file__).resolve().parents[2]
MIGRATIONS = ROOT / "supabase" / "migrations"
BIN_DIR_15 = Path("/usr/lib/postgresql/15/bin")
# Autovacuum off: what a test measures shall not depend on when it ran.
SETTINGS = {
    "autovacuum": "off",
    "max_connections": "100",
    "log_min_messages": "error",
    "track_functions": "pl",
}

# The kinds that the tests use: without a handler and with one, retries at once.
KINDS = """
select public.save_sync_kind('plain', max_concurrency => 1000, retry_delay_seconds => 0, user_startable => true);
select public.save_sync_kind('web', handler => 'do-it', max_concurrency => 4, retry_delay_seconds => 0);
select public.save_sync_kind('private', max_concurrency => 2);
"""

# How often each job has come to an end, for the tests that prove it: once, and once more each time it is reopened.
FINISHES = """
create schema tests;
grant usage on schema tests to service_role;
create table tests.ends (job_id uuid, status text);
grant select, insert, delete on tests.ends to service_role;
create function tests.note_end() returns trigger language plpgsql security definer as $$
begin
  insert into tests.ends values (new.id, new.status);
  return null;
end
$$;
create trigger note_end after update on public.sync_jobs for each row
  when (new.completed_at is not null and old.completed_at is null) execute function tests.note_end();
create trigger note_end_at_start after insert on public.sync_jobs for each row
  when (new.completed_at is not null) execute function tests.note_end();
create function tests.finishes(job_id uuid) returns bigint language sql stable as
  'select count(*) from tests.ends e where e.job_id = $1';
grant execute on function tests.note_end, tests.finishes to service_role;
"""


class Cluster:
    """A running server whose databases are clones of one migrated template."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._numbers = itertools.count(1)
        self._admin = psycopg.connect(server.dsn, autocommit=True)
        self._has_template = False
        self._finished: list[str] = []
        self._free: list[Database] = []

    def close(self) -> None:
        """Close the administrator's connection, and those of databases that wait to be used again."""
        for database in self._free:
            database.close()
        self._admin.close()

    def make_template(self) -> None:
        """Migrate the template, once."""
        if not self._has_template:
            self._admin.execute("create database template_queue owner postgres")
            dsn = self.server.dsn_for("template_queue")
            platform.install(dsn)
            migrations.apply(dsn, MIGRATIONS)
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("set role postgres")
                connection.execute(KINDS)
                connection.execute("reset role")
                connection.execute(FINISHES)
                connection.execute("vacuum analyze")
                recycling.prepare(connection)
            self._has_template = True

    @contextmanager
    def database(self, *, template: str | None = "template_queue", fresh: bool = False) -> Iterator[Database]:
        """A database for one test: with the queue, or with template None one without anything.

        Args:
            template: What it is a clone of.
            fresh: Whether nobody may have used it before, for tests that look at its files and statistics.
        """
        is_ours = template == "template_queue"
        made = self._free.pop() if is_ours and not fresh and self._free else self._clone(template)
        try:
            yield made
        except BaseException:
            self._drop(made)
            raise
        if is_ours and made.recycle():
            self._free.append(made)
        else:
            self._drop(made)

    def _clone(self, template: str | None) -> Database:
        if template == "template_queue":
            self.make_template()
        name = f"test_{next(self._numbers)}"
        self._admin.execute(
            f"create database {name} template {template or 'template0'} strategy file_copy owner postgres"
        )
        return Database(self.server, name)

    def _drop(self, database: Database) -> None:
        """Drop it, one later: a drop that meets sessions on their way out sleeps for a tenth of a second."""
        database.close()
        self._finished.append(database.name)
        if len(self._finished) > 1:
            self._admin.execute(f"drop database {self._finished.pop(0)} with (force)")


@contextmanager
def running(bin_dir: Path | None = None, **settings: str) -> Iterator[Cluster]:
    """A server of a version, in memory."""
    with PostgresServer(bin_dir=bin_dir, settings=SETTINGS | settings) as server:
        platform.install(server.dsn)  # the roles, which belong to the whole cluster
        cluster = Cluster(server)
        try:
            yield cluster
        finally:
            cluster.close()
