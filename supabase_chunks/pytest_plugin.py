"""pytest fixtures for test suites that want a Supabase project to themselves.

    def test_sync(supabase_chunks_stack):
        client = ChunksClient(supabase_chunks_stack.url, supabase_chunks_stack.secret_key)

The stack is started once a session, at its first use. For your own functions or migrations override the
options in your conftest.py:

    @pytest.fixture(scope="session")
    def supabase_chunks_stack_options():
        return {"functions": "supabase/functions", "migrations": "supabase/migrations"}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supabase_chunks.local import LocalStack


@pytest.fixture(scope="session")
def supabase_chunks_stack_options() -> dict[str, Any]:
    """What LocalStack is called with; override it to change that."""
    return {}


@pytest.fixture(scope="session")
def supabase_chunks_stack(supabase_chunks_stack_options: dict[str, Any]) -> Iterator[LocalStack]:
    """A running local stack, shared by the tests of a session and gone after them."""
    # Imported here: pytest loads this file in every project of an environment, with the extra or without.
    from supabase_chunks.local import LocalStack

    with LocalStack(**supabase_chunks_stack_options) as stack:
        yield stack
