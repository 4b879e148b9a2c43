"""A TCP proxy that is far away: bytes arrive some time after they were sent, as many as there are."""

from __future__ import annotations

import asyncio
import multiprocessing
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

HOST = "127.0.0.1"


@contextmanager
def far_away(port: int, round_trip: float) -> Iterator[int]:
    """A port that leads to another one, in a process of its own.

    Args:
        port: Where to.
        round_trip: Seconds there and back.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(port, round_trip / 2, theirs), daemon=True)
    process.start()
    try:
        yield int(ours.recv())
    finally:
        process.terminate()
        process.join()


def _run(port: int, one_way: float, ready: Connection) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(HOST, port)
        await asyncio.gather(
            _carry(reader, far_writer, one_way), _carry(far_reader, writer, one_way), return_exceptions=True
        )

    async def main() -> None:
        server = await asyncio.start_server(serve, HOST, 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter, one_way: float) -> None:
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def arrive() -> None:
        while True:
            at, data = await under_way.get()
            await asyncio.sleep(max(0.0, at - loop.time()))
            if not data:
                break
            sink.write(data)
            await sink.drain()
        sink.close()

    arriving = asyncio.create_task(arrive())
    try:
        while data := await source.read(65536):
            under_way.put_nowait((loop.time() + one_way, data))
    except OSError:
        pass
    under_way.put_nowait((loop.time() + one_way, b""))
    await arriving
