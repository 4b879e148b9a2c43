"""The database's own bounds that are kept here too, so that nothing is sent which it would refuse.

A test compares them with the SQL and with the Edge Functions.
"""

from __future__ import annotations

from typing import Final

MOST_ITEMS: Final = 2**53 - 1
"""Items: as many as every reader of JSON keeps exact."""

MOST_DIGITS: Final = 300
"""Digits of a number in a payload, before or after the point: every program can read as many."""

LONGEST_PAUSE: Final = 604_800
"""Seconds before the next attempt, a week; a longer Retry-After counts as that."""

LONGEST_BLOCK: Final = 3_600
"""Seconds that being throttled blocks a limit key, an hour; a longer one counts as that."""

MOST_CLAIMED: Final = 100
"""Chunks in one claim."""

MOST_REPORTED: Final = 100
"""Reports in one call; the database takes more, but one call is one transaction."""

MOST_EXTENDED: Final = 500
"""Heartbeats in one call."""
