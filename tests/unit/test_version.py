"""The version is written in three places, which must agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from supabase_chunks import assets

ROOT = Path(__file__).parents[2]


def test_package_functions_and_migrations_have_one_version() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert assets.version() == package
    sql = "\n".join(path.read_text() for path in assets.migrations())
    found = re.findall(r"function chunk_private\.version\(\).*?\$\$ select '([^']+)'; \$\$", sql, re.DOTALL)
    assert found
    assert found[-1] == package


def test_the_changelog_knows_it() -> None:
    assert f"## [{assets.version()}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
