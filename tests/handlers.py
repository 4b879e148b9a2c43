"""A project's functions with a handler of a test's own."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from supabase_chunks.assets import functions_dir

if TYPE_CHECKING:
    from pathlib import Path


def write_functions(folder: Path, kind: str, handler: str, *, without: str = "") -> Path:
    """Write our functions, but perhaps one, and the handler of a kind, given as its TypeScript, into a new folder."""
    shutil.copytree(functions_dir(), folder, ignore=shutil.ignore_patterns(without))
    (folder / kind).mkdir()
    (folder / kind / "index.ts").write_text(handler)
    for name in ("deno.json", "deno.lock"):
        shutil.copy(folder / "background-sync-processor" / name, folder / kind / name)
    return folder
