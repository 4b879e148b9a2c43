"""A Supabase project on the disk: where its parts are, and what of ours it has."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from supabase_chunks.errors import InstallError

if TYPE_CHECKING:
    from pathlib import Path

_MANIFEST = "supabase-chunks.json"
_VERSION = re.compile(r"^(\d+)_.*\.sql$")
_TIMESTAMP = "%Y%m%d%H%M%S"


class Project:
    """A folder that `supabase init` was run in."""

    def __init__(self, folder: Path) -> None:
        """Find the project.

        Args:
            folder: The project's folder, or the folder `supabase` in it.

        Raises:
            InstallError: It is no Supabase project, or cannot be read.
        """
        self.root: Path = folder / "supabase"
        if not (self.root / "config.toml").is_file() and (folder / "config.toml").is_file():
            self.root = folder
        self.config_path: Path = self.root / "config.toml"
        try:
            self.config: bytes = self.config_path.read_bytes()
        except FileNotFoundError as error:
            raise InstallError(
                f"{folder.absolute()} is no Supabase project (there is no supabase/config.toml):"
                " run supabase init there first, or name the project's folder."
            ) from error
        except OSError as error:
            raise InstallError(f"{self.config_path} cannot be read: {error.strerror}.") from error
        self.manifest_path: Path = self.root / _MANIFEST
        self.installed: dict[str, str] = self._read_manifest()

    @property
    def migrations_dir(self) -> Path:
        """Where its migrations are."""
        return self.root / "migrations"

    @property
    def functions_dir(self) -> Path:
        """Where its Edge Functions are."""
        return self.root / "functions"

    def migrations(self) -> list[str]:
        """The names of its migration files, in their order."""
        if not self.migrations_dir.is_dir():
            return []
        return sorted(path.name for path in self.migrations_dir.glob("*.sql"))

    def has_migration(self, original: str) -> bool:
        """Whether a migration of ours is there, under its name or with a later timestamp before it."""
        return any(name == original or name.endswith(f"_{original}") for name in self.migrations())

    def next_timestamps(self, count: int) -> list[str]:
        """Timestamps for new migrations: up to now, or just after the newest one that is there."""
        newest = max(
            (int(found[1]) for name in self.migrations() if (found := _VERSION.match(name))), default=0
        )
        # The last of them is now: what the user makes next comes after all of them.
        start = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=max(0, count - 1))
        if newest < int(start.strftime(_TIMESTAMP)):
            return [(start + timedelta(seconds=number)).strftime(_TIMESTAMP) for number in range(count)]
        try:
            after = datetime.strptime(str(newest), _TIMESTAMP).replace(tzinfo=UTC)
        except ValueError:  # a number that is no time
            return [str(newest + number) for number in range(1, count + 1)]
        return [(after + timedelta(seconds=number)).strftime(_TIMESTAMP) for number in range(1, count + 1)]

    def is_untouched(self, path: Path) -> bool:
        """Whether a file is as an earlier installation left it."""
        known = self.installed.get(self.relative(path))
        return known is not None and known == fingerprint(path.read_bytes())

    def relative(self, path: Path) -> str:
        """The path within the project, as messages and the manifest write it."""
        return path.relative_to(self.root).as_posix()

    def _read_manifest(self) -> dict[str, str]:
        try:
            content: dict[str, Any] = json.loads(self.manifest_path.read_text(encoding="utf-8"))
            return dict(content["files"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InstallError(
                f"{self.manifest_path} cannot be read: restore it from version control, or delete it."
            ) from error


def fingerprint(content: bytes) -> str:
    """What a file is known by; the same for either sort of line ends, which version control may change."""
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


def manifest(version: str, files: dict[str, str]) -> bytes:
    """The content of the file that says what was installed."""
    about = "What `supabase-chunks init` installed, so that an upgrade leaves your own changes alone."
    content = {"about": about, "version": version, "files": dict(sorted(files.items()))}
    return (json.dumps(content, indent=2) + "\n").encode()
