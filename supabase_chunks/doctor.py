"""Examining an installation: a check for each thing that can be wrong, with the command that repairs it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ._meter import duration
from .errors import (
    AuthenticationError,
    ChunksError,
    FunctionsNotInstalled,
    NotFound,
    PermissionDenied,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from .client import ChunksClient

PROCESSOR = "background-sync-processor"
_PUSH = "supabase-chunks init && supabase db push"
_DEPLOY = "supabase functions deploy"
_PROBE_SECONDS = 20.0
# What a secret key must be allowed to call. The functions of the email sync are there all or none.
_CORE = frozenset(
    {
        "append_sync_chunks",
        "cancel_sync_job",
        "chunk_system_health",
        "claim_chunk_jobs_safe",
        "claim_next_chunk_job_safe",
        "cleanup_stuck_chunks",
        "complete_chunk_job_safe",
        "complete_chunk_jobs_safe",
        "configure_chunk_processing",
        "extend_chunk_lease",
        "extend_chunk_leases",
        "get_sync_job_progress_safe",
        "pause_sync_job",
        "purge_sync_jobs",
        "release_chunk_job",
        "resume_sync_job",
        "retry_failed_chunks",
        "save_sync_kind",
        "start_sync_job",
        "trigger_next_chunk_processing",
    }
)
_EMAIL = frozenset(
    {
        "get_email_account_secret",
        "plan_email_folder",
        "remove_email_account",
        "save_email_account",
        "save_email_flags",
        "save_synced_emails",
    }
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What it is.
        ok: Whether it is as it should be.
        detail: What was found.
        fix: The command that puts it right, or empty.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The same for a program."""
        return asdict(self)


@dataclass(frozen=True)
class Limits:
    """From where on something is too much.

    Attributes:
        waiting: How long a chunk may wait to be claimed.
        transaction: How long a transaction may be open; an open one keeps dead rows from being removed.
        dead_rows: How many dead rows the queue's table may have.
    """

    waiting: timedelta = timedelta(minutes=10)
    transaction: timedelta = timedelta(minutes=15)
    dead_rows: int = 200_000


def examine(
    client: ChunksClient,
    *,
    url: str,
    key: str,
    http: httpx.Client,
    version: str,
    limits: Limits | None = None,
) -> Iterator[Check]:
    """Examine a project; nothing is changed and no chunk is claimed.

    Args:
        client: The project.
        url: Its URL, for the functions.
        key: The secret key, which the functions must accept.
        http: What the functions are asked with.
        version: The version of this package.
        limits: From where on something is too much.

    Yields:
        The checks, as they are made. When the database cannot be asked, there is only the one that says so.
    """
    try:
        health = client.health()
        kinds = client.kinds()
    except ChunksError as error:
        yield _no_answer(error, url)
        return
    yield Check("database", True, f"{url} answers, PostgreSQL {health['postgres']}")
    yield _version("migrations", health["version"], version, _PUSH)
    yield from _grants(url, key, http)
    yield from _extensions(health)
    yield _watchdog(health)
    yield _vault(health)
    handlers = sorted({kind.handler for kind in kinds if kind.handler})
    for name in [PROCESSOR, *handlers]:
        yield _function(name, url, key, http, version)
    yield _webhooks(health)
    yield from _jobs(health, limits or Limits())
    yield from _database(health, limits or Limits())


def _no_answer(error: ChunksError, url: str) -> Check:
    text = str(error).splitlines()[0]
    match error:
        case FunctionsNotInstalled():
            return Check("database", False, "supabase-chunks is not installed there", _PUSH)
        case PermissionDenied():
            fix = "export SUPABASE_SECRET_KEY=sb_secret_…  (this one is publishable, or a user's)"
            return Check("key", False, f"it may not do what a secret key may: {text}", fix)
        case AuthenticationError():
            fix = "export SUPABASE_SECRET_KEY=sb_secret_…  (from the project's API settings)"
            return Check("key", False, f"the project refuses it: {text}", fix)
        case TransportError() | NotFound():
            return Check(
                "database", False, f"{url} does not answer as a project does: {text}", "export SUPABASE_URL=…"
            )
        case _:
            return Check("database", False, text)


def _version(name: str, found: str, wanted: str, fix: str) -> Check:
    if found == wanted:
        return Check(name, True, f"version {found}")
    return Check(name, False, f"version {found}, and this package is {wanted}", fix)


def _grants(url: str, key: str, http: httpx.Client) -> Iterator[Check]:
    """PostgREST lists the functions that a key may call, where the project has that list switched on."""
    try:
        answer = http.get(f"{url}/rest/v1/", headers={"apikey": key, **_bearer(key)}, timeout=_PROBE_SECONDS)
        paths = answer.json()["paths"] if answer.status_code == 200 else None
    except (OSError, ValueError, KeyError, TypeError, _http_error()):
        paths = None
    if paths is None:
        return
    allowed = {path.removeprefix("/rpc/") for path in paths if path.startswith("/rpc/")}
    missing = sorted(_CORE - allowed)
    if allowed & _EMAIL:
        missing += sorted(_EMAIL - allowed)
    if missing:
        detail = f"a secret key may not call {', '.join(missing)}"
        yield Check(
            "grants", False, detail, f"grant execute on function {', '.join(missing)} to service_role;"
        )
    else:
        yield Check("grants", True, "a secret key may call every function")


def _extensions(health: dict[str, Any]) -> Iterator[Check]:
    extensions = health["extensions"]
    for name, loss in (
        ("pg_net", "without it no webhook is sent, and Edge Functions get no work"),
        ("pg_cron", "without it no watchdog runs"),
        ("supabase_vault", "without it the key for webhooks has no place"),
    ):
        found = extensions.get(name)
        fix = f"create extension {name}{' cascade' if name == 'supabase_vault' else ''};"
        yield Check(name, found is not None, found or loss, "" if found else fix)


def _watchdog(health: dict[str, Any]) -> Check:
    watchdog = health["watchdog"]
    last = watchdog.get("last_run") or {}
    if not watchdog.get("scheduled"):
        fix = "supabase-chunks configure  (or, without pg_cron: supabase-chunks cleanup --every 30s)"
        return Check("watchdog", False, "it is not scheduled", fix)
    if not watchdog.get("active", True):
        fix = "update cron.job set active = true where jobname = 'supabase-chunks-watchdog';"
        return Check("watchdog", False, "its schedule is switched off", fix)
    if last.get("status") == "failed":
        return Check("watchdog", False, f"its last run failed: {last.get('message')}", _PUSH)
    return Check("watchdog", True, f"every {watchdog['schedule']}")


def _vault(health: dict[str, Any]) -> Check:
    configured = health["configured"]
    missing = [name for name in ("project_url", "processor_key") if not configured.get(name)]
    if missing:
        return Check("vault", False, f"it has no {' and no '.join(missing)}", "supabase-chunks configure")
    return Check("vault", True, "it has the URL and the key for webhooks")


def _function(name: str, url: str, key: str, http: httpx.Client, version: str) -> Check:
    label, deploy = f"function {name}", f"{_DEPLOY} {name}"
    try:
        answer = http.post(
            f"{url}/functions/v1/{name}",
            headers={"apikey": key, **_bearer(key)},
            json={"probe": True},
            timeout=_PROBE_SECONDS,
        )
        body = answer.json() if answer.status_code == 200 else {}
    except ValueError:
        body = {}
    except _http_error() as error:
        return Check(label, False, f"it does not answer: {type(error).__name__}", deploy)
    if answer.status_code == 404:
        return Check(label, False, "it is not deployed", deploy)
    if answer.status_code == 401:
        fix = f"set verify_jwt = false for it in config.toml, then: {deploy}"
        return Check(label, False, "it refuses the key", fix)
    if answer.status_code != 200:
        fix = f"look at its logs in the dashboard, then: {deploy}"
        return Check(label, False, f"it answers with HTTP {answer.status_code}", fix)
    if not isinstance(body, dict) or body.get("ok") is not True:
        # A handler of the user's own need not know our probe.
        return Check(label, name != PROCESSOR, "it answers", deploy if name == PROCESSOR else "")
    return _version(label, str(body.get("version")), version, f"supabase-chunks init && {deploy}")


def _webhooks(health: dict[str, Any]) -> Check:
    answered = [call for call in health["last_dispatches"] if call["status_code"] or call["error"]]
    if not answered:
        return Check("webhooks", True, "none answered yet")
    last = answered[0]
    status = last["status_code"]
    if not last["error"] and status < 400:
        return Check("webhooks", True, f"the last one was answered with HTTP {status}")
    if status in {401, 403}:
        fix = "supabase-chunks configure  (with a key that the functions accept)"
    elif status == 404:
        fix = f"{_DEPLOY} {PROCESSOR}"
    elif status is None:
        fix = "supabase-chunks configure --project-url URL  (as the database reaches it)"
    else:
        fix = f"look at the logs of {PROCESSOR} in the dashboard"
    return Check("webhooks", False, f"the last one failed: {last['error'] or f'HTTP {status}'}", fix)


def _jobs(health: dict[str, Any], limits: Limits) -> Iterator[Check]:
    stalled = health["stalled_jobs"]
    if stalled:
        first = stalled[0]
        more = f", and {len(stalled) - 1} more" if len(stalled) > 1 else ""
        detail = f"{first['id']} ({first['kind']}) is stalled: {first['reason']}{more}"
        yield Check("jobs", False, detail, f"supabase-chunks status {first['id']}")
    else:
        yield Check("jobs", True, f"{health['active_jobs']} active, none stalled")
    waiting = health["oldest_pending_seconds"] or 0
    if waiting > limits.waiting.total_seconds():
        detail = f"a chunk has been waiting for a worker for {duration(waiting)}"
        yield Check("claims", False, detail, "supabase-chunks cleanup  (or start a worker for its kind)")
    else:
        yield Check("claims", True, "no chunk waits long")


def _database(health: dict[str, Any], limits: Limits) -> Iterator[Check]:
    seconds = health["oldest_transaction_seconds"] or 0
    if seconds > limits.transaction.total_seconds():
        detail = f"one has been open for {duration(seconds)} and keeps dead rows alive"
        fix = "select pid, xact_start, query from pg_stat_activity order by xact_start limit 5;"
        yield Check("transactions", False, detail, fix)
    else:
        yield Check("transactions", True, "none is open for long")
    dead = health["dead_tuples"] or 0
    detail = f"{dead:,} in the queue"
    if dead > limits.dead_rows:
        yield Check("dead rows", False, detail, "vacuum public.chunk_processing_queue;")
    else:
        yield Check("dead rows", True, detail)


def _bearer(key: str) -> dict[str, str]:
    """A legacy key is a token, and goes along as one; a newer key is not."""
    return {} if key.startswith("sb_") else {"Authorization": f"Bearer {key}"}


def _http_error() -> type[Exception]:
    import httpx

    return httpx.HTTPError
