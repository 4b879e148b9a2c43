"""`make migrations`: build the migrations of the release being made from `supabase/schemas/`.

The sources are the present truth, one topic a file, in the order of their names. A migration that is out
never changes; what is built here are the last two of `supabase/migrations/`, with `create or replace`,
so that they bring an empty database and one of an earlier release to the same state:

- `<timestamp>_chunks_<release>.sql`: the queue;
- `<timestamp>_chunks_<release>_email.sql`: the email sync, which a project can do without.

The tables are part of them for the first release only: a later one changes them by hand, in migrations of its
own that come before (supabase/schemas/README.md says how).
"""

from __future__ import annotations

import re
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCHEMAS = ROOT / "supabase" / "schemas"
MIGRATIONS = ROOT / "supabase" / "migrations"

FIRST_RELEASE = "0.1.0"
_TABLES = re.compile(r"_tables$")
_EMAIL = re.compile(r"_emails?_|_emails?$")
# In the file of access, what follows this heading is about email.
_EMAIL_HEADING = re.compile(r"^-- Email -+\n", re.MULTILINE)
_RELOAD = "notify pgrst, 'reload schema';\n"


def release() -> str:
    """The release being made: the version in pyproject.toml."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def build(version: str, *, sources: Path = SCHEMAS) -> tuple[str, str]:
    """The text of the two migrations of a release: the queue's and the email sync's."""
    queue: list[tuple[str, str]] = []
    email: list[tuple[str, str]] = []
    for path in sorted(sources.glob("*.sql")):
        if _TABLES.search(path.stem) and version != FIRST_RELEASE:
            continue
        text = path.read_text(encoding="utf-8")
        if path.stem.endswith("_access"):
            ours, emails = _EMAIL_HEADING.split(text)
            queue.append((path.name, ours))
            email.append((path.name, emails))
        else:
            (email if _EMAIL.search(path.stem) else queue).append((path.name, text))
    return _migration(version, "the queue", queue), _migration(version, "the email sync", email)


def _migration(version: str, what: str, parts: list[tuple[str, str]]) -> str:
    head = (
        f"-- supabase-chunks {version}: {what}."
        " Built from supabase/schemas by `make migrations`: change it there.\n\n"
        "-- An upgrade under load waits this long for a lock. Then nothing has changed: run it again.\n"
        "set local lock_timeout = '5s';\n"
    )
    return "\n".join([head, *(f"-- {name}\n\n{text.strip()}\n" for name, text in parts), _RELOAD])


def paths(version: str, *, folder: Path = MIGRATIONS) -> tuple[Path, Path]:
    """Where the two migrations of a release are, or will be: with timestamps after all others."""
    name = f"chunks_{version.replace('.', '_')}"
    queue, email = (next(iter(folder.glob(f"*_{stem}.sql")), None) for stem in (name, f"{name}_email"))
    if queue and email:
        return queue, email
    now = datetime.now(UTC)
    return folder / f"{now:%Y%m%d%H%M}00_{name}.sql", folder / f"{now:%Y%m%d%H%M}01_{name}_email.sql"


def main() -> int:
    """Write them."""
    version = release()
    for path, text in zip(paths(version), build(version), strict=True):
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
