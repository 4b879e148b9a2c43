"""What in a project's config.toml keeps a sync from working, each with what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_OLDEST_POSTGRES = 15


def table(settings: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return a block by its names, or an empty one where there is none or something else stands there."""
    for name in names:
        found = settings.get(name)
        settings = found if isinstance(found, dict) else {}
    return settings


def warnings(settings: dict[str, Any], functions: Iterable[str]) -> list[str]:
    """Return what the user must change, for the project and for each of its `[remotes]`.

    Args:
        settings: What is in config.toml.
        functions: The functions that must run.
    """
    names = list(functions)
    found = list(_warnings(settings, names, ""))
    for remote in table(settings, "remotes"):
        found += _warnings(table(settings, "remotes", remote), names, f"remotes.{remote}.")
    return found


def _warnings(settings: dict[str, Any], functions: list[str], within: str) -> Iterator[str]:
    def setting(block: str, text: str) -> str:
        return f"config.toml, [{within}{block}]: {text}"

    runtime = table(settings, "edge_runtime")
    if runtime.get("policy") == "oneshot":
        yield setting(
            "edge_runtime",
            'policy = "oneshot": functions are killed once they have answered, and chunks are worked on after'
            ' the answer. Set policy = "per_worker".',
        )
    if runtime.get("enabled") is False:
        yield setting("edge_runtime", "enabled = false: supabase start runs no function. Set enabled = true.")
    for name in functions:
        function = table(settings, "functions", name)
        if function.get("enabled") is False:
            yield setting(
                f"functions.{name}", "enabled = false: it is neither deployed nor run. Remove that line."
            )
        # A block without it has the platform's default, which is to check; a remote's adds to the other.
        if function.get("verify_jwt", name in table(settings, "functions") and not within):
            yield setting(
                f"functions.{name}",
                "set verify_jwt = false, or webhooks are answered with 401.",
            )
    migrations = table(settings, "db", "migrations")
    if migrations.get("schema_paths"):
        yield setting(
            "db.migrations",
            "schema_paths are set: the next supabase db diff would drop what only migrations made, as ours"
            ' do. Add "./migrations/*_chunks_*.sql" to them, and read what db diff writes before pushing it.',
        )
    if migrations.get("enabled") is False:
        yield setting(
            "db.migrations",
            "enabled = false: supabase db push leaves migrations out. Set enabled = true.",
        )
    major = table(settings, "db").get("major_version")
    if isinstance(major, int) and major < _OLDEST_POSTGRES:
        yield setting(
            "db",
            f"major_version = {major}: PostgreSQL {_OLDEST_POSTGRES} or newer is needed. Upgrade the"
            " project's database, then set major_version to what it has.",
        )
    api = table(settings, "api")
    if isinstance(api.get("schemas"), list) and "public" not in api["schemas"]:
        yield setting("api", 'schemas lacks "public", where the functions are that clients call: add it.')
