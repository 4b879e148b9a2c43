"""Running local stacks for the end-to-end tests."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import psycopg
import pytest

from supabase_chunks import ChunksClient
from supabase_chunks.local import LocalStack
from tests.e2e.hello import hello, write_project
from tests.e2e.mail import MailServer, certificate, pymap

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    """The project's own migrations and functions, served like a hosted project."""
    with LocalStack() as running:
        yield running


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one migration and one function, to test the stack itself with."""
    return write_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def plain(project: Path) -> Iterator[LocalStack]:
    """That project's stack."""
    with hello(project) as running:
        yield running


@pytest.fixture
def database(plain: LocalStack) -> Iterator[psycopg.Connection]:
    """A superuser's session in it."""
    with psycopg.connect(plain.db_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key, for mail servers."""
    return certificate(tmp_path_factory.mktemp("pem"))


@pytest.fixture(scope="session")
def mail_stack(pem: tuple[Path, Path]) -> Iterator[LocalStack]:
    """A stack whose functions trust the certificate."""
    env = {"IMAP_EXTRA_CA": pem[0].read_text(), "EMAIL_OAUTH_CUSTOM_CLIENT_SECRET": "client-secret-1"}
    with LocalStack(functions_env=env) as running:
        yield running


@pytest.fixture(scope="session")
def mail_client(mail_stack: LocalStack) -> Iterator[ChunksClient]:
    """The SDK, as the service."""
    with ChunksClient(mail_stack.url, mail_stack.secret_key) as client:
        client.save_kind(
            "email", handler="sync-emails", max_concurrency=4, retry_delay_seconds=1, user_startable=True
        )
        yield client


@pytest.fixture
def account() -> str:
    """A name of an email account that no other test has."""
    return f"account-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def server(pem: tuple[Path, Path]) -> Iterator[MailServer]:
    """A fresh pymap."""
    with pymap(*pem) as running:
        yield running
