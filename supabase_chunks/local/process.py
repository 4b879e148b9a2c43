"""Child processes that cannot outlive their owner.

A part of the stack must be gone when the program that started it is gone, however that ended. On Linux the
kernel sees to it (a death signal); everywhere the owner also stops its children itself.
"""

from __future__ import annotations

import ctypes
import glob
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_PR_SET_PDEATHSIG = 1
# Loaded here, not in the child: between fork and exec nothing may take a lock.
_LIBC: Any = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

WINDOWS = sys.platform == "win32"
SIGKILL: int = getattr(signal, "SIGKILL", signal.SIGTERM)
SIGQUIT: int = getattr(signal, "SIGQUIT", signal.SIGTERM)


@dataclass(frozen=True)
class SystemUser:
    """An ordinary user of this system that a child runs as, because PostgreSQL refuses to run as root."""

    name: str
    uid: int
    gid: int


def unprivileged_user() -> SystemUser | None:
    """The user for PostgreSQL when we are root ("postgres", else "nobody"); None when we are not root."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    import pwd

    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return SystemUser(name, entry.pw_uid, entry.pw_gid)
    return SystemUser("65534", 65534, 65534)


def spawn(
    command: Sequence[str | Path],
    *,
    log: IO[bytes],
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    user: SystemUser | None = None,
    death_signal: int = SIGKILL,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a child in its own session, so that Ctrl-C in the terminal does not reach it.

    Args:
        command: The program and its arguments.
        log: Where its output goes.
        env: Its whole environment; None means ours.
        cwd: Its working directory.
        user: Whom it runs as; only root may say so.
        death_signal: What the kernel sends it when its owner dies (Linux only). It looks at the thread
            that called this, so call it from a thread that lives as long as the child should.
        stdin: As for `subprocess.Popen`.

    Raises:
        OSError: The program cannot be run.
    """
    return subprocess.Popen(  # noqa: S603 - the command is ours
        [str(part) for part in command],
        stdin=stdin,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=dict(env) if env is not None else None,
        cwd=cwd,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) if WINDOWS else 0,
        start_new_session=not WINDOWS,
        user=user.uid if user is not None else None,
        group=user.gid if user is not None else None,
        extra_groups=[] if user is not None else None,
        preexec_fn=_death_signal_setter(death_signal, os.getpid()) if _LIBC is not None else None,
    )


def _death_signal_setter(death_signal: int, owner: int) -> Callable[[], None]:
    def set_death_signal() -> None:
        # Runs after the change of user, which would reset it.
        _LIBC.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != owner:  # the owner died between fork and here
            os._exit(1)

    return set_death_signal


def children_of(pid: int) -> list[int]:
    """The direct children of a process (Linux and macOS; elsewhere none)."""
    if sys.platform == "linux":
        found: list[int] = []
        # The glob of pathlib stumbles over a process that ends meanwhile; this one does not.
        for listing in glob.glob(f"/proc/{pid}/task/*/children"):
            try:
                found += [int(child) for child in Path(listing).read_text().split()]
            except OSError:
                continue
        return found
    if WINDOWS:
        return []
    command = ["ps", "-A", "-o", "pid=,ppid="]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - constant
    pairs = (line.split() for line in listed.stdout.splitlines())
    return [int(child) for child, parent in pairs if int(parent) == pid]


def send_signal(pids: Iterable[int], number: int) -> None:
    """Send a signal to each process that is still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def kill_with_children(process: subprocess.Popen[bytes]) -> None:
    """End a process and its direct children at once, none left to hold a port or shared memory."""
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        command = ["taskkill", "/T", "/F", "/PID", str(process.pid)]
        subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - constant but for the id
    else:
        # Stopped first, so that it makes no further child while we look.
        send_signal([process.pid], signal.SIGSTOP)
        send_signal([*children_of(process.pid), process.pid], SIGKILL)
    process.wait()
