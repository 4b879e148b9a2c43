"""The migrations are built from supabase/schemas, and lead to the same database as these."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from supabase_chunks.local import platform
from tests.sql.database import Database
from tests.sql.install.schema import install, run, schema
from tests.sql.server import MIGRATIONS, Cluster
from tools import build_migrations

SOURCES = sorted(build_migrations.SCHEMAS.glob("*.sql"))


@pytest.fixture
def two(cluster: Cluster) -> Iterator[tuple[Database, Database]]:
    """Two databases without anything."""
    with cluster.database(template=None) as one, cluster.database(template=None) as other:
        platform.install(one.dsn)
        platform.install(other.dsn)
        yield one, other


def test_what_is_checked_in_is_what_the_sources_give() -> None:
    version = build_migrations.release()
    found = [path.read_text(encoding="utf-8") for path in build_migrations.paths(version)]
    assert found == list(build_migrations.build(version)), "run `make migrations`"
    assert all("Built from supabase/schemas" in text.splitlines()[0] for text in found)


def test_the_release_is_named_alike_everywhere(cluster: Cluster) -> None:
    with cluster.database() as database:
        assert database.connect().call("chunk_system_health")["version"] == build_migrations.release()


def test_a_file_is_short_enough_to_be_read() -> None:
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: count for name, count in lines.items() if count > 250} == {}


def test_all_migrations_make_what_the_sources_make(two: tuple[Database, Database]) -> None:
    migrated, made = two
    install(migrated, sorted(MIGRATIONS.glob("*.sql")))
    install(made, SOURCES)
    assert schema(migrated.connect("supabase_admin")) == schema(made.connect("supabase_admin"))


def test_a_release_upgraded_is_what_the_next_ones_sources_make(
    two: tuple[Database, Database], tmp_path: Path
) -> None:
    """The next release adds a column by hand and changes a function: over this one it gives what its sources give."""
    sources = tmp_path / "schemas"
    shutil.copytree(build_migrations.SCHEMAS, sources)
    tables, version = sources / "11_private_tables.sql", sources / "82_operate.sql"
    column = "alter table chunk_private.settings add column if not exists tried text;\n"
    tables.write_text(tables.read_text() + column)
    version.write_text(version.read_text().replace(f"'{build_migrations.release()}'", "'99.0.0'"))
    upgraded, made = two
    install(upgraded, sorted(MIGRATIONS.glob("*.sql")))
    built = build_migrations.build("99.0.0", sources=sources)
    assert not any("create table" in text for text in built), "an upgrade's tables are changed by hand"
    run(upgraded, [column, *built])
    install(made, sorted(sources.glob("*.sql")))
    assert schema(upgraded.connect("supabase_admin")) == schema(made.connect("supabase_admin"))
    assert upgraded.connect().call("chunk_system_health")["version"] == "99.0.0"
