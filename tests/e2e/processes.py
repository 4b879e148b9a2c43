"""What a running command has started, and whether it is gone afterwards (Linux)."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from supabase_chunks.local.process import children_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_LISTENING = "0A"


@dataclass
class Traces:
    """Processes, ports and folders of a command, gathered while it runs."""

    processes: set[tuple[int, str]] = field(default_factory=set)
    ports: set[int] = field(default_factory=set)
    folders: set[Path] = field(default_factory=set)

    def gather(self, pid: int) -> None:
        """Note everything that this process and its descendants are and have now."""
        for descendant in _descendants(pid):
            started = _start_time(descendant)
            if started is None:
                continue
            self.processes.add((descendant, started))
            self.ports |= _ports(descendant)
            self.folders |= set(_folders(descendant))

    def left(self) -> list[str]:
        """What of it is still there."""
        found = [f"process {pid}" for pid, started in self.processes if _start_time(pid) == started]
        found += [f"port {port}" for port in sorted(self.ports) if _answers(port)]
        return found + [f"folder {folder}" for folder in sorted(self.folders) if folder.exists()]

    def left_after(self, seconds: float) -> list[str]:
        """What is still there when it has had so many seconds to go."""
        deadline = time.monotonic() + seconds
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left


def _descendants(pid: int) -> Iterator[int]:
    yield pid
    for child in children_of(pid):
        yield from _descendants(child)


def _start_time(pid: int) -> str | None:
    """When a process began, by which it is told from a later one with its number; None: gone, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _ports(pid: int) -> set[int]:
    sockets = set()
    try:
        for descriptor in os.scandir(f"/proc/{pid}/fd"):
            target = os.readlink(descriptor.path)
            if target.startswith("socket:["):
                sockets.add(target[8:-1])
        lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return set()
    rows = [line.split() for line in lines]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTENING and row[9] in sockets}


def _folders(pid: int) -> Iterator[Path]:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return
    for argument in arguments:
        parts = Path(argument).parts
        for index, part in enumerate(parts):
            if part.startswith(("supabase-chunks-", "chunks-demo-")):
                yield Path(*parts[: index + 1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
