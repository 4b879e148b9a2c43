"""What an installation would change, and changing it: all of it or nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from supabase_chunks import assets
from supabase_chunks.errors import InstallError
from supabase_chunks.install.config import with_functions
from supabase_chunks.install.project import Project, fingerprint, manifest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_EMAIL_FUNCTION = "sync-emails"
_EMAIL_MIGRATION = "_email.sql"
_BACKUP = "config.toml.before-supabase-chunks"


@dataclass
class Plan:
    """What is to be written.

    Attributes:
        project: Where.
        writes: The files with their content.
        added: What will be new, in the words of the project: paths, and blocks of config.toml.
        updated: Files of an earlier version that will be replaced.
        kept: Files of ours that the user has changed: they stay.
        warnings: What the user must see to.
    """

    project: Project
    writes: dict[Path, bytes] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def for_project(cls, project: Project, *, email: bool, version: str) -> Plan:
        """Find out what is to be done.

        Args:
            project: The project.
            email: Whether the email sync is wanted too.
            version: The version of this package.

        Raises:
            InstallError: A file that is not ours is in the way, or config.toml cannot be extended.
        """
        plan = cls(project)
        installed = dict(project.installed)
        migrations = plan._plan_migrations(email)
        plan._plan_functions(email, installed)
        plan._plan_config(email)
        # The version alone is no change: it would be one at each upgrade that brings nothing new.
        new = (installed, migrations) != (project.installed, project.installed_migrations)
        if plan.writes and (new or not project.manifest_path.exists()):
            plan.writes[project.manifest_path] = manifest(version, installed, migrations)
        return plan

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.writes

    @property
    def backup(self) -> str | None:
        """The file that config.toml will be kept in as it was, if it is changed for the first time."""
        path = self.project.config_path.with_name(_BACKUP)
        return self.project.relative(path) if path in self.writes else None

    def add(self, path: Path, content: bytes) -> None:
        """Plan a new file."""
        self.writes[path] = content
        self.added.append(self.project.relative(path))

    def add_functions(self, names: Iterable[str]) -> None:
        """Plan the blocks of functions in config.toml; warn of what in it would keep them from working."""
        path = self.project.config_path
        content, blocks, warnings = with_functions(path, self.project.config, names)
        self.warnings += warnings
        if content != self.project.config:
            self.writes[path] = content
            self.added += [f"config.toml {block}" for block in blocks]

    def apply(self) -> None:
        """Write everything.

        Raises:
            InstallError: Something cannot be written; then nothing was changed.
        """
        staged: list[tuple[Path, Path]] = []
        before: dict[Path, bytes | None] = {}
        made: list[Path] = []
        path = self.project.root
        try:
            for path, content in self.writes.items():
                made += _make_folder(path.parent)
                # A file that is a link stays one.
                target = path.resolve()
                temporary = target.with_name(f".{path.name}.{os.getpid()}.tmp")
                staged.append((temporary, target))
                temporary.write_bytes(content)
                if target.exists():
                    shutil.copymode(target, temporary)
            for temporary, path in staged:
                before[path] = path.read_bytes() if path.exists() else None
                temporary.replace(path)
        except BaseException as error:
            for temporary, _ in staged:
                temporary.unlink(missing_ok=True)
            for changed, earlier in before.items():
                if earlier is None:
                    changed.unlink(missing_ok=True)
                else:
                    changed.write_bytes(earlier)
            for folder in reversed(made):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            if isinstance(error, OSError):
                raise InstallError(
                    f"{path} cannot be written ({error.strerror}). Nothing was changed."
                ) from error
            raise

    def _plan_migrations(self, email: bool) -> frozenset[str]:
        wanted = [path for path in assets.migrations() if email or not path.name.endswith(_EMAIL_MIGRATION)]
        missing = [path for path in wanted if not self.project.has_migration(path)]
        for stamp, source in zip(self.project.next_timestamps(len(missing)), missing, strict=True):
            name = self.project.file_name(stamp, source.name)
            self.add(self.project.migrations_dir / name, source.read_bytes())
        return self.project.installed_migrations.union(path.name for path in wanted)

    def _plan_functions(self, email: bool, installed: dict[str, str]) -> None:
        foreign: list[str] = []
        for relative in assets.function_files():
            if relative.parts[0] == _EMAIL_FUNCTION and not email:
                continue
            content = (assets.functions_dir() / relative).read_bytes()
            target = self.project.functions_dir / relative
            name = self.project.relative(target)
            if not target.exists():
                self.add(target, content)
            elif fingerprint(target.read_bytes()) != fingerprint(content):
                if self.project.is_untouched(target):
                    self.writes[target] = content
                    self.updated.append(name)
                elif name in installed:
                    # Whoever changed it decides; its new version is in the package.
                    self.kept.append(name)
                    continue
                else:
                    foreign.append(name)
            installed[name] = fingerprint(content)
        if foreign:
            raise InstallError(
                f"Files of these names are needed here, and there are others already: {', '.join(foreign)}."
                " Give yours other names (and change the imports of your functions that use them), then run"
                " this again. Nothing was changed."
            )

    def _plan_config(self, email: bool) -> None:
        path = self.project.config_path
        self.add_functions(name for name in assets.function_names() if email or name != _EMAIL_FUNCTION)
        backup = path.with_name(_BACKUP)
        if path in self.writes and not backup.exists():
            self.writes[backup] = self.project.config


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it; return the new ones, outermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir()
    return list(reversed(missing))
