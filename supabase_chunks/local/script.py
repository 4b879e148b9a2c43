"""Running an SQL file as the owner of a hosted project would, and saying what this machine cannot do."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from supabase_chunks.errors import LocalStackError
from supabase_chunks.local.extensions import BUILT_IN, MISSING, TRUSTED
from supabase_chunks.local.statements import split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from supabase_chunks.local.statements import Statement

_EXTENSION = re.compile(r'\bextension\s+(?:if\s+(?:not\s+)?exists\s+)?"?(?P<name>[\w-]+)', re.IGNORECASE)
_ABOUT_EXTENSION = re.compile(r"(create|alter|drop|comment on) extension\b")
_VERSION = re.compile(r"""\s+(?:with\s+)?version\s+(?:'[^']*'|"[^"]*"|[\w.]+)""", re.IGNORECASE)
# Hosted, an extension of the server (supautils) lets the owner do these; PostgreSQL wants a superuser.
_LENT = re.compile(
    r"(create|alter|drop) event trigger\b"
    r"|create publication .*\bfor (all tables|tables in schema)\b"
)
_ABSENT = (
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.UndefinedFile,
    psycopg.errors.UndefinedObject,
)
_UNKNOWN_NAME = (
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedObject,
    psycopg.errors.UndefinedTable,
)
# How the scripts of stand-ins begin a warning (platform/extensions/).
_NAME_ONLY = ": only its name is here"


class Script:
    """A file of SQL, for a connection of a superuser who acts as the project's owner."""

    def __init__(self, name: str, text: str, *, role: str, note: Callable[[str], None]) -> None:
        """Make it.

        Args:
            name: What messages call it, such as "Migration 1_users.sql".
            text: The SQL.
            role: The owner.
            note: Called with a line for what this machine has not, and what was passed over for it.
        """
        self.statements: list[Statement] = list(split(text))
        self._name = name
        self._text = text
        self._owner = sql.Identifier(role)
        self._note = note
        self._missing: dict[str, int] = {}
        self._at = 1

    def run(self, connection: psycopg.Connection) -> None:
        """Run the statements in turn, within the open transaction.

        Raises:
            LocalStackError: One failed; the message names file and line, the cause is PostgreSQL's error.
        """
        with self._heard(connection):
            for statement in self.statements:
                self._at = self._line(statement.start)
                try:
                    self._run(connection, statement)
                except psycopg.Error as error:
                    raise LocalStackError(self._complaint(statement, error)) from error

    def _run(self, connection: psycopg.Connection, statement: Statement) -> None:
        if _ABOUT_EXTENSION.match(statement.gist):
            self._run_extension(connection, statement)
        elif _LENT.match(statement.gist):
            self._run_as_superuser(connection, statement.text)
        elif self._missing and statement.words[:1] == ["select"]:
            self._run_call(connection, statement)
        else:
            connection.execute(statement.text.encode())

    def _run_as_superuser(self, connection: psycopg.Connection, text: str) -> None:
        connection.execute("reset session authorization")
        connection.execute(text.encode())
        connection.execute(sql.SQL("set session authorization {}").format(self._owner))

    def _run_extension(self, connection: psycopg.Connection, statement: Statement) -> None:
        named = _EXTENSION.search(statement.text)
        name = named["name"].lower() if named else ""
        try:
            with _savepoint(connection):
                connection.execute(statement.text.encode())
        except psycopg.errors.InvalidParameterValue:
            # Another version than a hosted project has.
            any_version = _VERSION.sub("", statement.text)
            if any_version == statement.text:
                raise
            with _savepoint(connection):
                connection.execute(any_version.encode())
            self._say(f"this machine has another version of the extension {name}")
        except (*_ABSENT, psycopg.errors.InsufficientPrivilege) as error:
            # A server before 18 knows nothing of our stand-ins, and has its own word on whom it trusts.
            refused = isinstance(error, psycopg.errors.InsufficientPrivilege)
            if self._is_built_in(connection, name):
                return
            if refused and name in TRUSTED:
                self._run_as_superuser(connection, statement.text)
            elif refused or name not in MISSING:
                raise
            elif name not in self._missing:
                self._missing[name] = self._at
                self._say(f"the extension {name} is not to be had on this machine; going on without it")

    def _is_built_in(self, connection: psycopg.Connection, name: str) -> bool:
        schema = BUILT_IN.get(name)
        row = connection.execute("select to_regnamespace(%s) is not null", (schema,)).fetchone()
        return row is not None and bool(row[0])

    def _run_call(self, connection: psycopg.Connection, statement: Statement) -> None:
        """A query that may call what a missing extension would have brought."""
        try:
            with _savepoint(connection):
                connection.execute(statement.text.encode())
        except _UNKNOWN_NAME as error:
            culprit = self._culprit(error)
            if culprit is None:
                raise
            self._say(f"passed over, since {culprit} is missing: {error.diag.message_primary}")

    def _culprit(self, error: psycopg.Error) -> str | None:
        words = re.findall(r"[\w-]+", error.diag.message_primary or "")
        return next((name for name in self._missing if name in words), None)

    def _say(self, text: str) -> None:
        self._note(f"{self._name}, line {self._at}: {text}.")

    @contextmanager
    def _heard(self, connection: psycopg.Connection) -> Iterator[None]:
        """Pass the warnings of stand-ins on as notes."""

        def hear(notice: psycopg.errors.Diagnostic) -> None:
            text = notice.message_primary or ""
            if _NAME_ONLY in text:
                self._say(text)

        connection.add_notice_handler(hear)
        try:
            yield
        finally:
            connection.remove_notice_handler(hear)

    def _complaint(self, statement: Statement, error: psycopg.Error) -> str:
        position = error.diag.statement_position
        line = self._line(statement.start + int(position) - 1) if position else self._at
        text = f"{self._name}, line {line} failed: {error.diag.message_primary or error}"
        if self._missing and isinstance(error, _UNKNOWN_NAME):
            missing = ", ".join(f"{name} (line {at})" for name, at in self._missing.items())
            text += f". This machine lacks an extension that the file asks for: {missing}"
        return text

    def _line(self, at: int) -> int:
        return self._text.count("\n", 0, at) + 1


@contextmanager
def _savepoint(connection: psycopg.Connection) -> Iterator[None]:
    """Without it a failed statement would end the whole transaction; a file may have ended that itself."""
    if connection.info.transaction_status == TransactionStatus.INTRANS:
        with connection.transaction():
            yield
    else:
        yield
