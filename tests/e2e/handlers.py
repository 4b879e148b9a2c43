"""Handlers beside our functions, as they stand in a project: those of the documents, and a test's own."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from supabase_chunks import assets
from tests.documents import run_blocks

if TYPE_CHECKING:
    from pathlib import Path

_API = "https://api.example.com"


def copy_functions(project: Path) -> Path:
    """Copy our functions into a project; returns their folder."""
    functions = project / "functions"
    shutil.copytree(assets.functions_dir(), functions, ignore=shutil.ignore_patterns("node_modules"))
    return functions


def write_handler(functions: Path, name: str, code: str) -> Path:
    """Add a function that imports the same as ours; returns its folder."""
    folder = functions / name
    folder.mkdir()
    for file in ("deno.json", "deno.lock"):
        shutil.copy(functions / "background-sync-processor" / file, folder)
    (folder / "index.ts").write_text(code, encoding="utf-8")
    return folder


def write_documented(functions: Path, name: str, api: str) -> Path:
    """Add the function that the documents show under this name, with the API at this address."""
    (code,) = [block.code for block in run_blocks("ts") if _name_of(block.code) == name]
    assert f"{_API}/" in code
    return write_handler(functions, name, code.replace(_API, api))


def _name_of(code: str) -> str | None:
    found = re.match(r"// supabase/functions/([\w-]+)/index\.ts\n", code)
    return found[1] if found else None
