"""Which role a request acts as, as far as its key and token say so, and what only the service may do."""

from __future__ import annotations

import base64
import json

from .errors import PermissionDenied

SERVICE_ONLY = frozenset(
    {
        "block_sync_limit",
        "chunk_system_health",
        "claim_chunk_jobs_safe",
        "claim_next_chunk_job_safe",
        "cleanup_stuck_chunks",
        "complete_chunk_job_safe",
        "complete_chunk_jobs_safe",
        "configure_chunk_processing",
        "extend_chunk_lease",
        "extend_chunk_leases",
        "get_sync_state",
        "list_sync_limits",
        "pace_sync_limit",
        "purge_sync_jobs",
        "release_chunk_job",
        "remove_sync_kind",
        "save_sync_kind",
        "save_sync_limit",
        "save_sync_state",
        "trigger_next_chunk_processing",
    }
)
"""The functions of the database that need a secret key."""

_NEEDED = "a secret key is needed (sb_secret_…, or the legacy service_role key)"


def refuse_users(what: str, key: str, token: str | None) -> None:
    """Refuse what only the service may do, before it is sent, where key and token surely are a user's.

    Args:
        what: What is asked for.
        key: The API key.
        token: The user's token, if there is one.

    Raises:
        PermissionDenied: They are; the message says what is needed.
    """
    role = _role(key if token is None else token)
    if role == "anon":
        raise PermissionDenied(f"{what}: {_NEEDED}, and this client has a publishable one", code="42501")
    if role == "authenticated":
        raise PermissionDenied(f"{what}: {_NEEDED}, and this client acts as a signed-in user", code="42501")


def _role(credential: str) -> str | None:
    """Return the role of a key or a token; None where it does not say."""
    if credential.startswith("sb_publishable_"):
        return "anon"
    parts = credential.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return None
    role = claims.get("role") if isinstance(claims, dict) else None
    return role if isinstance(role, str) else None
