"""The one error of the demo."""

from __future__ import annotations

from supabase_chunks.errors import ChunksError


class DemoError(ChunksError):
    """The demo cannot go on; the message is a sentence that says what to do about it."""
