"""An IMAP server of our own for the demo: pymap, on this machine only."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from supabase_chunks.demo.imap import Address
from supabase_chunks.errors import DemoError
from supabase_chunks.local.ports import HOST, free_port
from supabase_chunks.local.process import kill_with_children, spawn

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

_READY_SECONDS = 20.0
_PROGRAM = "from pymap.main import main; main()"


def require_installed() -> None:
    """Check that there is an IMAP server to start.

    Raises:
        DemoError: Its package is missing.
    """
    if find_spec("pymap") is None:
        raise DemoError(
            "The demo's IMAP server is missing: run pip install 'supabase-chunks[local,demo]',"
            " or bring a mailbox of your own with --imap."
        )


class MailServer:
    """A running pymap with one empty mailbox, its messages in memory. Ends with the `with` block."""

    def __init__(self, folder: Path) -> None:
        """Describe the server; entering the block starts it.

        Args:
            folder: Where its log goes.
        """
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.address: Address = Address(HOST, 0, "demo", "INBOX", "none", secrets.token_urlsafe(12))

    def __enter__(self) -> MailServer:
        """Start it.

        Raises:
            DemoError: It did not start.
        """
        require_installed()
        port = free_port()
        self.address = Address(HOST, port, "demo", "INBOX", "none", self.address.password)
        # The password goes by a file: a command line can be read by everybody.
        arguments = self._folder / "pymap.args"
        arguments.touch(mode=0o600)
        lines = ["--host", HOST, "--port", str(port), "--no-tls", "--pid-file", f"pymap-{port}"]
        lines += ["dict", "--demo-user", "demo", f"--demo-password={self.address.password}"]
        arguments.write_text("\n".join(lines), encoding="utf-8")
        try:
            with (self._folder / "pymap.log").open("ab") as log:
                self._process = spawn(
                    [sys.executable, "-c", _PROGRAM, f"@{arguments}"], log=log, env=dict(os.environ), cwd="/"
                )
            self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End it."""
        self._stop()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            try:
                socket.create_connection((self.address.host, self.address.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        log = (self._folder / "pymap.log").read_text(encoding="utf-8", errors="replace")
        raise DemoError(f"The demo's IMAP server did not start: {' '.join(log[-300:].split())}")

    def _stop(self) -> None:
        if self._process is not None:
            kill_with_children(self._process)
            self._process = None
