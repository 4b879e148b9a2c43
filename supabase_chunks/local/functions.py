"""One Edge Function: where it is, and the Deno process that serves it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from supabase_chunks.errors import LocalStackError
from supabase_chunks.local.deno import clean_environment, fetch
from supabase_chunks.local.ports import HOST, free_port
from supabase_chunks.local.process import spawn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

    from supabase_chunks.local.keys import Keys

_MEMORY_MB = 256
# Of what is new. V8's own 8 cost a function that handles megabytes twenty more, and save no time.
_YOUNG_MB = 4
# With an arena a thread glibc holds on to a tenth more memory than with one, and is no faster here.
_LESS_MEMORY = {"MALLOC_ARENA_MAX": "1"}
_LISTEN = Path(__file__).with_name("listen.js")
# A module without one serves by itself (Deno.serve).
_EXPORTS_HANDLER = re.compile(r"^\s*export\s*(?:default\b|\{[^}]*\bas\s+default\b)", re.MULTILINE)


@dataclass(frozen=True)
class FunctionConfig:
    """What a project says of one function.

    Attributes:
        name: The last part of its address.
        entrypoint: Its main module.
        import_map: Its `deno.json` or import map, or None.
        verify_jwt: Whether a request needs a token of the project's.
    """

    name: str
    entrypoint: Path
    import_map: Path | None = None
    verify_jwt: bool = False


def find_functions(directory: Path) -> list[FunctionConfig]:
    """The functions in a folder: each sub-folder with an index.ts whose name has no leading `_` or dot.

    Raises:
        LocalStackError: The folder does not exist.
    """
    if not directory.is_dir():
        raise LocalStackError(f"There is no folder {directory} with Edge Functions.")
    return [
        FunctionConfig(path.parent.name, path, find_import_map(path.parent))
        for path in sorted(directory.glob("*/index.ts"))
        if not path.parent.name.startswith(("_", "."))
    ]


def find_import_map(folder: Path) -> Path | None:
    """The `deno.json` or import map that counts for the function in a folder, as the CLI takes it."""
    places = [
        *(folder / name for name in ("deno.json", "deno.jsonc", "import_map.json")),
        folder.parent / "import_map.json",
    ]
    return next((path for path in places if path.exists()), None)


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
    """One function and the address that its present process serves.

    Attributes:
        broken: Why it is not served, in a sentence; empty while it is.
    """

    config: FunctionConfig
    deno: Path
    log_path: Path
    environment: Mapping[str, str]
    port: int = 0
    broken: str = ""
    _log_start: int = 0

    @property
    def name(self) -> str:
        """The last part of its address."""
        return self.config.name

    def launch(self) -> subprocess.Popen[bytes]:
        """Start its process on a fresh port.

        Raises:
            LocalStackError: Its main module cannot be read.
        """
        self.port = free_port()
        address = {"DENO_SERVE_ADDRESS": f"tcp:{HOST}:{self.port}"}
        try:
            source = self.config.entrypoint.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise LocalStackError(f"{self.config.entrypoint} cannot be read: {error}.") from error
        serves = ["serve"] if _EXPORTS_HANDLER.search(source) else ["run", f"--preload={_LISTEN}"]
        command: list[str | Path] = [
            self.deno,
            *serves,
            *self._flags(),
            "--cached-only",
            "--no-prompt",
            "--quiet",
            # As much as the platform gives; where V8 has more it lets garbage lie.
            f"--v8-flags=--max-heap-size={_MEMORY_MB},--max-semi-space-size={_YOUNG_MB}",
        ]
        # The host's name is what mail libraries greet a server with.
        command += ["--allow-net", "--allow-env", "--allow-sys=hostname", f"--allow-read={self._root}"]
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            return spawn(
                [*command, self.config.entrypoint.name],
                log=log,
                cwd=self._folder,
                env={**_LESS_MEMORY, **self.environment, **address},
            )

    async def fetch(self) -> None:
        """Download what it imports.

        Raises:
            LocalStackError: The download failed.
        """
        arguments = ["cache", *self._flags(), "--quiet", self.config.entrypoint.name]
        await fetch(self.deno, self._folder, arguments, f"What the function {self.name} imports")

    def lacks_imports(self) -> bool:
        """Whether its process ended because something was never downloaded."""
        return "--cached-only" in self.last_words()

    def lost_its_port(self) -> bool:
        """Whether its process ended because somebody took its port."""
        return "AddrInUse" in self.last_words()

    def last_words(self) -> str:
        """The end of what its latest process wrote, in one line."""
        written = self.log_path.read_bytes()[self._log_start :] if self.log_path.exists() else b""
        return " ".join(written.decode(errors="replace")[-800:].split())

    @property
    def _folder(self) -> Path:
        return self.config.entrypoint.parent

    @property
    def _root(self) -> Path:
        """What it may read: the folder of all functions, as what is deployed with it lies there."""
        return self._folder.parent

    def _flags(self) -> list[str]:
        """Its own settings and lock file, and none from further up, which belong to another program."""
        import_map = self.config.import_map
        if import_map is None:
            return ["--no-config", "--no-lock"]
        if import_map.name in {"deno.json", "deno.jsonc"}:
            # Without a lock file there is nothing to hold on to, and Deno must not write one into the folder.
            locked = (import_map.parent / "deno.lock").exists()
            return [f"--config={import_map}", "--frozen" if locked else "--no-lock"]
        return ["--no-config", f"--import-map={import_map}", "--no-lock"]
