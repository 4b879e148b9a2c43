"""Folders that one owner holds, and removing those whose owner was killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from supabase_chunks.errors import LocalStackError

_PREFIX = "supabase-chunks-"
_LOCK = "owner.lock"
# A folder without a holder may have been made this very moment.
_SETTLED_SECONDS = 30.0
_WAIT_SECONDS = 10.0


def memory_dir() -> Path | None:
    """A folder in memory, where the system has one; None where it has not."""
    memory = Path("/dev/shm")  # noqa: S108 - a private directory is made in it
    return memory if memory.is_dir() and os.access(memory, os.W_OK) else None


def make_temporary() -> Path:
    """A new folder, in memory where possible. Removes what killed processes left beside it."""
    parent = memory_dir() or Path(tempfile.gettempdir())
    _sweep(parent)
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))


def hold(folder: Path) -> int | None:
    """Hold a folder for as long as the returned file descriptor, or an inherited copy of it, is open.

    A holder that is on its way out is waited for. On Windows nothing is held, and None is returned.

    Raises:
        LocalStackError: Another process holds it.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise LocalStackError(
                    f"The folder {folder} is in use by another local stack:"
                    " stop that one, or choose another folder (data_dir, on the command line --data-dir)."
                ) from None
            time.sleep(0.05)
        else:
            return descriptor


def let_go(descriptor: int | None) -> None:
    """Stop holding a folder."""
    if descriptor is not None:
        os.close(descriptor)


def clear(folder: Path) -> None:
    """Remove what a stack made in its folder, and the folder when nothing else is in it."""
    for name in ("postgres", "logs"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("keys.json", _LOCK):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _sweep(parent: Path) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    for lock in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            made = lock.stat()
            if made.st_uid != os.geteuid() or time.time() - made.st_mtime < _SETTLED_SECONDS:
                continue
            descriptor = os.open(lock, os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)
