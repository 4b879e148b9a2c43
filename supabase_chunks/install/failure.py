"""The one error of installing."""

from __future__ import annotations

from supabase_chunks.errors import ChunksError


class InstallError(ChunksError):
    """Nothing was installed; the message says why and what to do."""
