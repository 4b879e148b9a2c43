"""A part of the stack: a process that is started again whenever it dies."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from supabase_chunks.errors import LocalStackError
from supabase_chunks.local.process import WINDOWS, kill_with_children

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable

_LOOK_SECONDS = 0.05
_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
# A process that lived this long was well; its next death starts with the short pause again.
_HEALTHY_SECONDS = 10.0


class Part:
    """One child process of the stack and the care for it."""

    def __init__(
        self,
        name: str,
        *,
        launch: Callable[[], subprocess.Popen[bytes]],
        answers: Callable[[], Awaitable[bool]],
        say: Callable[[str], None],
    ) -> None:
        """Describe a part.

        Args:
            name: What people call it.
            launch: Starts its process.
            answers: Whether it serves now.
            say: Where a line about its fate goes.
        """
        self.name = name
        self.ready: asyncio.Event = asyncio.Event()
        self.starts: int = 0
        self._launch = launch
        self._answers = answers
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._cared_for = asyncio.Event()
        self._cared_for.set()

    @property
    def resting(self) -> bool:
        """Whether nobody starts it again when it ends."""
        return not self._cared_for.is_set()

    def rest(self) -> None:
        """Start it no more by itself, until `resume()`."""
        self._cared_for.clear()

    def resume(self) -> None:
        """Start it again each time it ends, after a rest."""
        self._cared_for.set()

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process is not None and self.alive else None

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the process, without waiting until it answers."""
        self.ready.clear()
        self.starts += 1
        self._process = self._launch()

    async def wait_ready(self, seconds: float) -> bool:
        """Wait until it answers; False when its process ended or the time is over."""
        deadline = time.monotonic() + seconds
        while self.alive and time.monotonic() < deadline:
            if await self._answers():
                self.ready.set()
                return True
            await asyncio.sleep(0.01)
        return False

    async def keep_running(self) -> None:
        """Start it again each time it dies, until cancelled."""
        pause = _PAUSE_SECONDS
        while True:
            await self._cared_for.wait()
            born = time.monotonic()
            await self._until_end(born)
            self.ready.clear()
            if self.resting:
                continue
            if time.monotonic() - born > _HEALTHY_SECONDS:
                pause = _PAUSE_SECONDS
            status = self._process.returncode if self._process is not None else None
            self._say(f"{self.name} {_ending(status)}; starting it again in {pause:g} s")
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            if self.resting or self.alive:
                continue
            try:
                self.launch()
            except (OSError, LocalStackError) as error:
                self._say(f"{self.name} cannot start: {error}")

    async def _until_end(self, born: float) -> None:
        """Wait until the process ends, noticing on the way when it begins to answer."""
        while self.alive:
            if self.ready.is_set():
                await asyncio.sleep(_LOOK_SECONDS)
            elif await self._answers():
                self.ready.set()
                self._say(f"{self.name} is back after {time.monotonic() - born:.2f} s")
            else:
                await asyncio.sleep(0.01)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            kill_with_children(self._process)
            self.ready.clear()

    async def stop(self, grace_seconds: float) -> None:
        """Ask it to end, and kill it when it has not after the grace time."""
        if self._process is None or not self.alive:
            return
        if grace_seconds and not WINDOWS:
            self._process.terminate()
            deadline = time.monotonic() + grace_seconds
            while self.alive and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
        self.kill()


def _ending(status: int | None) -> str:
    if status is None:
        return "is not there"
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
