"""What a stack runs: the folders it was given, or what a project's config.toml makes of the project's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from supabase_chunks.local.functions import FunctionConfig, find_functions
from supabase_chunks.local.project import ApiConfig, Project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from supabase_chunks.local.settings import Settings


@dataclass(frozen=True)
class Sources:
    """What a stack runs.

    Attributes:
        migrations: The folder of migrations, or None.
        seeds: The seed files by name, in their order.
        functions: The functions.
        functions_dir: The folder that is watched for changes of theirs, or None.
        functions_env: Further environment for them.
        api: How tables are exposed.
        is_project: Whether this is somebody's project.
    """

    migrations: Path | None = None
    seeds: dict[str, Path] = field(default_factory=dict)
    functions: list[FunctionConfig] = field(default_factory=list)
    functions_dir: Path | None = None
    functions_env: dict[str, str] = field(default_factory=dict)
    api: ApiConfig = field(default_factory=ApiConfig)
    is_project: bool = False


def find_sources(settings: Settings, note: Callable[[str], None]) -> Sources:
    """Look at the folders.

    Args:
        settings: What the stack was asked for; a folder named there comes before the project's.
        note: Called with a line for what the project asks for and has not.

    Raises:
        LocalStackError: A folder does not exist, or a config.toml cannot be read.
    """
    if settings.project is None:
        functions = [] if settings.functions is None else find_functions(settings.functions)
        return Sources(
            migrations=settings.migrations,
            functions=functions,
            functions_dir=settings.functions,
            functions_env=settings.functions_env,
        )
    project = Project(settings.project)
    folder = project.folder / "functions"
    return Sources(
        migrations=project.migrations,
        seeds=project.seeds(note),
        functions=project.functions,
        functions_dir=folder if folder.is_dir() else None,
        functions_env={**project.functions_env, **settings.functions_env},
        api=project.api,
        is_project=True,
    )
