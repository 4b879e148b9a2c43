"""The SQL and TypeScript that this package brings: in the wheel beside it, in a checkout at its top."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from .errors import ConfigurationError

_PACKAGE = Path(__file__).resolve().parent
# By this file a folder is known to be ours: a user's own project has a folder supabase/ too.
_MARK = "migrations/*_chunks_0_1_0.sql"


@cache
def bundle_dir() -> Path:
    """The folder with `migrations/`, `functions/` and `config.toml`.

    Raises:
        ConfigurationError: The installation is incomplete.
    """
    for folder in (_PACKAGE / "_bundle", _PACKAGE.parent / "supabase"):
        if any(folder.glob(_MARK)):
            return folder
    raise ConfigurationError(
        f"The migrations are missing beside {_PACKAGE}: run pip install --force-reinstall supabase-chunks."
    )


def version() -> str:
    """The version of the migrations and functions, which is this package's."""
    text = (functions_dir() / "_shared" / "version.ts").read_text(encoding="utf-8")
    return text.split('VERSION = "')[1].split('"')[0]


def migrations_dir() -> Path:
    """The folder with the migrations, ordered by name."""
    return bundle_dir() / "migrations"


def functions_dir() -> Path:
    """The folder with the Edge Functions and what they share."""
    return bundle_dir() / "functions"


def migrations() -> list[Path]:
    """The migrations in their order."""
    return sorted(migrations_dir().glob("*.sql"))


def function_names() -> list[str]:
    """The names of the Edge Functions."""
    return sorted(path.parent.name for path in functions_dir().glob("*/index.ts"))


def function_files() -> list[Path]:
    """Every file that the functions are made of, relative to `functions_dir()`."""
    root = functions_dir()
    wanted = [*root.rglob("*.ts"), *root.rglob("deno.json"), *root.rglob("deno.lock")]
    return sorted(path.relative_to(root) for path in wanted if "node_modules" not in path.parts)
