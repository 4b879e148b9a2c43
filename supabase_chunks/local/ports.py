"""Free ports of this machine."""

from __future__ import annotations

import socket

from supabase_chunks.local.failure import LocalStackError

HOST = "127.0.0.1"


def free_port() -> int:
    """A loopback port that nobody listens on now; someone else may still take it before we do."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def require_free(port: int, part: str) -> None:
    """Check that a wanted port can be had.

    Raises:
        LocalStackError: Something listens there, or the system does not let us.
    """
    with socket.socket() as probe:
        # What the servers set too: without it a port whose last connections are closing looks taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise LocalStackError(
                f"Port {port} for {part} is taken ({error.strerror}):"
                " stop what listens there, or choose another port."
            ) from error
