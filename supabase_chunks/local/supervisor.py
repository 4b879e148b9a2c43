"""The process that owns a local stack: starts its parts, and again when they die, and ends with its owner."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from supabase_chunks.errors import LocalStackError
from supabase_chunks.local import control, database, functions, postgrest
from supabase_chunks.local.cron_worker import CronWorker
from supabase_chunks.local.deno import find_deno
from supabase_chunks.local.gateway import Gateway
from supabase_chunks.local.keys import Keys
from supabase_chunks.local.net_worker import NetWorker
from supabase_chunks.local.part import Part
from supabase_chunks.local.ports import HOST, accepts, bind, free_port
from supabase_chunks.local.postgres import EPHEMERAL_SETTINGS, PostgresServer
from supabase_chunks.local.scratch import clear

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from supabase_chunks.local.settings import Settings


_READY_SECONDS = 30.0
_WATCH_SECONDS = 0.5
_GRACE_SECONDS = 1.0


class Supervisor:
    """One stack."""

    def __init__(self, settings: Settings) -> None:
        """Make it; `start()` starts the parts."""
        self.settings = settings
        self.logs: Path = settings.root / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.keys: Keys = Keys.kept_in(settings.root / "keys.json")
        self.functions: dict[str, functions.Function] = {}
        self.parts: dict[str, Part] = {}
        self.gateway: Gateway = Gateway(self.keys, functions=self.functions)
        self.url: str = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._listener: socket.socket | None = None
        self._postgres = PostgresServer(
            settings.root / "postgres",
            port=settings.db_port,
            # Commits wait for the log in any case; only what nobody keeps may skip the disk.
            settings={} if settings.keep else EPHEMERAL_SETTINGS,
            log_path=self.logs / "postgres.log",
        )
        # Named to the functions before it runs.
        self._postgres.port = settings.db_port or free_port()
        self._net = NetWorker("", pace=settings.webhook_pace, say=self.say)

    def say(self, line: str) -> None:
        """Write a line to the supervisor's log."""
        print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)

    async def start(self) -> None:
        """Bring everything up.

        Raises:
            LocalStackError: A part could not start.
        """
        self._listener = bind(self.settings.port, "the gateway")
        self.url = f"http://{HOST}:{self._listener.getsockname()[1]}"
        deno = find_deno()
        binary = await postgrest.find_postgrest(deno, _note)
        # Deno compiles while PostgreSQL makes its cluster.
        self._launch_functions(deno)
        await self._start_database()
        await self._start_postgrest(binary)
        for function in self.functions.values():
            await self._wait_for_function(function)
        await self.gateway.start(self._listener)
        self._net = NetWorker(self._postgres.dsn, pace=self._net.pace, drop=self._net.drop, say=self.say)
        cron = CronWorker(self._postgres.dsn, say=self.say)
        work = [self._net.run, cron.run, *(part.keep_running for part in self.parts.values())]
        if self.settings.watch and self.settings.functions is not None:
            work.append(self._watch_functions)
        self._tasks = [asyncio.create_task(self._for_ever(task)) for task in work]

    async def stop(self) -> None:
        """Take everything down, each part before those it needs, and remove what is not kept."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        grace = _GRACE_SECONDS if self.settings.keep else 0.0
        await asyncio.gather(*(part.stop(grace) for part in self._named("functions")))
        await self.gateway.stop()
        if self._listener is not None:
            self._listener.close()
        if "postgrest" in self.parts:
            await self.parts["postgrest"].stop(grace)
        self._postgres.stop()
        if not self.settings.keep:
            clear(self.settings.root)

    def describe(self) -> dict[str, Any]:
        """What the owner needs to know."""
        return {
            "url": self.url,
            "db_url": self._postgres.dsn,
            "postgres_url": self._postgres.dsn_for(user="postgres", password=self.keys.database_password),
            "functions": sorted(self.functions),
        }

    async def _start_database(self) -> None:
        part = Part("postgres", launch=self._postgres.launch, answers=self._postgres_answers, say=self.say)
        part.launch()
        self.parts["postgres"] = part
        if not await part.wait_ready(_READY_SECONDS):
            raise LocalStackError(f"PostgreSQL did not start: {self._postgres.last_words()}")
        applied = database.prepare(
            self._postgres.dsn, keys=self.keys, url=self.url, migrations_dir=self.settings.migrations
        )
        for version in applied:
            self.say(f"applied migration {version}")

    async def _postgres_answers(self) -> bool:
        return self._postgres.answers()

    def _launch_functions(self, deno: Path) -> None:
        if self.settings.functions is None:
            return
        environment = functions.environment(
            self.keys,
            url=self.url,
            database_url=self._postgres.dsn_for(user="postgres", password=self.keys.database_password),
            extra=self.settings.functions_env,
        )
        (self.logs / "functions").mkdir(exist_ok=True)
        for name in functions.find_functions(self.settings.functions):
            function = functions.Function(
                name,
                directory=self.settings.functions / name,
                deno=deno,
                log_path=self.logs / "functions" / f"{name}.log",
                environment=environment,
            )

            async def answers(function: functions.Function = function) -> bool:
                return await accepts(function.port)

            self.functions[name] = function
            self.parts[name] = Part(name, launch=function.launch, answers=answers, say=self.say)
            self.parts[name].launch()

    async def _for_ever(self, work: Callable[[], Awaitable[None]]) -> None:
        """Go on after an error that nobody foresaw: without its webhooks a stack would look broken."""
        while True:
            try:
                await work()
            except Exception:
                self.say(traceback.format_exc())
            await asyncio.sleep(1)

    async def _watch_functions(self) -> None:
        """Start a function again when its files change, and all of them when a shared one does."""
        directory = self.settings.functions
        assert directory is not None  # noqa: S101 - checked by the caller
        before = functions.fingerprints(directory)
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            now = functions.fingerprints(directory)
            changed = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
            before = now
            names = changed if changed <= self.functions.keys() else self.functions.keys()
            await asyncio.gather(*(self.parts[name].renew(_GRACE_SECONDS) for name in names))

    async def _wait_for_function(self, function: functions.Function) -> None:
        part = self.parts[function.name]
        for _ in range(3):
            if await part.wait_ready(_READY_SECONDS):
                return
            if not function.lost_its_port():
                break
            part.launch()
        if function.lacks_imports():
            _note(f"Downloading what the function {function.name} imports, this once")
            await function.fetch()
            part.launch()
            if await part.wait_ready(_READY_SECONDS):
                return
        why = f"it does not answer after {_READY_SECONDS:g} seconds. " if part.alive else ""
        part.kill()
        raise LocalStackError(f"The function {function.name} did not start: {why}{function.last_words()}")

    async def _start_postgrest(self, binary: Path) -> None:
        server = postgrest.PostgREST(
            binary,
            database_url=self._postgres.dsn_for(
                user="authenticator", password=self.keys.authenticator_password
            ),
            jwt_secret=self.keys.jwt_secret,
            log_path=self.logs / "postgrest.log",
        )
        self.gateway.postgrest = server
        part = Part("postgrest", launch=server.launch, answers=server.answers, say=self.say)
        self.parts["postgrest"] = part
        part.launch()
        if not await part.wait_ready(_READY_SECONDS):
            raise LocalStackError(f"PostgREST did not start: {server.last_words()}")

    def _named(self, name: str) -> list[Part]:
        if name == "functions":
            return [self.parts[function] for function in self.functions]
        if name not in self.parts:
            raise LocalStackError(f"There is no part {name!r}; there are {', '.join(sorted(self.parts))}.")
        return [self.parts[name]]

    async def execute(self, message: control.Message) -> Any:
        """Do what the owner asks.

        Raises:
            LocalStackError: It cannot be done.
        """
        match message["op"]:
            case "kill":
                parts = self._named(message["part"])
                killed = [part.pid for part in parts]
                for part in parts:
                    part.kill()
                return killed
            case "restart":
                parts = self._named(message["part"])
                starts = {part: part.starts for part in parts}
                for part in parts:
                    part.kill()
                async with _in_time():
                    while not all(part.starts > starts[part] and part.ready.is_set() for part in parts):
                        await asyncio.sleep(0.01)
                return None
            case "wait":
                async with _in_time():
                    for part in self.parts.values():
                        await part.ready.wait()
                return None
            case "webhooks":
                self._net.pace = message.get("pace", self._net.pace)
                self._net.drop = message.get("drop", self._net.drop)
                return None
            case "pids":
                return {name: part.pid for name, part in self.parts.items()} | {"supervisor": os.getpid()}
            case unknown:
                raise LocalStackError(f"The supervisor does not know {unknown!r}.")


@contextlib.asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_READY_SECONDS):
            yield
    except TimeoutError:
        raise LocalStackError(f"A part is not back after {_READY_SECONDS:g} seconds; see the logs.") from None


def _note(text: str) -> None:
    """Tell the owner why it takes long."""
    control.send({"event": "note", "text": text})
