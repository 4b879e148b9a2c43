"""The supervisor's process: obeys its owner, and ends with it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING

from supabase_chunks.errors import LocalStackError
from supabase_chunks.local import control
from supabase_chunks.local.settings import Settings
from supabase_chunks.local.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def _serve(supervisor: Supervisor, lines: AsyncIterator[str]) -> None:
    """Answer the owner until it is gone."""
    running: set[asyncio.Task[None]] = set()

    async def answer(message: control.Message) -> None:
        try:
            reply = {"id": message["id"], "result": await supervisor.execute(message)}
        except LocalStackError as error:
            reply = {"id": message["id"], "error": str(error)}
        control.send(reply)

    async for line in lines:
        task = asyncio.create_task(answer(json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)


async def _watch_owner(pid: int) -> None:
    """Return when the owner is gone.

    The pipe says so at once, unless a child of the owner inherited its other end; then this does.
    """
    while sys.platform == "win32" or os.getppid() == pid:
        await asyncio.sleep(1)


async def _run() -> int:
    lines = control.messages()
    supervisor = Supervisor(Settings.from_json(await anext(lines)))
    stopping = asyncio.Event()
    if sys.platform != "win32":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    # Whichever ends first ends the stack; the owner may be gone before everything has started.
    life = [
        asyncio.create_task(_live(supervisor)),
        asyncio.create_task(_serve(supervisor, lines)),
        asyncio.create_task(_watch_owner(supervisor.settings.owner_pid)),
        asyncio.create_task(_wait(stopping)),
    ]
    try:
        done, _ = await asyncio.wait(life, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    except LocalStackError as error:
        control.send({"event": "failed", "message": str(error)})
        return 1
    except Exception as error:
        traceback.print_exc()
        message = f"The local stack failed, which nobody foresaw: {type(error).__name__}: {error}"
        control.send({"event": "failed", "message": message})
        return 1
    finally:
        for task in life:
            task.cancel()
        await asyncio.gather(*life, return_exceptions=True)
        await supervisor.stop()
    return 0


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def _live(supervisor: Supervisor) -> None:
    await supervisor.start()
    control.send({"event": "ready", **supervisor.describe()})
    await asyncio.Event().wait()


def main() -> None:
    """Run a stack until its owner is gone."""
    # psycopg cannot work on Windows' own event loop.
    windows = sys.platform == "win32"
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop if windows else None) as runner:
        sys.exit(runner.run(_run()))
