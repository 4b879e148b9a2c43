"""The line between a stack's owner and its supervisor: JSON, a line a message, over the supervisor's pipes.

The owner's end of the pipe closes when the owner ends, however it ends: so the supervisor hears of it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from typing import TYPE_CHECKING, Any

from supabase_chunks.local.process import WINDOWS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Message = dict[str, Any]


def send(message: Message) -> None:
    """Tell the owner something; one who is gone hears nothing."""
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except OSError:
        return


async def messages() -> AsyncIterator[str]:
    """The lines that the owner sends, until the owner is gone."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    if WINDOWS:
        # Windows cannot wait for an anonymous pipe together with sockets.
        threading.Thread(target=_pump, args=(loop, reader), daemon=True).start()
    else:
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode()


def _pump(loop: asyncio.AbstractEventLoop, reader: asyncio.StreamReader) -> None:
    for line in sys.stdin.buffer:
        loop.call_soon_threadsafe(reader.feed_data, line)
    loop.call_soon_threadsafe(reader.feed_eof)
