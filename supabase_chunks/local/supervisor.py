"""The process that owns a local stack: starts its parts, and again when they die, and ends with its owner."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
import traceback
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from supabase_chunks.errors import LocalStackError
from supabase_chunks.local import control, database, functions, postgrest
from supabase_chunks.local.cron_worker import CronWorker
from supabase_chunks.local.deno import find_deno
from supabase_chunks.local.gateway import Gateway
from supabase_chunks.local.keys import Keys
from supabase_chunks.local.net_worker import NetWorker
from supabase_chunks.local.part import Part
from supabase_chunks.local.ports import HOST, bind, free_port
from supabase_chunks.local.postgres import EPHEMERAL_SETTINGS, PostgresServer
from supabase_chunks.local.scratch import clear
from supabase_chunks.local.served import ServedFunctions
from supabase_chunks.local.sources import Sources, find_sources

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from supabase_chunks.local.settings import Settings


_READY_SECONDS = 30.0
_GRACE_SECONDS = 1.0


class Supervisor:
    """One stack."""

    def __init__(self, settings: Settings) -> None:
        """Make it; `start()` starts the parts."""
        self.settings = settings
        self.logs: Path = settings.root / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.keys: Keys = Keys.kept_in(settings.root / "keys.json")
        self.parts: dict[str, Part] = {}
        self.served: ServedFunctions = ServedFunctions(
            say=self.say, note=self.note, strict=settings.strict_functions
        )
        self.gateway: Gateway = Gateway(self.keys, functions=self.served.functions)
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

    def note(self, text: str) -> None:
        """Tell the owner something worth knowing."""
        self.say(text)
        control.send({"event": "note", "text": text})

    async def start(self) -> None:
        """Bring everything up.

        Raises:
            LocalStackError: A part could not start.
        """
        self._listener = bind(self.settings.port, "the gateway")
        self.url = f"http://{HOST}:{self._listener.getsockname()[1]}"
        sources = find_sources(self.settings, self.note)
        deno = find_deno()
        binary = await postgrest.find_postgrest(deno, self.note)
        # Deno compiles while PostgreSQL makes its cluster.
        self._launch_functions(deno, sources)
        await self._start_database(sources)
        await self._start_postgrest(binary, sources)
        await self.served.wait_ready()
        await self.gateway.start(self._listener)
        self._net = NetWorker(self._postgres.dsn, pace=self._net.pace, drop=self._net.drop, say=self.say)
        cron = CronWorker(self._postgres.dsn, say=self.say)
        work = [self._net.run, cron.run, *(part.keep_running for part in self.parts.values())]
        if self.settings.watch and sources.functions_dir is not None:
            work.append(partial(self.served.watch, sources.functions_dir))
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
            "functions": sorted(
                name for name, function in self.served.functions.items() if not function.broken
            ),
        }

    def _launch_functions(self, deno: Path, sources: Sources) -> None:
        environment = functions.environment(
            self.keys,
            url=self.url,
            database_url=self._postgres.dsn_for(user="postgres", password=self.keys.database_password),
            extra=sources.functions_env,
        )
        self.served.launch(
            sources.functions, deno=deno, environment=environment, logs=self.logs / "functions"
        )
        self.parts.update(self.served.parts)

    async def _start_database(self, sources: Sources) -> None:
        part = Part("postgres", launch=self._postgres.launch, answers=self._postgres_answers, say=self.say)
        part.launch()
        self.parts["postgres"] = part
        if not await part.wait_ready(_READY_SECONDS):
            raise LocalStackError(f"PostgreSQL did not start: {self._postgres.last_words()}")
        for line in database.prepare(
            self._postgres.dsn, sources, keys=self.keys, url=self.url, note=self.note
        ):
            self.say(line)

    async def _postgres_answers(self) -> bool:
        return self._postgres.answers()

    async def _for_ever(self, work: Callable[[], Awaitable[None]]) -> None:
        """Go on after an error that nobody foresaw: without its webhooks a stack would look broken."""
        while True:
            try:
                await work()
            except Exception:
                self.say(traceback.format_exc())
            await asyncio.sleep(1)

    async def _start_postgrest(self, binary: Path, sources: Sources) -> None:
        schemas = database.exposed(self._postgres.dsn, sources.api, self.note)
        server = postgrest.PostgREST(
            binary,
            api=replace(sources.api, schemas=schemas),
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
            return list(self.served.parts.values())
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
                parts = [part for part in self._named(message["part"]) if not part.resting]
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
                        if not part.resting:
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
