"""What the database answers, as frozen models. Unknown fields are ignored: the server may be newer."""

from __future__ import annotations

from datetime import datetime, timedelta  # noqa: TC003 - pydantic reads the annotations when the class is made
from typing import ClassVar
from uuid import UUID  # noqa: TC003 - as above

from pydantic import BaseModel, ConfigDict, Field

from ._unreadable import Json, Unreadable
from .states import ChunkStatus, JobStatus, Outcome

__all__ = [
    "Attempt",
    "ChunkRecord",
    "ChunkStatus",
    "Claim",
    "Completion",
    "EmailAccount",
    "JobStatus",
    "Kind",
    "Lease",
    "Limit",
    "Outcome",
    "Progress",
    "Purged",
    "WaitingFor",
]


class Model(BaseModel):
    """What they have in common."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class WaitingFor(Model):
    """The limit key that a job waits for."""

    key: str
    until: datetime | None = None
    """When its block ends; None: it waits for a place."""
    reason: str | None = None
    """Why it is blocked. Only the service sees this, and the counts."""
    processing: int | None = None
    """How many chunks with that key are being worked on."""
    max_concurrency: int | None = None
    """How many may be."""


class Progress(Model):
    """How far a sync job is, read in one snapshot.

    Example:
        >>> Progress(id="6f2c8d3e-0000-4000-8000-000000000000", kind="email", status="running",
        ...          total_chunks=4, completed_chunks=1).ended
        False
    """

    id: UUID
    kind: str
    status: JobStatus
    total_chunks: int = 0
    pending_chunks: int = 0
    processing_chunks: int = 0
    completed_chunks: int = 0
    failed_chunks: int = 0
    cancelled_chunks: int = 0
    retrying_chunks: int = 0
    """Those of the pending and processing chunks that have had a failed attempt."""
    items_total: int | None = None
    items_processed: int = 0
    percent_complete: float = 0.0
    """From 0 to 100."""
    eta_seconds: float | None = None
    stalled: bool = False
    """Whether the job needs somebody to act; `stalled_reason` says why."""
    stalled_reason: str | None = None
    waiting_for: WaitingFor | None = None
    """The limit key that it waits for, which is not being stalled; None: it waits for none."""
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    last_activity_at: datetime | None = None
    last_error: str | None = None
    job_key: str | None = None
    payload: Json = None
    owner_id: UUID | None = None
    created: bool = False
    """In the answer to a start: whether this call made the job (else one with its `job_key` was running)."""

    @property
    def ended(self) -> bool:
        """Whether the job is completed, failed or cancelled."""
        return self.status.ended

    @property
    def ended_chunks(self) -> int:
        """How many chunks are completed, failed or cancelled."""
        return self.completed_chunks + self.failed_chunks + self.cancelled_chunks

    def _repr_html_(self) -> str:
        from ._show.html import progress_line

        return progress_line(self)


class ChunkRecord(Model):
    """A row of `chunk_processing_queue`."""

    id: int
    parent_sync_job_id: UUID
    kind: str
    chunk_index: int
    status: ChunkStatus
    owner_id: UUID | None = None
    payload: Json = None
    result: Json = None
    error: str | None = None
    attempts: int = 0
    max_retries: int = 0
    items_processed: int | None = None
    items_total: int | None = None
    worker_id: str | None = None
    locked_until: datetime | None = None
    ready_at: datetime | None = None
    """When the retry of a chunk that has failed is due; None before the first failure."""
    checkpoint: Json = None
    """Where a later attempt goes on."""
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def duration(self) -> timedelta | None:
        """How long the last attempt took, or None while it has not ended."""
        if self.started_at is None or self.completed_at is None:
            return None
        return self.completed_at - self.started_at


class Attempt(Model):
    """An attempt at a chunk that did not complete it."""

    id: int
    chunk_id: int
    chunk_index: int
    attempt: int
    """1 for the first."""
    outcome: str
    """`retrying` and `failed`: an error was reported; `lost`: the lease ran out; `released`: it was given
    back; `throttled`: what it works on asked for a pause; `cancelled`: the job was."""
    error: str | None = None
    worker_id: str | None = None
    started_at: datetime | None = None
    ended_at: datetime


class Claim(Model):
    """A chunk that was claimed: what to do, and the token that proves who may report on it."""

    chunk_id: int
    parent_sync_job_id: UUID
    kind: str
    handler: str | None = None
    chunk_index: int
    attempt: int
    """1 for the first attempt."""
    max_attempts: int
    payload: Json = None
    job_payload: Json = None
    owner_id: UUID | None = None
    claim_token: UUID = Field(repr=False)
    locked_until: datetime
    """When the lease ends, by the database's clock."""
    checkpoint: Json = None
    """Where to go on: what an earlier attempt has saved."""
    limit_key: str | None = None
    """What its job shares limits by with other jobs."""

    @property
    def unreadable(self) -> list[str]:
        """What of it could not be read, by name, with why; usually nothing."""
        return [
            f"{name} ({value})"
            for name in ("payload", "job_payload", "checkpoint")
            if isinstance(value := getattr(self, name), Unreadable)
        ]


class Completion(Model):
    """The answer to a report on a chunk."""

    outcome: Outcome
    chunk_id: int | None = None
    chunk_status: ChunkStatus | None = None
    job_status: JobStatus | None = None
    remaining: int | None = None
    """How many chunks of the job have not ended."""
    next: Claim | None = None
    """With `claim_next`: the next chunk of the job, already claimed."""
    code: str | None = None
    message: str | None = None


class Lease(Model):
    """The answer to a heartbeat."""

    ok: bool
    """False when the chunk is no longer held with that token."""
    cancel_requested: bool = False
    locked_until: datetime | None = None
    chunk_id: int | None = None


class Kind(Model):
    """A row of `sync_kinds`: a sort of sync and its limits."""

    kind: str
    handler: str | None = None
    """The Edge Function that works the chunks; None means Python workers do."""
    max_concurrency: int = 1
    max_retries: int = 3
    lease_seconds: int = 600
    retry_delay_seconds: int = 10
    user_startable: bool = False
    limit_by: str | None = None
    """By what its jobs share limits: a field of the job's payload, or `owner_id`; None: nothing."""
    limit_each: int | None = None
    """How many chunks of those that share may be worked on at once."""


class Limit(Model):
    """What the jobs with one limit key share, and how it stands with them."""

    key: str
    max_concurrency: int | None = None
    """How many of their chunks may be worked on at once; None: any number."""
    rate: int | None = None
    """How many requests their handlers may make within `per_seconds`; None: any number."""
    per_seconds: int | None = None
    blocked_until: datetime | None = None
    """Until when none of their chunks is handed out; None: it is not blocked."""
    blocked_reason: str | None = None
    processing: int = 0
    """How many of their chunks are being worked on."""
    waiting: int = 0
    """How many more were handed out by their jobs, and wait."""
    jobs: int = 0
    """How many of them are active."""


class Purged(Model):
    """What a call of `purge` has deleted."""

    jobs: int
    chunks: int
    more: bool
    """Whether there is more to delete."""


class EmailAccount(Model):
    """A row of `email_accounts`; passwords and tokens are in Vault and are never read back."""

    id: UUID
    name: str
    host: str
    port: int = 993
    tls: str = "implicit"
    username: str
    auth: str = "password"
    """password or xoauth2."""
    reauth_required: bool = False
    """Whether somebody has to give access again, since the provider refused to renew the tokens."""
    owner_id: UUID | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class EmailFolder(Model):
    """A row of `email_folders`: a folder of an e-mail account, and how far it is synced."""

    folder: str
    special_use: str | None = None
    r"""What it is for, such as \Sent; None: nothing special, or not listed yet."""
    messages: int | None = None
    """How many messages it had at its last sync, or None before that."""
    synced_at: datetime | None = None
    gone_at: datetime | None = None
    """When a sync of all folders found that it is no longer there."""
