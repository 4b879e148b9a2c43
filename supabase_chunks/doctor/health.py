"""The checks that read what the database says about itself."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from supabase_chunks._show.words import blocked, duration
from supabase_chunks.doctor.check import PROCESSOR, Check, deploy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supabase_chunks.doctor.check import Limits
    from supabase_chunks.health import Health


# Where each extension goes, and what is lost without it.
_EXTENSIONS = {
    "pg_net": ("extensions", "without it no webhook is sent, and Edge Functions get no work"),
    "pg_cron": ("pg_catalog", "without it no watchdog runs"),
    "supabase_vault": ("vault cascade", "without it the key for webhooks has no place"),
}
# What the database notes when pg_net neither sends a request nor has an answer to it.
_LOST = "pg_net kept no answer"
_RESTART_PG_NET = "select net.worker_restart();"
_RUNS = "select * from cron.job_run_details where status = 'failed' order by runid desc limit 5;"
_SWITCH_ON = (
    "select cron.alter_job(job_id => (select jobid from cron.job where jobname = 'supabase-chunks-watchdog'),"
    " active => true);"
)
_CANCEL_RUN = (
    "select pg_cancel_backend(job_pid) from cron.job_run_details"
    " where status = 'running' and command like '%cleanup_stuck_chunks%';"
)
_RAISE_LIMIT = """select save_chunk_settings('{"user_max_kept_chunks": %d}');"""
# Of a user's limit, from where on it is said that it comes near.
_NEARLY_FULL = 0.8
# A pass is due each half minute, with an older pg_cron each minute, and takes a fraction of a second.
_PASS_SECONDS = 180
# pg_net sends once a second.
_WEBHOOK_SECONDS = 60


def extension(health: Health, name: str) -> Check:
    """Check that an extension is there."""
    found = health.extensions.get(name)
    schema, loss = _EXTENSIONS[name]
    fix = f"create extension {name} with schema {schema};"
    return Check(name, found is not None, found or loss, "" if found else fix)


def writes(health: Health) -> Check:
    """Check that the database takes writes."""
    if health.read_only:
        fix = (
            "set session characteristics as transaction read write;"
            "  (and delete what is not needed; or get a larger disk: dashboard, Compute and Disk)"
        )
        return Check("writes", False, "the database is read-only, as when its disk is full", fix)
    return Check("writes", True, "the database takes them")


def watchdog(health: Health) -> Check:
    """Check that the watchdog is scheduled and comes round."""
    watchdog = health.watchdog
    last = watchdog.last_run
    silent = watchdog.seconds_without_pass or 0
    running = (last and last.running_seconds) or 0
    if not watchdog.scheduled:
        fix = "supabase-chunks configure  (or, without pg_cron: supabase-chunks cleanup --every 30s)"
        return Check("watchdog", False, "it is not scheduled", fix)
    if not watchdog.active:
        return Check("watchdog", False, "its schedule is switched off", _SWITCH_ON)
    if last is not None and last.status == "failed":
        return Check("watchdog", False, f"its last run failed: {last.message}", _RUNS)
    if silent > _PASS_SECONDS and running > _PASS_SECONDS:
        return Check("watchdog", False, f"its run has been hanging for {duration(running)}", _CANCEL_RUN)
    if silent > _PASS_SECONDS:
        when = f"for {duration(silent)}" if watchdog.last_pass_at else "yet"
        fix = "supabase-chunks cleanup --every 30s  (until pg_cron runs it again: restart the database)"
        return Check("watchdog", False, f"it is scheduled and has not run {when}", fix)
    return Check("watchdog", True, f"every {watchdog.schedule}")


def vault(health: Health, url: str) -> Check:
    """Check that webhooks have a URL and a key, and that they come back to this project."""
    configured = health.configured
    entries = {"project_url": configured.project_url, "processor_key": configured.processor_key}
    missing = [name for name, is_there in entries.items() if not is_there]
    if missing:
        return Check("vault", False, f"it has no {' and no '.join(missing)}", "supabase-chunks configure")
    target = health.webhooks_go_to
    # An inner address is as good as another; a public one that is not this one is another project.
    if target is not None and target.place == "public" and target.sha256 != _fingerprint(url):
        fix = "supabase-chunks configure  (a copy of a project wakes the original until then)"
        return Check("vault", False, f"webhooks do not go to {url}, but to another project", fix)
    return Check("vault", True, "it has the URL and the key for webhooks")


def _fingerprint(url: str) -> str:
    return hashlib.sha256(url.lower().rstrip("/").encode()).hexdigest()


def webhooks(health: Health) -> Check:
    """Check that webhooks are sent, and that none has failed for which a chunk still waits."""
    waiting, oldest = health.webhooks_waiting, health.oldest_webhook_seconds or 0
    if oldest > _WEBHOOK_SECONDS:
        detail = f"pg_net does not send: {waiting} wait, the oldest for {duration(oldest)}"
        return Check("webhooks", False, detail, _RESTART_PG_NET)
    failure = health.webhook_failure
    if failure is None:
        answered = any(call.status_code for call in health.last_dispatches)
        return Check("webhooks", True, "none has failed lately" if answered else "none answered yet")
    error = failure.error or "no reason is known"
    return Check(
        "webhooks", False, f"the last one failed: {error}", _after_failure(failure.status_code, error)
    )


def _after_failure(status: int | None, error: str) -> str:
    if status in {401, 403}:
        return "supabase-chunks configure  (with a key that the functions accept)"
    if status == 404:
        return f"{deploy(PROCESSOR)}  (or, when it is there: supabase-chunks configure)"
    if error == _LOST:
        return _RESTART_PG_NET
    if status is not None or "timeout" in error.lower() or "in time" in error:
        return f"look at the logs of {PROCESSOR} in the dashboard"
    return "supabase-chunks configure --project-url URL  (as the database reaches it)"


def users(health: Health) -> Check:
    """Check that no user's start will soon be refused for what the earlier ones have left."""
    fullest = health.fullest_user
    if fullest is None:
        return Check("users", True, "no job is a user's")
    used = f"{fullest.chunks:,} of {fullest.most:,} chunks in 30 days"
    if fullest.chunks < _NEARLY_FULL * fullest.most:
        return Check("users", True, f"the most that one has is {used}")
    fix = f"{_RAISE_LIMIT % (2 * fullest.most)}  (or delete ended jobs: supabase-chunks purge)"
    return Check("users", False, f"the user {fullest.owner_id} has {used}", fix)


def healed(health: Health) -> Check:
    """Tell what the watchdog had to put right; by then it is."""
    healed = health.healed
    if healed.last_at is None:
        return Check("healed", True, "nothing had to be put right")
    return Check(
        "healed", True, f"{healed.times} times, last on {healed.last_at:%Y-%m-%dT%H:%M}: {healed.last}"
    )


def jobs(health: Health, limits: Limits) -> Iterator[Check]:
    """Check that no job is stalled and no chunk waits for long."""
    stalled = health.stalled_jobs
    if stalled:
        first = stalled[0]
        more = f", and {len(stalled) - 1} more" if len(stalled) > 1 else ""
        detail = f"{first.id} ({first.kind}) is stalled: {first.reason}{more}"
        yield Check("jobs", False, detail, f"supabase-chunks status {first.id}")
    else:
        yield Check("jobs", True, f"{health.active_jobs} active, none stalled")
    waiting = health.oldest_pending_seconds or 0
    if waiting > limits.waiting.total_seconds():
        detail = f"a chunk has been waiting for a worker for {duration(waiting)}"
        yield Check("claims", False, detail, "supabase-chunks cleanup  (or start a worker for its kind)")
    else:
        yield Check("claims", True, "no chunk waits long")


def limit_keys(health: Health) -> Check:
    """Tell which limit keys are blocked, and how many chunks wait for theirs; that is no trouble."""
    waiting = health.chunks_waiting_for_limits
    waits = f"; {waiting:,} chunks wait for a place" if waiting else ""
    if not health.blocked_limits:
        return Check("limits", True, f"no key is blocked{waits}")
    longest = health.blocked_limits[0]
    more = f", and {len(health.blocked_limits) - 1} more" if len(health.blocked_limits) > 1 else ""
    until = blocked(longest.until, longest.reason)
    return Check("limits", True, f"{longest.key} is blocked until {until}{more}{waits}")


def database(health: Health, limits: Limits) -> Iterator[Check]:
    """Check that nothing slows the queue's table down."""
    seconds = health.oldest_transaction_seconds or 0
    if seconds > limits.transaction.total_seconds():
        detail = f"one has been open for {duration(seconds)} and keeps dead rows alive"
        fix = "select pid, xact_start, query from pg_stat_activity order by xact_start limit 5;"
        yield Check("transactions", False, detail, fix)
    else:
        yield Check("transactions", True, "none is open for long")
    dead = health.dead_tuples or 0
    detail = f"{dead:,} in the queue"
    if dead > limits.dead_rows:
        yield Check("dead rows", False, detail, "vacuum public.chunk_processing_queue;")
    else:
        yield Check("dead rows", True, detail)
