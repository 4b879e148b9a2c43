"""The one error of the local stack."""

from __future__ import annotations

from supabase_chunks.errors import ChunksError


class LocalStackError(ChunksError):
    """A part of the local stack could not start, or stopped for good.

    The message is one sentence (or two) that says what to do about it.
    """
