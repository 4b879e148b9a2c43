"""Answers of the database as models, imported at the first: pydantic would be most of our import time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._rpc import decode, decode_list

if TYPE_CHECKING:
    from .health import Health
    from .models import (
        Attempt,
        ChunkRecord,
        Claim,
        Completion,
        EmailAccount,
        EmailFolder,
        Kind,
        Lease,
        Limit,
        Progress,
        Purged,
    )


def as_progress(data: object, what: str) -> Progress:
    """Return an answer as the progress of a job; `what` was asked, for errors."""
    from .models import Progress

    return decode(Progress, data, what)


def as_jobs(data: object, what: str) -> list[Progress]:
    """Return an answer as the progress of several jobs."""
    from .models import Progress

    return decode_list(Progress, data, what)


def as_kind(data: object, what: str) -> Kind:
    """Return an answer as a kind."""
    from .models import Kind

    return decode(Kind, data, what)


def as_kinds(data: object, what: str) -> list[Kind]:
    """Return an answer as kinds."""
    from .models import Kind

    return decode_list(Kind, data, what)


def as_limit(data: object, what: str) -> Limit:
    """Return an answer as a limit key and its limits."""
    from .models import Limit

    return decode(Limit, data, what)


def as_limits(data: object, what: str) -> list[Limit]:
    """Return an answer as several limit keys."""
    from .models import Limit

    return decode_list(Limit, data, what)


def as_claims(data: object, what: str) -> list[Claim]:
    """Return an answer as claims."""
    from .models import Claim

    return decode_list(Claim, data, what)


def as_completion(data: object, what: str) -> Completion:
    """Return an answer as what became of a report."""
    from .models import Completion

    return decode(Completion, data, what)


def as_completions(data: object, what: str) -> list[Completion]:
    """Return an answer as what became of several reports."""
    from .models import Completion

    return decode_list(Completion, data, what)


def as_lease(data: object, what: str) -> Lease:
    """Return an answer as the answer to a heartbeat."""
    from .models import Lease

    return decode(Lease, data, what)


def as_leases(data: object, what: str) -> list[Lease]:
    """Return an answer as the answers to several heartbeats."""
    from .models import Lease

    return decode_list(Lease, data, what)


def as_chunks(data: object, what: str) -> list[ChunkRecord]:
    """Return an answer as rows of the queue."""
    from .models import ChunkRecord

    return decode_list(ChunkRecord, data, what)


def as_attempts(data: object, what: str) -> list[Attempt]:
    """Return an answer as attempts that did not complete."""
    from .models import Attempt

    return decode_list(Attempt, data, what)


def as_email_accounts(data: object, what: str) -> list[EmailAccount]:
    """Return an answer as e-mail accounts."""
    from .models import EmailAccount

    return decode_list(EmailAccount, data, what)


def as_email_folders(data: object, what: str) -> list[EmailFolder]:
    """Return an answer as folders of an e-mail account."""
    from .models import EmailFolder

    return decode_list(EmailFolder, data, what)


def as_health(data: object, what: str) -> Health:
    """Return an answer as how an installation is."""
    from .health import Health

    return decode(Health, data, what)


def as_purged(data: object, what: str) -> Purged:
    """Return an answer as what was deleted."""
    from .models import Purged

    return decode(Purged, data, what)
