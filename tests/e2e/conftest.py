"""Running local stacks for the end-to-end tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from supabase_chunks.local import LocalStack
from tests.e2e.hello import hello, write_project

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
