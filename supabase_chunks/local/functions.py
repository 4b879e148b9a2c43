"""The Edge Functions, one Deno process each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from supabase_chunks.errors import LocalStackError
from supabase_chunks.local.deno import clean_environment, fetch
from supabase_chunks.local.ports import HOST, free_port
from supabase_chunks.local.process import spawn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from pathlib import Path

    from supabase_chunks.local.keys import Keys


def find_functions(directory: Path) -> list[str]:
    """The names of the functions in a folder: each sub-folder with an index.ts whose name has no leading `_`.

    Raises:
        LocalStackError: The folder does not exist.
    """
    if not directory.is_dir():
        raise LocalStackError(f"There is no folder {directory} with Edge Functions.")
    return sorted(
        path.parent.name
        for path in directory.glob("*/index.ts")
        if not path.parent.name.startswith(("_", "."))
    )


def fingerprints(directory: Path) -> dict[str, int]:
    """For each sub-folder a number that changes when a file in it changes, comes or goes."""
    found: dict[str, int] = {}
    for folder in directory.iterdir():
        if not folder.is_dir() or folder.name == "node_modules":
            continue
        seen: list[tuple[str, int]] = []
        for path in folder.rglob("*"):
            if "node_modules" not in path.parts:
                try:
                    seen.append((str(path), path.stat().st_mtime_ns))
                except OSError:  # gone between the listing and the look
                    continue
        found[folder.name] = hash(tuple(sorted(seen)))
    return found


def environment(keys: Keys, *, url: str, database_url: str, extra: Mapping[str, str]) -> dict[str, str]:
    """What the platform puts into a function's environment, and the project's own settings."""
    return clean_environment() | {
        "SUPABASE_URL": url,
        "SUPABASE_DB_URL": database_url,
        "SUPABASE_PUBLISHABLE_KEYS": json.dumps({"default": keys.publishable}),
        "SUPABASE_SECRET_KEYS": json.dumps({"default": keys.secret}),
        "SUPABASE_ANON_KEY": keys.legacy_key("anon"),
        "SUPABASE_SERVICE_ROLE_KEY": keys.legacy_key("service_role"),
        "SB_REGION": "local",
        **extra,
    }


@dataclass
class Function:
    """One function and the address that its present process serves."""

    name: str
    directory: Path
    deno: Path
    log_path: Path
    environment: Mapping[str, str]
    port: int = 0
    _log_start: int = 0

    def launch(self) -> subprocess.Popen[bytes]:
        """Start its process on a fresh port."""
        self.port = free_port()
        address = {"DENO_SERVE_ADDRESS": f"tcp:{HOST}:{self.port}"}
        command: list[str | Path] = [
            self.deno,
            "serve",
            *self._lock_flags(),
            "--cached-only",
            "--no-prompt",
            "--quiet",
        ]
        # The host's name is what mail libraries greet a server with.
        command += ["--allow-net", "--allow-env", "--allow-sys=hostname", "index.ts"]
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            return spawn(command, log=log, cwd=self.directory, env={**self.environment, **address})

    async def fetch(self) -> None:
        """Download what it imports.

        Raises:
            LocalStackError: The download failed.
        """
        arguments = ["cache", *self._lock_flags(), "--quiet", "index.ts"]
        await fetch(self.deno, self.directory, arguments, f"What the function {self.name} imports")

    def lacks_imports(self) -> bool:
        """Whether its process ended because something was never downloaded."""
        return "--cached-only" in self.last_words()

    def lost_its_port(self) -> bool:
        """Whether its process ended because somebody took its port."""
        return "AddrInUse" in self.last_words()

    def last_words(self) -> str:
        """The end of what its latest process wrote, in one line."""
        written = self.log_path.read_bytes()[self._log_start :]
        return " ".join(written.decode(errors="replace")[-800:].split())

    def _lock_flags(self) -> list[str]:
        # Without a lock file there is nothing to hold on to, and Deno must not write one into the folder.
        return ["--frozen"] if (self.directory / "deno.lock").exists() else ["--no-lock"]
