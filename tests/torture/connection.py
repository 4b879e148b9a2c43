"""Connections of who hurts, watches and puts right: what the nemesis has set as defaults does not reach them."""

from __future__ import annotations

from typing import Any

import psycopg

_SOUND = "-c default_transaction_read_only=off -c default_transaction_isolation=read\\ committed -c statement_timeout=10000"


def connect(db_url: str, *, role: str = "supabase_admin", **options: Any) -> psycopg.Connection[Any]:
    """Connect as the superuser, or as another role."""
    return psycopg.connect(
        db_url, autocommit=True, options=f"{_SOUND} -c role={role}", connect_timeout=5, **options
    )
