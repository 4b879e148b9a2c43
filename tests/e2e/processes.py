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
# Of the folders that ours make for a while.
_PREFIXES = ("supabase-chunks-", "chunks-demo-")


@dataclass
class Traces:
    """Processes, ports and folders of a command, gathered while it runs."""

    processes: set[tuple[int, str]] = field(default_factory=set)
    ports: set[int] = field(default_factory=set)
    folders: set[Path] = field(default_factory=set)

    def gather(self, pid: int) -> None:
        """Note everything that this process and its descendants are and have now."""
        listening = _listening()
        for descendant in _descendants(pid):
            started = _start_time(descendant)
            if started is None:
                continue
            self.processes.add((descendant, started))
            self.ports |= _ports(descendant, listening)
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


def _listening() -> dict[str, int]:
    """The ports that anybody listens on, by the socket: read once for all, as it may be long."""
    rows = (
        line.split() for line in Path("/proc/net/tcp").read_text().splitlines() if f" {_LISTENING} " in line
    )
    return {row[9]: int(row[1].rpartition(":")[2], 16) for row in rows}


def _ports(pid: int, listening: dict[str, int]) -> set[int]:
    sockets = set()
    try:
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            sockets.add(os.readlink(f"/proc/{pid}/fd/{descriptor}").removeprefix("socket:[").rstrip("]"))
    except OSError:
        return set()
    return {listening[socket] for socket in sockets & listening.keys()}


def _folders(pid: int) -> Iterator[Path]:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return
    for argument in arguments:
        if not any(prefix in argument for prefix in _PREFIXES):
            continue
        parts = Path(argument).parts
        for index, part in enumerate(parts):
            if part.startswith(_PREFIXES):
                yield Path(*parts[: index + 1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
