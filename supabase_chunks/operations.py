"""One flow per database function, named like it, with its argument names.

Payloads come here as JSON values already: encoding runs code of the user's, which must stay out of a flow.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ._answers import (
    as_attempts,
    as_claims,
    as_completion,
    as_completions,
    as_health,
    as_kind,
    as_lease,
    as_leases,
    as_limit,
    as_limits,
    as_progress,
    as_purged,
)
from ._flow import Call, Flow, paged, send
from ._rpc import call, decode, decode_uuid
from .errors import UnexpectedResponse
from .reads import check_job, check_kinds, of_kinds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta
    from uuid import UUID

    from ._encode import JSON
    from .health import Health
    from .models import Attempt, Claim, Completion, Kind, Lease, Limit, Progress, Purged

T = TypeVar("T")

_ASK_AGAIN = "chunks-ask-again-ms"


class Batch(NamedTuple):
    """What a claim of many has got."""

    claims: list[Claim]
    ask_again: float | None
    """Seconds, when there are none and some wait for a place of their limit key."""


def save_sync_kind(
    *,
    kind: str,
    handler: str | None = None,
    max_concurrency: int | None = None,
    max_retries: int | None = None,
    lease_seconds: int | None = None,
    retry_delay_seconds: int | None = None,
    user_startable: bool | None = None,
    limit_by: str | None = None,
    limit_each: int | None = None,
) -> Flow[Kind]:
    """Add a kind, or change what is given of one."""
    request = call(
        "save_sync_kind",
        kind=kind,
        handler=handler,
        max_concurrency=max_concurrency,
        max_retries=max_retries,
        lease_seconds=lease_seconds,
        retry_delay_seconds=retry_delay_seconds,
        user_startable=user_startable,
        limit_by=limit_by,
        limit_each=limit_each,
    )
    return as_kind((yield from send(request)), "save_sync_kind")


def remove_sync_kind(*, kind: str) -> Flow[bool]:
    """Remove a kind that has no jobs."""
    return decode(bool, (yield from send(call("remove_sync_kind", kind=kind))), "remove_sync_kind")


def list_sync_limits() -> Flow[list[Limit]]:
    """Read the limit keys that have limits, are blocked or have work."""
    return as_limits((yield from send(call("list_sync_limits"))), "list_sync_limits")


def save_sync_limit(
    *, key: str, max_concurrency: int | None = None, rate: int | None = None, per_seconds: int = 1
) -> Flow[Limit]:
    """Set what the jobs with a limit key share."""
    request = call(
        "save_sync_limit", key=key, max_concurrency=max_concurrency, rate=rate, per_seconds=per_seconds
    )
    return as_limit((yield from send(request)), "save_sync_limit")


def block_sync_limit(*, key: str, seconds: int, reason: str | None = None) -> Flow[Limit]:
    """Hand out no chunk of a limit key for so many seconds."""
    request = call("block_sync_limit", key=key, seconds=seconds, reason=reason)
    return as_limit((yield from send(request)), "block_sync_limit")


def pace_sync_limit(*, key: str, n: int) -> Flow[int]:
    """Take room for so many requests of a limit key; returns the milliseconds until it is there."""
    return decode(int, (yield from send(call("pace_sync_limit", key=key, n=n))), "pace_sync_limit")


def configure_chunk_processing(*, project_url: str, processor_key: str) -> Flow[Health]:
    """Write the URL and the key that webhooks use into Vault."""
    request = call("configure_chunk_processing", project_url=project_url, processor_key=processor_key)
    return as_health((yield from send(request)), "configure_chunk_processing")


def start_sync_job(
    *,
    kind: str,
    chunks: list[JSON] | None = None,
    total_items: int | None = None,
    chunk_size: int | None = None,
    payload: JSON = None,
    job_key: str | None = None,
    request_id: UUID | None = None,
    priority: int | None = None,
    max_concurrency: int | None = None,
    max_retries: int | None = None,
    owner_id: UUID | None = None,
    sealed: bool | None = None,
    limit_key: str | None = None,
) -> Flow[Progress]:
    """Start a job, or find the running one with its `job_key`."""
    request = call(
        "start_sync_job",
        kind=kind,
        chunks=chunks,
        total_items=total_items,
        chunk_size=chunk_size,
        payload=payload,
        job_key=job_key,
        request_id=_text(request_id),
        priority=priority,
        max_concurrency=max_concurrency,
        max_retries=max_retries,
        owner_id=_text(owner_id),
        sealed=sealed,
        limit_key=limit_key,
    )
    return as_progress((yield from of_kinds(send(request), [kind])), "start_sync_job")


def append_sync_chunks(
    *,
    parent_sync_job_id: UUID,
    chunks: list[JSON],
    request_id: UUID | None = None,
    seal: bool = False,
    items_total: int | None = None,
) -> Flow[Progress]:
    """Add chunks to an unsealed job, and seal it when they are the last."""
    request = call(
        "append_sync_chunks",
        parent_sync_job_id=str(parent_sync_job_id),
        chunks=chunks,
        request_id=_text(request_id),
        seal=seal,
        items_total=items_total,
    )
    return as_progress((yield from send(request)), "append_sync_chunks")


def get_sync_job_progress_safe(*, parent_sync_job_id: UUID) -> Flow[Progress]:
    """Read a job's progress in one snapshot."""
    return (yield from _progress("get_sync_job_progress_safe", parent_sync_job_id))


def list_chunk_attempts(*, parent_sync_job_id: UUID) -> Flow[list[Attempt]]:
    """Read the attempts of a job's chunks that did not complete."""

    def page(after: int | None, _size: int) -> Flow[list[Attempt]]:
        request = call("list_chunk_attempts", parent_sync_job_id=str(parent_sync_job_id), after_id=after)
        return as_attempts((yield from send(request)), "list_chunk_attempts")

    return (yield from paged(page, lambda attempt: attempt.id, limit=None))


def cancel_sync_job(*, parent_sync_job_id: UUID) -> Flow[Progress]:
    """Cancel a job's pending and processing chunks."""
    return (yield from _progress("cancel_sync_job", parent_sync_job_id))


def pause_sync_job(*, parent_sync_job_id: UUID) -> Flow[Progress]:
    """Stop handing out a job's chunks."""
    return (yield from _progress("pause_sync_job", parent_sync_job_id))


def resume_sync_job(*, parent_sync_job_id: UUID) -> Flow[Progress]:
    """Go on with a paused job."""
    return (yield from _progress("resume_sync_job", parent_sync_job_id))


def retry_failed_chunks(*, parent_sync_job_id: UUID, from_start: bool | None = None) -> Flow[Progress]:
    """Reopen a job's failed chunks, to go on from their checkpoints or from their start."""
    return (yield from _progress("retry_failed_chunks", parent_sync_job_id, from_start=from_start))


def _progress(function: str, parent_sync_job_id: UUID, **choices: bool | None) -> Flow[Progress]:
    answer = yield from send(call(function, parent_sync_job_id=str(parent_sync_job_id), **choices))
    return as_progress(answer, function)


def claim_next_chunk_job_safe(
    *,
    worker_id: str,
    parent_sync_job_id: UUID | None = None,
    kinds: Sequence[str] | None = None,
    lease_seconds: int | None = None,
    claim_id: UUID | None = None,
) -> Flow[Claim | None]:
    """Claim one chunk, if there is one."""
    request = call(
        "claim_next_chunk_job_safe",
        worker_id=worker_id,
        parent_sync_job_id=_text(parent_sync_job_id),
        kinds=None if kinds is None else list(kinds),
        lease_seconds=lease_seconds,
        claim_id=_text(claim_id),
    )
    claims = as_claims((yield from of_kinds(send(request), kinds)), "claim_next_chunk_job_safe")
    return claims[0] if claims else None


def claim_chunk_jobs_safe(
    *,
    worker_id: str,
    batch_size: int,
    parent_sync_job_id: UUID | None = None,
    kinds: Sequence[str] | None = None,
    lease_seconds: int | None = None,
    claim_id: UUID | None = None,
) -> Flow[Batch]:
    """Claim up to `batch_size` chunks."""
    request = call(
        "claim_chunk_jobs_safe",
        worker_id=worker_id,
        batch_size=batch_size,
        parent_sync_job_id=_text(parent_sync_job_id),
        kinds=None if kinds is None else list(kinds),
        lease_seconds=lease_seconds,
        claim_id=_text(claim_id),
    )
    reply = yield from of_kinds(send(replace(request, header=_ASK_AGAIN)), kinds)
    milliseconds = reply.header
    return Batch(
        as_claims(reply.data, "claim_chunk_jobs_safe"),
        float(milliseconds) / 1000 if milliseconds is not None and milliseconds.isdecimal() else None,
    )


def complete_chunk_job_safe(
    *,
    chunk_id: int,
    claim_token: UUID,
    success: bool = True,
    result: JSON = None,
    error: str | None = None,
    retryable: bool | None = None,
    retry_after_seconds: int | None = None,
    next_chunks: list[JSON] | None = None,
    items_processed: int | None = None,
    items_total: int | None = None,
    claim_next: bool | None = None,
    next_state: dict[str, JSON] | None = None,
    throttled_seconds: int | None = None,
) -> Flow[Completion]:
    """Report how a chunk went."""
    request = call(
        "complete_chunk_job_safe",
        chunk_id=chunk_id,
        claim_token=str(claim_token),
        success=success,
        result=result,
        error=error,
        retryable=retryable,
        retry_after_seconds=retry_after_seconds,
        next_chunks=next_chunks,
        items_processed=items_processed,
        items_total=items_total,
        claim_next=claim_next,
        next_state=next_state,
        throttled_seconds=throttled_seconds,
    )
    return as_completion((yield from send(request)), "complete_chunk_job_safe")


def complete_chunk_jobs_safe(*, completions: list[JSON]) -> Flow[list[Completion]]:
    """Report how several chunks went; a bad report has the outcome `error`, the others go through."""
    answer = yield from send(call("complete_chunk_jobs_safe", completions=completions))
    return _as_many(completions, as_completions(answer, "complete_chunk_jobs_safe"))


def extend_chunk_lease(
    *,
    chunk_id: int,
    claim_token: UUID,
    lease_seconds: int | None = None,
    items_processed: int | None = None,
    checkpoint: dict[str, JSON] | None = None,
) -> Flow[Lease]:
    """Send a heartbeat for a chunk, and save where a later attempt goes on."""
    request = call(
        "extend_chunk_lease",
        chunk_id=chunk_id,
        claim_token=str(claim_token),
        lease_seconds=lease_seconds,
        items_processed=items_processed,
        checkpoint=checkpoint,
    )
    return as_lease((yield from send(request)), "extend_chunk_lease")


def extend_chunk_leases(*, leases: list[JSON], lease_seconds: int | None = None) -> Flow[list[Lease]]:
    """Send the heartbeats of several chunks."""
    answer = yield from send(call("extend_chunk_leases", leases=leases, lease_seconds=lease_seconds))
    return _as_many(leases, as_leases(answer, "extend_chunk_leases"))


def release_chunk_job(
    *,
    chunk_id: int,
    claim_token: UUID,
    reason: str | None = None,
    checkpoint: dict[str, JSON] | None = None,
    items_processed: int | None = None,
) -> Flow[Completion]:
    """Give a claimed chunk back, and save where a later attempt goes on."""
    request = call(
        "release_chunk_job",
        chunk_id=chunk_id,
        claim_token=str(claim_token),
        reason=reason,
        checkpoint=checkpoint,
        items_processed=items_processed,
    )
    return as_completion((yield from send(request)), "release_chunk_job")


def get_sync_state(*, kind: str, job_key: str, owner_id: UUID | None = None) -> Flow[Any]:
    """Read what the next sync of that kind, key and owner starts from."""
    state = yield from send(call("get_sync_state", kind=kind, job_key=job_key, owner_id=_text(owner_id)))
    if state is None:
        yield from check_kinds([kind])
    return state


def save_sync_state(
    *, kind: str, job_key: str, state: dict[str, JSON] | None, owner_id: UUID | None = None
) -> Flow[Any]:
    """Set what the next sync of that kind, key and owner starts from; None forgets it."""
    # Not `call`: the null is what forgets.
    arguments = {"kind": kind, "job_key": job_key, "state": state, "owner_id": _text(owner_id)}
    return (yield from of_kinds(send(Call("save_sync_state", arguments)), [kind]))


def trigger_next_chunk_processing(*, parent_sync_job_id: UUID | None = None) -> Flow[int]:
    """Send the webhooks that are due now."""
    request = call("trigger_next_chunk_processing", parent_sync_job_id=_text(parent_sync_job_id))
    sent = decode(int, (yield from send(request)), "trigger_next_chunk_processing")
    if not sent and parent_sync_job_id is not None:
        yield from check_job(parent_sync_job_id)
    return sent


def cleanup_stuck_chunks(*, stuck_after: timedelta | None = None) -> Flow[int]:
    """Recover the chunks whose worker is gone."""
    seconds = None if stuck_after is None else f"{stuck_after.total_seconds()} seconds"
    return decode(
        int, (yield from send(call("cleanup_stuck_chunks", stuck_after=seconds))), "cleanup_stuck_chunks"
    )


def save_email_account(
    *,
    name: str,
    host: str,
    username: str,
    password: str | None = None,
    port: int | None = None,
    tls: str | None = None,
    owner_id: UUID | None = None,
    oauth: Mapping[str, str] | None = None,
) -> Flow[UUID]:
    """Add or change an e-mail account."""
    request = call(
        "save_email_account",
        name=name,
        host=host,
        username=username,
        password=password,
        port=port,
        tls=tls,
        owner_id=_text(owner_id),
        auth=None if oauth is None else "xoauth2",
        oauth=None if oauth is None else dict(oauth),
    )
    return decode_uuid((yield from send(request)), "save_email_account")


def remove_email_account(*, name: str, owner_id: UUID | None = None) -> Flow[bool]:
    """Remove an e-mail account and its password."""
    answer = yield from send(call("remove_email_account", name=name, owner_id=_text(owner_id)))
    return decode(bool, answer, "remove_email_account")


def purge_sync_jobs(*, older_than: timedelta | None = None, batch_size: int | None = None) -> Flow[Purged]:
    """Delete ended jobs, at most about `batch_size` chunks of them."""
    seconds = None if older_than is None else f"{older_than.total_seconds()} seconds"
    answer = yield from send(call("purge_sync_jobs", older_than=seconds, batch_size=batch_size))
    return as_purged(answer, "purge_sync_jobs")


def chunk_system_health() -> Flow[Health]:
    """Read how the installation is."""
    return as_health((yield from send(call("chunk_system_health"))), "chunk_system_health")


def _as_many(asked: list[JSON], answers: list[T]) -> list[T]:
    """Check that each item of a bulk call has its answer."""
    if len(answers) != len(asked):
        raise UnexpectedResponse(f"{len(asked)} items were answered with {len(answers)} answers")
    return answers


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)
