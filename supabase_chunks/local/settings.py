"""What a stack is asked for: how LocalStack tells its supervisor."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

_PATHS = ("root", "project", "migrations", "functions")


@dataclass(frozen=True)
class Settings:
    """Everything the supervisor needs to know.

    Attributes:
        root: The stack's own folder: cluster, logs, keys.
        keep: Whether the folder stays when the stack ends.
        port: The gateway's port; 0 takes a free one.
        db_port: PostgreSQL's port; 0 takes a free one.
        project: The folder `supabase/` of a project, whose config.toml says what runs; or None.
        migrations: Without a project: the folder of migrations to apply, or None.
        functions: Without a project: the folder of Edge Functions to serve, or None.
        strict_functions: Whether a function that cannot start ends the stack.
        functions_env: Further environment for the functions.
        webhook_pace: Seconds the sender of webhooks sleeps after a batch.
        watch: Whether a function is started again when its files change.
        owner_pid: The process whose end ends the stack.
    """

    root: Path
    owner_pid: int
    keep: bool = False
    port: int = 0
    db_port: int = 0
    project: Path | None = None
    migrations: Path | None = None
    functions: Path | None = None
    strict_functions: bool = False
    functions_env: dict[str, str] = field(default_factory=dict)
    webhook_pace: float = 0.0
    watch: bool = False

    def to_json(self) -> str:
        """One line for the supervisor's standard input."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, line: str) -> Settings:
        """The settings in such a line."""
        fields = json.loads(line)
        for name in _PATHS:
            if fields[name] is not None:
                fields[name] = Path(fields[name])
        return cls(**fields)
