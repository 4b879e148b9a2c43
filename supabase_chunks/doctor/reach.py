"""The checks that ask the project's API and functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supabase_chunks import assets
from supabase_chunks._roles import SERVICE_ONLY
from supabase_chunks.doctor.check import Check, deploy, version_check

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from supabase_chunks.doctor.check import Limits

_LIST_SECONDS = 20.0
# What a secret key must be allowed to call. The functions of the email sync are there all or none.
_CORE = SERVICE_ONLY | {
    "append_sync_chunks",
    "cancel_sync_job",
    "get_sync_job_progress_safe",
    "list_chunk_attempts",
    "pause_sync_job",
    "resume_sync_job",
    "retry_failed_chunks",
    "save_chunk_settings",
    "start_sync_job",
}
_EMAIL = frozenset(
    {
        "adopt_moved_emails",
        "begin_email_token",
        "get_email_account_secret",
        "get_email_folder",
        "plan_email_folder",
        "refuse_email_token",
        "remove_email_account",
        "renumber_email_folder",
        "save_email_account",
        "save_email_flags",
        "save_email_folders",
        "save_email_token",
        "save_synced_emails",
        "update_email_folder",
    }
)
FUNCTIONS = _CORE | _EMAIL


def grants(url: str, key: str, http: httpx.Client) -> Iterator[Check]:
    """PostgREST lists the functions that a key may call, where the project has that list switched on."""
    try:
        answer = http.get(f"{url}/rest/v1/", headers={"apikey": key, **_bearer(key)}, timeout=_LIST_SECONDS)
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


def function(name: str, url: str, key: str, http: httpx.Client, version: str, limits: Limits) -> Check:
    """Ask a function whether it is there, takes the key, and is of this version; it does no work."""
    logs = "look at its logs in the dashboard, then:"
    label, again = f"function {name}", deploy(name)
    try:
        answer = http.post(
            f"{url}/functions/v1/{name}",
            headers={"apikey": key, **_bearer(key)},
            json={"probe": True},
            timeout=limits.answer.total_seconds(),
        )
    except _http_error() as error:
        return Check(label, False, f"it does not answer: {type(error).__name__}", f"{logs} {again}")
    if answer.status_code == 404:
        return Check(label, False, "it is not deployed", again)
    if answer.status_code == 401:
        fix = f"set verify_jwt = false for it in config.toml, then: {again}"
        return Check(label, False, "it refuses the key", fix)
    # A handler of the user's own need not know the probe, and may well refuse it.
    own = name not in assets.function_names()
    if answer.status_code != 200 and not (own and answer.status_code in {400, 422}):
        return Check(label, False, f"it answers with HTTP {answer.status_code}", f"{logs} {again}")
    try:
        body = answer.json() if answer.status_code == 200 else None
    except ValueError:
        body = None
    if not isinstance(body, dict) or body.get("ok") is not True:
        detail = "it answers" if own else "what answers there is another function"
        return Check(label, own, detail, "" if own else again)
    return version_check(label, str(body.get("version")), version, f"supabase-chunks init && {again}")


def _bearer(key: str) -> dict[str, str]:
    """A legacy key is a token, and goes along as one; a newer key is not."""
    return {} if key.startswith("sb_") else {"Authorization": f"Bearer {key}"}


def _http_error() -> type[Exception]:
    import httpx

    return httpx.HTTPError
