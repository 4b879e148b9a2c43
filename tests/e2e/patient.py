"""A project that is made ill, and examined by `supabase-chunks doctor`."""

from __future__ import annotations

import json
import re
import shlex
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click
import psycopg
from click.testing import CliRunner

from supabase_chunks import ChunksClient, InvalidState, Job
from supabase_chunks.cli import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supabase_chunks.local import LocalStack


class Patient:
    """A project that is made ill, and examined."""

    def __init__(self, stack: LocalStack) -> None:
        self.stack = stack
        self.client = ChunksClient(stack.url, stack.secret_key)

    def examine(self, *options: str, **environment: str) -> tuple[int, dict[str, dict[str, Any]]]:
        """The exit code, and the checks by name."""
        known = {"SUPABASE_URL": self.stack.url, "SUPABASE_SECRET_KEY": self.stack.secret_key}
        done = CliRunner().invoke(cli, ["doctor", "--json", *options], env={**known, **environment})
        assert "Traceback" not in done.output
        assert self.stack.secret_key not in done.output
        return done.exit_code, {check["name"]: check for check in json.loads(done.stdout)}

    def end(self, *jobs: Job) -> None:
        """Cancel jobs, unless they have ended by then."""
        for job in jobs:
            with suppress(InvalidState):
                job.cancel()

    def finds(
        self, name: str, *words: str, also: str = "", options: tuple[str, ...] = (), **environment: str
    ) -> None:
        """Assert that this check alone (or what follows from it, too) fails, in these words, with a fix."""
        code, checks = self.examine(*options, **environment)
        failed = {check for check in checks if not checks[check]["ok"]}
        assert (code, failed) == (1, {name, also} - {""}), checks
        text = f"{checks[name]['detail']} | {checks[name]['fix']}"
        assert checks[name]["fix"]
        for word in words:
            assert word in text
        self.can_be_typed(checks[name]["fix"])

    def can_be_typed(self, fix: str) -> None:
        """Assert that an advice of a command exists, and that SQL does what the project's owner may do; it is undone."""
        advice = fix.partition("  (")[0]
        if advice.startswith("supabase-chunks "):
            command: click.Command = cli
            arguments = shlex.split(advice.partition(" && ")[0])[1:]
            while isinstance(command, click.Group):
                command = command.get_command(click.Context(command), arguments.pop(0)) or click.Command(None)
            assert command.name, advice
            with command.make_context(command.name, arguments):
                return
        # What stands in for an extension here is none, and what stands in for pg_cron runs as the superuser.
        if advice.endswith(";") and not re.match("create extension|select pg_cancel_backend", advice):
            with psycopg.connect(self.stack.postgres_url, autocommit=advice.startswith("vacuum")) as owner:
                owner.execute(advice.encode())
                owner.rollback()

    def type_fix(self, name: str) -> None:
        """Type the SQL that a check advises, as it stands and as the project's owner."""
        fix = self.examine()[1][name]["fix"]
        assert "; " in f"{fix} ", fix
        with psycopg.connect(self.stack.postgres_url, autocommit=True) as owner:
            owner.execute(fix[: fix.rindex(";") + 1].encode())

    @contextmanager
    def ill(self, harm: str, cure: str) -> Iterator[None]:
        """With something changed in the database, as its superuser."""
        self.execute(harm)
        try:
            yield
        finally:
            self.execute(cure)

    def rows(self, query: str) -> list[Any]:
        """Run a query as the superuser."""
        with psycopg.connect(self.stack.db_url) as database:
            return database.execute(query.encode()).fetchall()

    def execute(self, sql: str) -> None:
        """Run statements as the superuser."""
        with psycopg.connect(self.stack.db_url, autocommit=True) as database:
            for statement in sql.split(";;"):
                database.execute(statement.encode())
