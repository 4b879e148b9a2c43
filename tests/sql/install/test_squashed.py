"""After `supabase migration squash`, which keeps what migrations made and drops what they wrote, they are run again."""

from __future__ import annotations

import subprocess

from supabase_chunks.local import platform
from tests.sql.database import Session
from tests.sql.install.schema import install, run, schema
from tests.sql.install.test_migrations import FILES, works
from tests.sql.server import BIN_DIR_15, Cluster


def as_text(admin: Session) -> str:
    """The schema, without the parentheses that a constraint loses on its way through a dump."""
    return str(schema(admin)).replace("(", "").replace(")", "")


def test_a_squashed_project_gets_its_data_back(cluster_15: Cluster) -> None:
    with cluster_15.database(template=None) as before, cluster_15.database(template=None) as squashed:
        platform.install(before.dsn)
        install(before, FILES)
        dump = subprocess.run(
            [
                BIN_DIR_15 / "pg_dump",
                *("--schema-only", "--quote-all-identifiers", "--schema", "public|chunk_private"),
                *("--dbname", before.dsn),
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert '"chunk_private"' in dump, "by this init knows a squashed file"
        text = "\n".join(line for line in dump.splitlines() if not line.startswith("\\"))
        text = text.replace('CREATE SCHEMA "', 'CREATE SCHEMA IF NOT EXISTS "')
        platform.install(squashed.dsn)
        run(squashed, [text])
        admin = squashed.connect("supabase_admin")
        assert admin.rows("select * from public.sync_kinds") == []
        install(squashed, FILES)
        assert as_text(admin) == as_text(before.connect("supabase_admin"))
        assert {row["kind"] for row in admin.rows("select kind from public.sync_kinds")} == {
            "custom",
            "email",
        }
        works(squashed)
