"""Fixtures for your own tests: a whole Supabase project with supabase-chunks, without Docker.

Loaded by pytest wherever this package is installed; it starts nothing until a test asks for it. Needs the
extra `local`. In pytest's configuration, `supabase_chunks_project = "."` runs the migrations and functions of
your project instead of this package's own.

Example:
    >>> def test_orders_are_synced(supabase_chunks_client):
    ...     job = supabase_chunks_client.trigger_sync("sync-orders", chunks=[{"page": 1}])
    ...     assert job.wait(timeout=30).completed_chunks == 1
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supabase_chunks import ChunksClient
    from supabase_chunks.local import LocalStack

_OPTION = "supabase_chunks_project"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting to pytest's configuration file."""
    parser.addini(_OPTION, "The folder of a project, with its supabase/ in it.", default="")


@pytest.fixture(scope="session")
def supabase_stack(pytestconfig: pytest.Config) -> Iterator[LocalStack]:
    """A running project, the same for all tests of the session."""
    from supabase_chunks.local import LocalStack

    project = str(pytestconfig.getini(_OPTION))
    with LocalStack(project=pytestconfig.rootpath / project if project else None) as stack:
        yield stack


@pytest.fixture
def supabase_chunks_client(supabase_stack: LocalStack) -> Iterator[ChunksClient]:
    """A client with the secret key of the running project."""
    from supabase_chunks import ChunksClient

    with ChunksClient(supabase_stack.url, supabase_stack.secret_key) as client:
        yield client
