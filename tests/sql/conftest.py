"""Servers once a session, a database of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sql.database import Database, Session
from tests.sql.server import BIN_DIR_15, Cluster, running


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """PostgreSQL 18."""
    with running() as made:
        yield made


@pytest.fixture(scope="session")
def cluster_15() -> Iterator[Cluster]:
    """PostgreSQL 15, the oldest that Supabase runs."""
    if not BIN_DIR_15.exists():
        pytest.skip("PostgreSQL 15 is missing")
    with running(BIN_DIR_15) as made:
        yield made


@pytest.fixture
def db(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database with the queue, for this test alone: as if new, or new where something is measured."""
    with cluster.database(fresh=request.node.get_closest_marker("measured") is not None) as made:
        yield made


@pytest.fixture
def db_15(cluster_15: Cluster, request: pytest.FixtureRequest) -> Iterator[Database]:
    """The same on PostgreSQL 15."""
    with cluster_15.database(fresh=request.node.get_closest_marker("measured") is not None) as made:
        yield made


@pytest.fixture
def service(db: Database) -> Session:
    """A connection as service_role."""
    return db.connect()


@pytest.fixture
def admin(db: Database) -> Session:
    """A connection as the superuser, to look behind."""
    return db.connect("supabase_admin")
