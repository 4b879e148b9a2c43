"""One running local stack for all end-to-end tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from supabase_chunks.local import LocalStack

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    """The project's own migrations and functions, served like a hosted project."""
    with LocalStack() as running:
        yield running
