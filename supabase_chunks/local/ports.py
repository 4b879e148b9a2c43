"""Ports of this machine: free ones, taken ones, and what answers on them."""

from __future__ import annotations

import asyncio
import random
import socket
import sys

from supabase_chunks.errors import LocalStackError

HOST = "127.0.0.1"


# Below the ports that systems give to outgoing connections (from 32768, or from 49152), one of which could
# else take a port between our look and its use.
_RANGE = range(20_000, 32_000)
# A part binds its port a while after it was chosen: until then only this keeps another part from choosing it.
_given: set[int] = set()


def free_port() -> int:
    """A loopback port that nobody listens on now, and another each time.

    Another program that looks for one may still take it.
    """
    for port in random.sample(_RANGE, k=100):
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            _given.add(port)
            return port
    raise LocalStackError(f"There is no free port between {_RANGE.start} and {_RANGE.stop} on {HOST}.")


def require_free(port: int, part: str) -> None:
    """Check that a wanted port can be had.

    Raises:
        LocalStackError: Something listens there, or the system does not let us.
    """
    with socket.socket() as probe:
        # What the servers set too: without it a port whose last connections are closing looks taken. On
        # Windows the option means something else: to share a port that somebody listens on.
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise LocalStackError(
                f"Port {port} for {part} is taken ({error.strerror}):"
                " stop what listens there, or choose another port"
                " (port and db_port, on the command line --port and --db-port; 0 takes a free one)."
            ) from error


def bind(port: int, part: str) -> socket.socket:
    """A bound socket that does not listen yet; 0 takes a free port.

    Raises:
        LocalStackError: The port cannot be had.
    """
    if port:
        require_free(port, part)
    listener = socket.socket()
    if sys.platform != "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise LocalStackError(f"Port {port} for {part} cannot be had: {error.strerror}.") from error
    return listener


async def accepts(port: int) -> bool:
    """Whether something accepts connections on a port."""
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True


async def get_status(port: int, path: str) -> int | None:
    """The status that a plain GET answers; None when there is no answer."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return None
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
        first = await asyncio.wait_for(reader.readline(), 5)
        return int(first.split()[1])
    except (OSError, TimeoutError, IndexError, ValueError):
        return None
    finally:
        writer.close()
