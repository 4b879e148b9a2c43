"""What may be a secret, and so is in no message: keys, tokens, and whatever names a user at a server."""

from __future__ import annotations

import re

_SECRET = re.compile(r"sb_|eyJ|@|://|-----BEGIN")


def has_key(text: str) -> bool:
    """Return whether a text has a key in it: of Supabase, a token, or a certificate's."""
    return re.search(r"sb_(secret|publishable)_|eyJ|-----BEGIN", text) is not None


def shown(value: object) -> str:
    """Return a value that cannot be right, for a message: as it is, unless it may be a secret."""
    return "what was given (not shown, it may be a secret)" if _SECRET.search(str(value)) else repr(value)
