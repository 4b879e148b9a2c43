"""What a project's folder `supabase/` asks for: its config.toml as far as the local stack heeds it."""

from __future__ import annotations

import glob
import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from supabase_chunks._secrets import shown
from supabase_chunks.errors import LocalStackError
from supabase_chunks.local.functions import FunctionConfig, find_import_map

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
_SEED = "./seed.sql"
_ENV = re.compile(r"env\((\w+)\)")
# What the platform accepts for the name of a function.
_FUNCTION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_DOTENV = re.compile(
    r"""
    ^ [ \t]* (?: export [ \t]+ )? (?P<name> [A-Za-z_]\w* ) [ \t]* = [ \t]*
    (?: '(?P<raw> [^']* )' | "(?P<text> (?: [^"\\] | \\. )* )" | (?P<bare> [^\#\r\n]* ) )
    """,
    re.MULTILINE | re.VERBOSE,
)


@dataclass(frozen=True)
class ApiConfig:
    """How tables are exposed.

    Attributes:
        schemas: The exposed schemas; the first is the default.
        extra_search_path: Schemas searched besides.
        max_rows: The most rows that an answer has.
        auto_expose_new_tables: Whether the API's roles may do everything with what is made in `public`.
    """

    schemas: list[str] = field(default_factory=lambda: ["public"])
    extra_search_path: list[str] = field(default_factory=lambda: ["public", "extensions"])
    max_rows: int = 1000
    auto_expose_new_tables: bool = False


class Project:
    """A folder with `config.toml`, `migrations/`, `functions/` and seeds, all of them optional."""

    def __init__(self, folder: Path) -> None:
        """Read its config.toml.

        Args:
            folder: The folder `supabase/`.

        Raises:
            LocalStackError: The config.toml cannot be read.
        """
        self.folder: Path = folder
        path = folder / "config.toml"
        try:
            content = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode()
            self._config: dict[str, Any] = tomllib.loads(content)
        except FileNotFoundError:
            self._config = {}
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise LocalStackError(f"{path} cannot be read: {error}.") from error

    @property
    def migrations(self) -> Path | None:
        """The folder of migrations; None where there is none, or it is switched off."""
        folder = self.folder / "migrations"
        return folder if folder.is_dir() and self._get("db.migrations.enabled", bool, True) else None

    def seeds(self, note: Callable[[str], None]) -> dict[str, Path]:
        """The seed files in their order, by their names relative to the project.

        Args:
            note: Called with a line for a pattern that matches nothing.
        """
        if not self._get("db.seed.enabled", bool, True):
            return {}
        found: dict[str, Path] = {}
        for pattern in self._get("db.seed.sql_paths", list, [_SEED]):
            matches = sorted(glob.glob(os.path.normpath(str(pattern)), root_dir=self.folder, recursive=True))
            if not matches and pattern != _SEED:
                note(f"config.toml, db.seed.sql_paths: no file matches {pattern}.")
            for match in matches:
                found.setdefault(f"supabase/{Path(match).as_posix()}", self.folder / match)
        return found

    @property
    def api(self) -> ApiConfig:
        """How tables are exposed."""
        return ApiConfig(
            schemas=self._get("api.schemas", list, ["public", "graphql_public"]),
            extra_search_path=self._get("api.extra_search_path", list, ["public", "extensions"]),
            max_rows=self._get("api.max_rows", int, 1000),
            auto_expose_new_tables=self._get("api.auto_expose_new_tables", bool, False),
        )

    @property
    def functions(self) -> list[FunctionConfig]:
        """The functions that are on: the folders with an index.ts, and those that the config names."""
        if not self._get("edge_runtime.enabled", bool, True):
            return []
        configured = self._get("functions", dict, {})
        found = {
            path.parent.name
            for path in (self.folder / "functions").glob("*/index.ts")
            if _FUNCTION_NAME.fullmatch(path.parent.name)
        }
        names = sorted(found | {name for name, value in configured.items() if isinstance(value, dict)})
        return [self._function(name) for name in names if self._get(f"functions.{name}.enabled", bool, True)]

    @property
    def functions_env(self) -> dict[str, str]:
        """What the functions find in their environment: `functions/.env` and `[edge_runtime.secrets]`."""
        found: dict[str, str] = {}
        path = self.folder / "functions" / ".env"
        if path.is_file():
            for match in _DOTENV.finditer(path.read_text(encoding="utf-8-sig")):
                text, raw = match["text"], match["raw"]
                if text is not None:
                    value = text.replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")
                else:
                    value = raw if raw is not None else match["bare"].strip()
                found[match["name"]] = value
        for name, value in self._get("edge_runtime.secrets", dict, {}).items():
            found[name] = _resolved(value)
        # The platform's own; the CLI passes over them too.
        return {name: value for name, value in found.items() if not name.startswith("SUPABASE_")}

    def _function(self, name: str) -> FunctionConfig:
        own = self.folder / "functions" / name
        entrypoint = self._get(f"functions.{name}.entrypoint", str, "")
        import_map = self._get(f"functions.{name}.import_map", str, "")
        return FunctionConfig(
            name,
            entrypoint=self._path(entrypoint) if entrypoint else own / "index.ts",
            import_map=self._path(import_map) if import_map else find_import_map(own),
            verify_jwt=self._get(f"functions.{name}.verify_jwt", bool, True),
        )

    def _path(self, text: str) -> Path:
        return Path(os.path.normpath(self.folder / text))

    def _get(self, name: str, kind: type[_T], default: _T) -> _T:
        written: Any = self._config
        for part in name.split("."):
            written = written.get(part) if isinstance(written, dict) else None
        value = cast("Any", _resolved(written))
        if kind is bool and value in ("true", "false"):
            value = cast("Any", value == "true")
        if value is None:
            return default
        if not isinstance(value, kind):
            wrong = f"must be of type {kind.__name__}, not {shown(written)}."
            raise LocalStackError(f"{self.folder / 'config.toml'}: {name} {wrong}")
        return value


def _resolved(value: Any) -> Any:
    """The value, or what the environment has where it says `env(NAME)`; nothing where that is not set."""
    match = _ENV.fullmatch(value) if isinstance(value, str) else None
    return os.environ.get(match[1]) if match else value


def project_folder(folder: Path | str) -> Path:
    """The folder `supabase` of a project.

    Args:
        folder: That folder, or the one above it.

    Raises:
        LocalStackError: There is no project.
    """
    given = Path(folder).resolve()
    for found in (given / "supabase", given):
        if any((found / name).exists() for name in ("config.toml", "migrations", "functions")):
            return found
    raise LocalStackError(
        f"There is no project in {given}: in its folder supabase/ is no config.toml, no migrations and no"
        " functions."
    )
