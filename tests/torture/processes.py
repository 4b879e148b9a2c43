"""The processes of a run that may be killed and frozen: the callers and workers, started again when they were killed."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

from tests.torture import clients
from tests.torture.settings import Settings

# Forks of a process that has imported everything and has no threads: there in a moment.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([clients.__name__])


@dataclass
class Processes:
    """One of each role, by its name."""

    settings: Settings

    def __post_init__(self) -> None:
        """Have none yet."""
        self._running: dict[str, BaseProcess] = {}
        self._numbers = itertools.count(1)

    def start(self, *roles: str) -> None:
        """Start one of each; a later one of the same role has a name of its own, and so a file of its own."""
        for role in roles:
            process = _CONTEXT.Process(
                target=clients.run, args=(role, f"{role}-{next(self._numbers)}", self.settings), daemon=True
            )
            process.start()
            self._running[role] = process

    def pid(self, role: str) -> int | None:
        """The process of a role, while it lives."""
        process = self._running[role]
        return process.pid if process.is_alive() else None

    def kill(self, role: str) -> None:
        """End one as a crash would, and start another."""
        send([self._running[role].pid], signal.SIGKILL)
        self._running[role].join(5)
        self.start(role)

    def stop(self) -> None:
        """End all."""
        for process in self._running.values():
            send([process.pid], signal.SIGKILL)
            process.join(5)


def send(pids: Iterable[int | None], number: int) -> None:
    """Send a signal to those that are still there."""
    for pid in pids:
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
