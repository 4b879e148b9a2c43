"""What a client must know of the run that it is a part of."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tests.polling import until

# Seconds that a client waits for an answer; then it is unknown.
PATIENCE = 1.5
_GO = "go"


@dataclass(frozen=True)
class Settings:
    """Where everything is, from which seed it draws, and for how long it calls and works."""

    folder: str
    seed: str
    url: str
    key: str
    db_url: str
    calls_for: float
    works_for: float
    jobs: int

    def ready(self, name: str) -> float:
        """Say that a client is ready, and wait until all are; returns when they began, by the monotonic clock."""
        (Path(self.folder) / f"{name}.ready").touch()
        go = Path(self.folder) / _GO
        until(go.exists, "all clients are ready", seconds=60)
        return float(go.read_text())

    def begin(self, clients: int) -> None:
        """Wait until so many clients are ready, let them begin, and wait until each was answered."""
        folder = Path(self.folder)
        until(lambda: len(list(folder.glob("*.ready"))) >= clients, "all clients are ready", seconds=60)
        written = folder / "going"
        written.write_text(str(time.monotonic()))
        written.rename(folder / _GO)
        until(lambda: len(self._answered()) >= clients, "all clients were answered", seconds=60)

    def _answered(self) -> list[Path]:
        files = [path.with_suffix(".jsonl") for path in Path(self.folder).glob("*.ready")]
        return [path for path in files if path.exists() and b'"ok"' in path.read_bytes()]
