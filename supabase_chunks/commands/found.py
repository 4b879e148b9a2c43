"""The project of the environment, and the job that is meant by its id or the beginning of it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from .failures import USAGE, Failure

if TYPE_CHECKING:
    from supabase_chunks import ChunksClient, Job

_DIGITS = 32
_SHOWN = 5


def connect() -> ChunksClient:
    """Return a client of the project that the environment names."""
    from supabase_chunks import ChunksClient

    return ChunksClient.from_env()


def find_job(client: ChunksClient, given: str) -> Job:
    """Return the job that is meant.

    Args:
        client: The project.
        given: Its id, or the beginning of it, as `JobId` has read it: digits only.

    Raises:
        JobNotFound: No id begins so.
        Failure: Several do.
    """
    from supabase_chunks import Job
    from supabase_chunks.errors import JobNotFound
    from supabase_chunks.reads import list_jobs

    if len(given) == _DIGITS:
        return client.job(UUID(given))
    first, last = UUID(given.ljust(_DIGITS, "0")), UUID(given.ljust(_DIGITS, "f"))
    found = client._driver.run(list_jobs(between=(first, last), limit=_SHOWN + 1))
    if not found:
        raise JobNotFound(f"there is no sync job whose id begins with {given}")
    if len(found) > 1:
        names = [f"{each.id} ({each.kind}, {each.status})" for each in found[:_SHOWN]]
        more = ["…"] if len(found) > _SHOWN else []
        raise Failure("\n  ".join([f"several ids begin with {given}:", *names, *more]), USAGE)
    return Job(client._driver, found[0].id, found[0])
