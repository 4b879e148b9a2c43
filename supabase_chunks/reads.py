"""One flow per table or view that is read, page by page after the last key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._flow import Flow, Select, paged, send
from ._rpc import decode_list
from .models import ChunkRecord, EmailAccount, Kind, Progress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

_CHUNK_COLUMNS = ",".join(ChunkRecord.model_fields)


def made_by(*, job_id: UUID, request_id: UUID) -> Flow[bool]:
    """Read whether a job was made by the start with that request id."""
    filters = (("id", "eq", str(job_id)), ("request_id", "eq", str(request_id)))
    return bool((yield from send(Select("sync_jobs", columns="id", filters=filters))))


def list_kinds(*, kinds: Sequence[str] | None = None) -> Flow[list[Kind]]:
    """Read the kinds, all or those named."""
    filters = () if kinds is None else (("kind", "in", f"({','.join(_quoted(kind) for kind in kinds)})"),)
    answer = yield from send(Select("sync_kinds", filters=filters, order=("kind",)))
    return decode_list(Kind, answer, "sync_kinds")


def list_email_accounts() -> Flow[list[EmailAccount]]:
    """Read the e-mail accounts."""

    def page(after: UUID | None, size: int) -> Flow[list[EmailAccount]]:
        filters = () if after is None else (("id", "gt", str(after)),)
        answer = yield from send(Select("email_accounts", filters=filters, order=("id",), limit=size))
        return decode_list(EmailAccount, answer, "email_accounts")

    return (yield from paged(page, lambda account: account.id, limit=None))


def list_chunks(
    *, parent_sync_job_id: UUID, status: str | None = None, limit: int | None = None
) -> Flow[list[ChunkRecord]]:
    """Read a job's chunks in their order."""
    which: tuple[tuple[str, str, str], ...] = (("parent_sync_job_id", "eq", str(parent_sync_job_id)),)
    if status is not None:
        which = (*which, ("status", "eq", status))

    def page(after: int | None, size: int) -> Flow[list[ChunkRecord]]:
        filters = which if after is None else (*which, ("chunk_index", "gt", str(after)))
        request = Select(
            "chunk_processing_queue",
            columns=_CHUNK_COLUMNS,
            filters=filters,
            order=("chunk_index",),
            limit=size,
        )
        return decode_list(ChunkRecord, (yield from send(request)), "chunk_processing_queue")

    return (yield from paged(page, lambda chunk: chunk.chunk_index, limit=limit))


def list_jobs(
    *,
    status: str | None = None,
    kind: str | None = None,
    job_key: str | None = None,
    limit: int | None = None,
) -> Flow[list[Progress]]:
    """Read the jobs, newest first."""
    which = tuple(
        (column, "eq", value)
        for column, value in (("status", status), ("kind", kind), ("job_key", job_key))
        if value is not None
    )

    def page(after: Progress | None, size: int) -> Flow[list[Progress]]:
        filters = which
        if after is not None and after.created_at is not None:
            at = after.created_at.isoformat()
            older = f'created_at.lt."{at}",and(created_at.eq."{at}",id.lt.{after.id})'
            filters = (*which, ("", "or", older))
        request = Select("chunk_processing_status", filters=filters, order=("-created_at", "-id"), limit=size)
        return decode_list(Progress, (yield from send(request)), "chunk_processing_status")

    return (yield from paged(page, lambda job: job, limit=limit))


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
