"""The checks that read what the database says about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supabase_chunks._show.words import duration
from supabase_chunks.doctor.check import PROCESSOR, Check, deploy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supabase_chunks.doctor.check import Limits


# What the database notes when pg_net neither sends a request nor has an answer to it.
_LOST = "pg_net kept no answer"
_RUNS = "select * from cron.job_run_details where status = 'failed' order by runid desc limit 5;"


def extensions(health: dict[str, Any]) -> Iterator[Check]:
    """Check that the extensions are there."""
    extensions = health["extensions"]
    for name, loss in (
        ("pg_net", "without it no webhook is sent, and Edge Functions get no work"),
        ("pg_cron", "without it no watchdog runs"),
        ("supabase_vault", "without it the key for webhooks has no place"),
    ):
        found = extensions.get(name)
        fix = f"create extension {name}{' cascade' if name == 'supabase_vault' else ''};"
        yield Check(name, found is not None, found or loss, "" if found else fix)


def watchdog(health: dict[str, Any]) -> Check:
    """Check that the watchdog is scheduled and runs."""
    watchdog = health["watchdog"]
    last = watchdog.get("last_run") or {}
    if not watchdog.get("scheduled"):
        fix = "supabase-chunks configure  (or, without pg_cron: supabase-chunks cleanup --every 30s)"
        return Check("watchdog", False, "it is not scheduled", fix)
    if not watchdog.get("active", True):
        fix = "update cron.job set active = true where jobname = 'supabase-chunks-watchdog';"
        return Check("watchdog", False, "its schedule is switched off", fix)
    if last.get("status") == "failed":
        return Check("watchdog", False, f"its last run failed: {last.get('message')}", _RUNS)
    return Check("watchdog", True, f"every {watchdog['schedule']}")


def vault(health: dict[str, Any]) -> Check:
    """Check that webhooks have a URL and a key."""
    configured = health["configured"]
    missing = [name for name in ("project_url", "processor_key") if not configured.get(name)]
    if missing:
        return Check("vault", False, f"it has no {' and no '.join(missing)}", "supabase-chunks configure")
    return Check("vault", True, "it has the URL and the key for webhooks")


def webhooks(health: dict[str, Any]) -> Check:
    """Check how the last webhook went."""
    answered = [call for call in health["last_dispatches"] if call["status_code"] or call["error"]]
    if not answered:
        return Check("webhooks", True, "none answered yet")
    last = answered[0]
    status, error = last["status_code"], last["error"]
    if not error and status < 400:
        return Check("webhooks", True, f"the last one was answered with HTTP {status}")
    if status in {401, 403}:
        fix = "supabase-chunks configure  (with a key that the functions accept)"
    elif status == 404:
        fix = f"{deploy(PROCESSOR)}  (or, when it is there: supabase-chunks configure)"
    elif error == _LOST:
        fix = "select net.worker_restart();"
    elif status is None:
        fix = "supabase-chunks configure --project-url URL  (as the database reaches it)"
    else:
        fix = f"look at the logs of {PROCESSOR} in the dashboard"
    return Check("webhooks", False, f"the last one failed: {error or f'HTTP {status}'}", fix)


def jobs(health: dict[str, Any], limits: Limits) -> Iterator[Check]:
    """Check that no job is stalled and no chunk waits for long."""
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


def database(health: dict[str, Any], limits: Limits) -> Iterator[Check]:
    """Check that nothing slows the queue's table down."""
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
