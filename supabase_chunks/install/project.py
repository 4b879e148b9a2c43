"""A Supabase project on the disk: where its parts are, and what of ours it has."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from supabase_chunks import assets
from supabase_chunks.errors import InstallError
from supabase_chunks.install.config import parse
from supabase_chunks.install.settings import table, warnings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_MANIFEST = "supabase-chunks.json"
_API_PORT = 54321
_VERSION = re.compile(r"^(\d+)_.*\.sql$")
# How pg_dump writes the schema's name, and we do not.
_SQUASHED = b'"chunk_private"'
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
            above = _nearest(folder)
            raise InstallError(
                f"{folder.absolute()} is no Supabase project (there is no supabase/config.toml): "
                + (
                    f"it lies in {above}, which is one; name that folder."
                    if above
                    else "run supabase init there first, or name the project's folder."
                )
            ) from error
        except OSError as error:
            raise InstallError(f"{self.config_path} cannot be read: {error.strerror}.") from error
        self.manifest_path: Path = self.root / _MANIFEST
        self.installed: dict[str, str]
        self.installed_migrations: frozenset[str]
        self.installed, self.installed_migrations = self._read_manifest()

    @classmethod
    def around(cls, folder: Path) -> Project:
        """Find the project that a folder is in, as the Supabase CLI does: the nearest one, going upwards.

        Raises:
            InstallError: It is in none, or the project cannot be read.
        """
        return cls(_nearest(folder) or folder)

    @property
    def migrations_dir(self) -> Path:
        """Where its migrations are."""
        return self.root / "migrations"

    @property
    def functions_dir(self) -> Path:
        """Where its Edge Functions are."""
        return self.root / "functions"

    def settings(self) -> dict[str, Any]:
        """What is in its config.toml.

        Raises:
            InstallError: It is not valid.
        """
        return parse(self.config_path, self.config)

    def warnings(self) -> list[str]:
        """What in config.toml keeps our functions from working, of those that are there."""
        names = [name for name in assets.function_names() if (self.functions_dir / name).is_dir()]
        return warnings(self.settings(), names) if names else []

    @property
    def api_port(self) -> int:
        """Where `supabase start` has its API on this machine."""
        port = table(self.settings(), "api").get("port")
        return port if isinstance(port, int) else _API_PORT

    def migrations(self) -> list[str]:
        """The names of its migration files, in their order."""
        if not self.migrations_dir.is_dir():
            return []
        return sorted(path.name for path in self.migrations_dir.glob("*.sql"))

    def has_migration(self, original: Path) -> bool:
        """Whether a migration of ours is there, with any timestamp."""
        topic = _topic(original.name)
        found = {
            name: content
            for name in self.migrations()
            if _topic(name) == topic
            # A squash leaves the last file, with what all of them made and none of the data.
            and _SQUASHED not in (content := (self.migrations_dir / name).read_bytes())
        }
        if original.name in self.installed_migrations:
            return bool(found)
        # Nothing is known about it: a file of the user's may well have the same name.
        known = fingerprint(original.read_bytes())
        return any(name == original.name or fingerprint(content) == known for name, content in found.items())

    def file_name(self, stamp: str, original: str) -> str:
        """The name that a migration of ours has in this project: with a timestamp of the project's own."""
        return f"{stamp}_{_topic(original)}"

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

    def _read_manifest(self) -> tuple[dict[str, str], frozenset[str]]:
        try:
            content: dict[str, Any] = json.loads(self.manifest_path.read_text(encoding="utf-8"))
            return dict(content["files"]), frozenset(content.get("migrations", ()))
        except FileNotFoundError:
            return {}, frozenset()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InstallError(
                f"{self.manifest_path} cannot be read: restore it from version control, or delete it."
            ) from error


def _nearest(folder: Path) -> Path | None:
    folder = folder.absolute()
    for candidate in (folder, *folder.parents):
        if (candidate / "supabase" / "config.toml").is_file():
            return candidate
    return None


def _topic(name: str) -> str:
    """The name of a migration without its timestamp."""
    return name.partition("_")[2]


def fingerprint(content: bytes) -> str:
    """What a file is known by; the same for either sort of line ends, which version control may change."""
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


def manifest(version: str, files: dict[str, str], migrations: Iterable[str]) -> bytes:
    """The content of the file that says what was installed."""
    about = "What `supabase-chunks init` installed, so that an upgrade leaves your own changes alone."
    content = {
        "about": about,
        "version": version,
        "files": dict(sorted(files.items())),
        "migrations": sorted(migrations),
    }
    return (json.dumps(content, indent=2) + "\n").encode()
