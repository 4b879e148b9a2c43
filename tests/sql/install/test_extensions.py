"""The extensions land where Supabase has them, whatever the search path of who installs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from supabase_chunks.local import migrations, platform
from supabase_chunks.local.postgres import PostgresServer
from tests.sql.server import MIGRATIONS, SETTINGS

# What is to be seen of pg_net here: that it can be made, and in which schema it says it is.
CONTROL = "default_version = '0.20.4'\nrelocatable = false\nsuperuser = false\ntrusted = true\n"
SCRIPT = """
create function net_version() returns text language sql as 'select ''0.20.4''';
"""
WHERE = (
    "select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = %s"
)


@pytest.fixture
def with_pg_net(tmp_path: Path) -> Iterator[str]:
    """A server that has an extension pg_net to make, as a superuser's DSN."""
    folder = tmp_path / "extension"
    folder.mkdir()
    (folder / "pg_net.control").write_text(CONTROL)
    (folder / "pg_net--0.20.4.sql").write_text(SCRIPT)
    # As root, PostgreSQL runs as another user; the deeper folders are xdist's.
    for path in (tmp_path, *tmp_path.parents[:3]):
        if path.stat().st_uid == os.geteuid() and path.name.startswith(("test_", "pytest-", "popen-")):
            path.chmod(0o755)
    with PostgresServer(settings=SETTINGS | {"extension_control_path": f"$system:{tmp_path}"}) as server:
        platform.install(server.dsn)
        yield server.dsn


def test_pg_net_is_made_in_the_schema_for_extensions_under_an_empty_search_path(with_pg_net: str) -> None:
    with psycopg.connect(with_pg_net, autocommit=True) as owner:
        owner.execute("alter database postgres set search_path = ''")
    migrations.apply(with_pg_net, MIGRATIONS)
    with psycopg.connect(with_pg_net) as admin:
        assert admin.execute(WHERE, ("pg_net",)).fetchone() == ("extensions",)
