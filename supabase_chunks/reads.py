"""One flow per table or view that is read, page by page after the last key."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ._answers import as_chunks, as_email_accounts, as_email_folders, as_jobs, as_kinds
from ._flow import Flow, Select, paged, send
from ._nearest import meant, no_such_kind
from .errors import ChunksError, InvalidArgument, JobNotFound, UnknownKind
from .states import ChunkStatus, JobStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from enum import StrEnum
    from uuid import UUID

    from .models import ChunkRecord, EmailAccount, EmailFolder, Kind, Progress

T = TypeVar("T")


def made_by(*, job_id: UUID, request_id: UUID) -> Flow[bool]:
    """Read whether a job was made by the start with that request id."""
    filters = (("id", "eq", str(job_id)), ("request_id", "eq", str(request_id)))
    return bool((yield from send(Select("sync_jobs", columns="id", filters=filters))))


def any_pending(*, kinds: Sequence[str]) -> Flow[bool]:
    """Read whether running jobs of these kinds have pending chunks, claimable or not yet."""
    which = (
        ("kind", "in", f"({','.join(_quoted(kind) for kind in kinds)})"),
        ("status", "in", "(pending,running)"),
        ("pending_chunks", "gt", "0"),
    )
    return bool((yield from send(Select("chunk_processing_status", columns="id", filters=which, limit=1))))


def job_key_of(*, job_id: UUID) -> Flow[str | None]:
    """Read a job's key; None when it has none, or is gone."""
    found = yield from send(Select("sync_jobs", columns="job_key", filters=(("id", "eq", str(job_id)),)))
    return found[0]["job_key"] if found else None


def list_kinds(*, kinds: Sequence[str] | None = None, for_service: bool = False) -> Flow[list[Kind]]:
    """Read the kinds, all or those named; `for_service` refuses a user's key before anything is sent."""
    filters = () if kinds is None else (("kind", "in", f"({','.join(_quoted(kind) for kind in kinds)})"),)
    request = Select("sync_kinds", filters=filters, order=("kind",), for_service=for_service)
    return as_kinds((yield from send(request)), "sync_kinds")


def check_kinds(kinds: Sequence[str]) -> Flow[None]:
    """Read whether all these kinds are there.

    Raises:
        UnknownKind: One is not; the message has the nearest.
    """
    names = [kind.kind for kind in (yield from list_kinds())]
    missing = [kind for kind in kinds if kind not in names]
    if missing:
        raise UnknownKind(no_such_kind(missing[0], names), code="SC002", details="kind")


def of_kinds(flow: Flow[T], kinds: Sequence[str] | None) -> Flow[T]:
    """Run a flow that names kinds; where one of them is not there, say which is the nearest."""
    try:
        return (yield from flow)
    except UnknownKind as error:
        refusal = error
    try:
        yield from check_kinds(kinds or [])
    except UnknownKind as better:
        better.status, better.body = refusal.status, refusal.body
        refusal = better
    except ChunksError:  # the kinds cannot be read: what the database said has to do
        pass
    raise refusal


def check_job(job_id: UUID) -> Flow[None]:
    """Read whether there is a job that the caller may see.

    Raises:
        JobNotFound: There is none.
    """
    if not (yield from send(Select("sync_jobs", columns="id", filters=(("id", "eq", str(job_id)),)))):
        raise JobNotFound(f"there is no sync job {job_id}, or it belongs to somebody else", code="SC001")


def list_email_accounts() -> Flow[list[EmailAccount]]:
    """Read the e-mail accounts."""

    def page(after: UUID | None, size: int) -> Flow[list[EmailAccount]]:
        filters = () if after is None else (("id", "gt", str(after)),)
        answer = yield from send(Select("email_accounts", filters=filters, order=("id",), limit=size))
        return as_email_accounts(answer, "email_accounts")

    return (yield from paged(page, lambda account: account.id, limit=None))


def list_email_folders(*, account: str, owner_id: UUID | None = None) -> Flow[list[EmailFolder]]:
    """Read the folders of an e-mail account: the owner's, else the service's or a user's own.

    Raises:
        InvalidArgument: There is no such account, or several owners have one of that name.
    """
    accounts = yield from list_email_accounts()
    named = [found for found in accounts if found.name == account]
    # A user sees no other's accounts, and need not say whose.
    chosen = [found for found in named if found.owner_id == owner_id] or (named if owner_id is None else [])
    if len(chosen) != 1:
        raise InvalidArgument(
            _no_such_account(account, owner_id, accounts, named), code="SC003", details="account"
        )

    def page(after: str | None, size: int) -> Flow[list[EmailFolder]]:
        filters: tuple[tuple[str, str, str], ...] = (("account_id", "eq", str(chosen[0].id)),)
        if after is not None:
            filters = (*filters, ("folder", "gt", after))
        request = Select("email_folders", filters=filters, order=("folder",), limit=size)
        return as_email_folders((yield from send(request)), "email_folders")

    return (yield from paged(page, lambda found: found.folder, limit=None))


def _no_such_account(
    account: str, owner_id: UUID | None, accounts: Sequence[EmailAccount], named: Sequence[EmailAccount]
) -> str:
    if owner_id is None and named:
        return f"{len(named)} users have an email account named {account!r}: owner_id says whose is meant"
    if owner_id is not None:
        return f"the user {owner_id} has no email account named {account!r}"
    return f"there is no email account named {account!r}{meant(account, [found.name for found in accounts])}"


def list_chunks(
    *, parent_sync_job_id: UUID, status: str | None = None, limit: int | None = None
) -> Flow[list[ChunkRecord]]:
    """Read a job's chunks in their order.

    Raises:
        InvalidArgument: There is no such state.
        JobNotFound: There is no such job, or it is not the caller's.
    """
    from .models import ChunkRecord

    _check_status(status, ChunkStatus)
    which: tuple[tuple[str, str, str], ...] = (("parent_sync_job_id", "eq", str(parent_sync_job_id)),)
    if status is not None:
        which = (*which, ("status", "eq", status))

    # Not all: the claim token proves who may report, and is nobody else's business.
    columns = ",".join(ChunkRecord.model_fields)

    def page(after: int | None, size: int) -> Flow[list[ChunkRecord]]:
        filters = which if after is None else (*which, ("chunk_index", "gt", str(after)))
        request = Select(
            "chunk_processing_queue",
            columns=columns,
            filters=filters,
            order=("chunk_index",),
            limit=size,
        )
        return as_chunks((yield from send(request)), "chunk_processing_queue")

    found = yield from paged(page, lambda chunk: chunk.chunk_index, limit=limit)
    if not found:
        yield from check_job(parent_sync_job_id)
    if not any(_has_its_jobs_payload(chunk) for chunk in found):
        return found
    job = (("id", "eq", str(parent_sync_job_id)),)
    jobs = yield from send(Select("sync_jobs", columns="payload", filters=job))
    payload = jobs[0].get("payload") if jobs else None
    return [
        chunk.model_copy(update={"payload": payload}) if _has_its_jobs_payload(chunk) else chunk
        for chunk in found
    ]


def list_jobs(
    *,
    status: str | None = None,
    kind: str | None = None,
    job_key: str | None = None,
    between: tuple[UUID, UUID] | None = None,
    limit: int | None = None,
) -> Flow[list[Progress]]:
    """Read the jobs, newest first; `between` are the first and the last id.

    Raises:
        InvalidArgument: There is no such state.
        UnknownKind: There is no such kind.
    """
    _check_status(status, JobStatus)
    which = tuple(
        (column, "eq", value)
        for column, value in (("status", status), ("kind", kind), ("job_key", job_key))
        if value is not None
    )
    if between is not None:
        which = (*which, ("id", "gte", str(between[0])), ("id", "lte", str(between[1])))

    def page(after: Progress | None, size: int) -> Flow[list[Progress]]:
        filters = which
        if after is not None and after.created_at is not None:
            at = after.created_at.isoformat()
            older = f'created_at.lt."{at}",and(created_at.eq."{at}",id.lt.{after.id})'
            filters = (*which, ("", "or", older))
        request = Select("chunk_processing_status", filters=filters, order=("-created_at", "-id"), limit=size)
        return as_jobs((yield from send(request)), "chunk_processing_status")

    found = yield from paged(page, lambda job: job, limit=limit)
    if not found and kind is not None:
        yield from check_kinds([kind])
    return found


def _check_status(status: str | None, states: type[StrEnum]) -> None:
    names = [str(state) for state in states]
    if status is not None and status not in names:
        raise InvalidArgument(
            f"no status is named {status!r}: it is one of {', '.join(names)}{meant(str(status), names)}",
            code="SC003",
            details="status",
        )


def _has_its_jobs_payload(chunk: ChunkRecord) -> bool:
    """Return whether a chunk was made by a start without chunks: its payload is the job's."""
    return chunk.payload is None and "payload" in chunk.model_fields_set


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
