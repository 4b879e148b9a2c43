"""All Edge Functions of a stack: started, and again when their files change; left out when they cannot."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from supabase_chunks.errors import LocalStackError
from supabase_chunks.local.functions import Function, fingerprints
from supabase_chunks.local.part import Part
from supabase_chunks.local.ports import accepts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from supabase_chunks.local.functions import FunctionConfig

READY_SECONDS = 30.0
_WATCH_SECONDS = 0.5
_GRACE_SECONDS = 1.0


class ServedFunctions:
    """The functions and the parts that run them, by name."""

    def __init__(self, *, say: Callable[[str], None], note: Callable[[str], None], strict: bool) -> None:
        """Make it; `launch()` starts them.

        Args:
            say: Where a line of the log goes.
            note: Called with a line that the owner should read.
            strict: Whether one that cannot start ends the stack; else a note names it and the rest runs.
        """
        self.functions: dict[str, Function] = {}
        self.parts: dict[str, Part] = {}
        self._say = say
        self._note = note
        self._strict = strict

    def launch(
        self,
        configs: Iterable[FunctionConfig],
        *,
        deno: Path,
        environment: Mapping[str, str],
        logs: Path,
    ) -> None:
        """Start a process for each, without waiting until they answer."""
        logs.mkdir(exist_ok=True)
        for config in configs:
            function = Function(
                config, deno=deno, log_path=logs / f"{config.name}.log", environment=environment
            )

            async def answers(function: Function = function) -> bool:
                return await accepts(function.port)

            part = Part(config.name, launch=function.launch, answers=answers, say=self._say)
            self.functions[config.name] = function
            self.parts[config.name] = part
            try:
                part.launch()
            except LocalStackError as error:
                self._give_up(function, str(error))

    async def wait_ready(self) -> None:
        """Wait until each one answers or is given up.

        Raises:
            LocalStackError: One cannot start, and that ends the stack.
        """
        for function in self.functions.values():
            if not function.broken:
                await self._settle(function)

    async def watch(self, directory: Path) -> None:
        """Start a function anew when its files change, and all of them when a shared one does."""
        before = fingerprints(directory)
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            now = fingerprints(directory)
            changed = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
            before = now
            names = changed if changed <= self.functions.keys() else self.functions.keys()
            await asyncio.gather(*(self._renew(self.functions[name]) for name in names))

    async def _renew(self, function: Function) -> None:
        part = self.parts[function.name]
        was_broken = function.broken
        part.rest()
        await part.stop(_GRACE_SECONDS)
        try:
            part.launch()
            await self._settle(function)
        except LocalStackError as error:
            # What ends a start must not end a stack that runs.
            self._give_up(function, str(error))
        if not function.broken:
            self._say(f"{function.name} is started again")
            if was_broken:
                self._note(f"The function {function.name} runs now.")
            part.resume()

    async def _settle(self, function: Function) -> None:
        """Wait until it answers; download what it imports where that is missing."""
        part = self.parts[function.name]
        if await self._answers(function):
            return
        if function.lacks_imports():
            self._note(f"Downloading what the function {function.name} imports, this once")
            try:
                await function.fetch()
            except LocalStackError as error:
                if self._strict:
                    raise
                self._give_up(function, str(error))
                return
            part.launch()
            if await self._answers(function):
                return
        why = f"it does not answer after {READY_SECONDS:g} seconds. " if part.alive else ""
        part.kill()
        message = f"The function {function.name} did not start: {why}{function.last_words()}"
        if self._strict:
            raise LocalStackError(message)
        self._give_up(function, message)

    async def _answers(self, function: Function) -> bool:
        part = self.parts[function.name]
        for _ in range(3):
            if await part.wait_ready(READY_SECONDS):
                function.broken = ""
                return True
            if not function.lost_its_port():
                break
            part.launch()
        return False

    def _give_up(self, function: Function, why: str) -> None:
        function.broken = why
        self.parts[function.name].rest()
        self._note(f"{why} The rest runs without it; a change of its files tries again.")
