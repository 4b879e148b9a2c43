"""What an installation says of itself: `Health`, and its parts. No key and no URL is in them."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - pydantic reads the annotations when the class is made
from uuid import UUID  # noqa: TC003 - as above

from pydantic import Field

from .models import Model

__all__ = [
    "Configured",
    "FullestUser",
    "Healed",
    "Health",
    "StalledJob",
    "Watchdog",
    "WatchdogRun",
    "Webhook",
    "WebhookTarget",
]


class Configured(Model):
    """Whether the Vault has what webhooks need."""

    project_url: bool = False
    processor_key: bool = False
    error: str | None = None
    """Why the Vault could not be read."""


class WatchdogRun(Model):
    """The watchdog's last run, as pg_cron has noted it."""

    status: str | None = None
    at: datetime | None = None
    message: str | None = None
    running_seconds: float | None = None
    """For how long, while it runs."""


class Watchdog(Model):
    """Whether the watchdog is scheduled, and comes round."""

    scheduled: bool = False
    schedule: str | None = None
    active: bool = True
    last_run: WatchdogRun | None = None
    last_pass_at: datetime | None = None
    """When somebody last did its work: pg_cron, a worker or `supabase-chunks cleanup`."""
    seconds_without_pass: float | None = None
    """Since then; or since it was scheduled or the server started, if that was later."""
    error: str | None = None
    """Why the schedule could not be read."""


class WebhookTarget(Model):
    """Where webhooks go, without saying it."""

    sha256: str
    """Of the URL in lower case, as hexadecimal text."""
    place: str
    """loopback, internal or public."""
    since: datetime | None = None


class Webhook(Model):
    """A webhook that was sent, and what came of it."""

    job_id: UUID | None = None
    chunk_id: int | None = None
    sent_at: datetime | None = None
    status_code: int | None = None
    error: str | None = None


class StalledJob(Model):
    """A job that does not go on by itself."""

    id: UUID
    kind: str
    reason: str | None = None


class FullestUser(Model):
    """The user who has started most in 30 days."""

    owner_id: UUID
    chunks: int
    most: int
    """How many one may have."""


class BlockedLimit(Model):
    """A limit key of which no chunk is handed out."""

    key: str
    until: datetime
    reason: str | None = None


class Healed(Model):
    """What the watchdog had to put right."""

    times: int = 0
    last_at: datetime | None = None
    last: str | None = None


class Health(Model):
    """How an installation is. What an older database does not say has the default.

    Example:
        >>> health = client.health()
        >>> health.configured.processor_key, health.watchdog.scheduled
        (True, True)
    """

    version: str
    """Of the migrations."""
    postgres: str
    server_address: str | None = "unknown"
    """Of the database, as its API reaches it; None: it is on the same machine."""
    extensions: dict[str, str | None] = Field(default_factory=dict)
    """The version of pg_net, pg_cron and supabase_vault, or None where it is missing."""
    configured: Configured = Configured()
    watchdog: Watchdog = Watchdog()
    read_only: bool = False
    """Whether the database takes no writes, as when its disk is full."""
    healed: Healed = Healed()
    fullest_user: FullestUser | None = None
    webhooks_go_to: WebhookTarget | None = None
    webhooks_waiting: int = 0
    oldest_webhook_seconds: float | None = None
    """How long the oldest of those has been waiting."""
    webhook_failure: Webhook | None = None
    """The newest that failed and whose chunk still waits for that reason."""
    last_dispatches: list[Webhook] = Field(default_factory=list)
    """The last ten webhooks, newest first."""
    active_jobs: int = 0
    stalled_jobs: list[StalledJob] = Field(default_factory=list)
    """Twenty at most."""
    blocked_limits: list[BlockedLimit] = Field(default_factory=list)
    """Twenty at most."""
    chunks_waiting_for_limits: int = 0
    """Chunks in slots that wait for a place of their limit key, or for the end of a block."""
    oldest_pending_seconds: float | None = None
    """How long a chunk has been waiting to be claimed."""
    dead_tuples: int | None = None
    """Of the queue's table."""
    oldest_xmin_age: int | None = None
    """In transactions."""
    oldest_transaction_seconds: float | None = None
