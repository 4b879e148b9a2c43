"""Projects on the disk to install into."""

from __future__ import annotations

from typing import TYPE_CHECKING

from click.testing import CliRunner

from supabase_chunks.cli import cli

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """\
# Our project: très important, don't touch.
project_id = "shop"   # kept

[api]
port = 54321

[functions.hello]
verify_jwt = true
"""


def make_project(folder: Path) -> Path:
    """Make a project with a history, on a path that not everything copes with."""
    folder /= "Projekt für Ünicode"
    (folder / "supabase" / "migrations").mkdir(parents=True)
    (folder / "supabase" / "config.toml").write_text(CONFIG, encoding="utf-8")
    for number in range(5):
        (folder / "supabase" / "migrations" / f"2026010100000{number}_theirs.sql").write_text("select 1;")
    return folder


def init(*arguments: str | Path) -> tuple[int, str]:
    """Run the command; returns its exit code and what it said."""
    done = CliRunner().invoke(cli, ["init", *map(str, arguments)])
    return done.exit_code, done.output


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
