"""Making a PostgreSQL cluster, and the circumstances its programs run in."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

from supabase_chunks.errors import LocalStackError
from supabase_chunks.local.binaries import program
from supabase_chunks.local.process import SystemUser, spawn

SUPERUSER = "supabase_admin"
_INITDB_SECONDS = 120


def make_cluster(data_dir: Path, binaries: Path, user: SystemUser | None) -> None:
    """Make `cluster`, and `superuser` with its password, in a folder; nothing where there is one already.

    Args:
        data_dir: The folder; made when it is missing.
        binaries: Where PostgreSQL's programs are.
        user: Whom the server runs as, when we are root.

    Raises:
        LocalStackError: initdb failed, or the user cannot get to the folder.
    """
    if (data_dir / "cluster").exists():
        return
    require_entry(data_dir.parent, user)
    data_dir.mkdir(parents=True, exist_ok=True)
    give(data_dir, user)
    # Made beside its place and moved there, so that a start that was cut short leaves no half cluster.
    fresh = data_dir / "cluster.new"
    shutil.rmtree(fresh, ignore_errors=True)
    secret = data_dir / "superuser"
    secret.touch(mode=0o600)
    secret.write_text(secrets.token_urlsafe(24))
    give(secret, user)
    locale = "C" if sys.platform in {"win32", "darwin"} else "C.UTF-8"
    command: list[str | Path] = [program(binaries, "initdb"), "-D", fresh, "-U", SUPERUSER]
    command += ["--encoding=UTF8", f"--locale={locale}", "--auth=scram-sha-256", f"--pwfile={secret}"]
    command += ["--no-sync", "--no-instructions"]
    with (data_dir / "initdb.log").open("wb") as log:
        try:
            process = spawn(command, log=log, cwd=anywhere(), env=environment(), user=user)
        except OSError as error:
            raise LocalStackError(f"PostgreSQL's initdb cannot be run: {error}.") from error
        status = process.wait(_INITDB_SECONDS)
    if status != 0:
        text = (data_dir / "initdb.log").read_text(errors="replace").strip()
        raise LocalStackError(f"PostgreSQL could not make its cluster: {text[-400:]}")
    fresh.rename(data_dir / "cluster")


def require_entry(folder: Path, user: SystemUser | None) -> None:
    """See to it that the server's user can enter a folder, or those above the place where it will be made.

    Args:
        folder: The folder; an absolute path.
        user: Whom the server runs as; None: as we do.

    Raises:
        LocalStackError: It cannot; the message says what to do.
    """
    if user is None:
        return
    there = [path for path in (folder, *folder.parents) if path.is_dir()]
    if _may_enter(there[0], user):
        return
    closed = next(path for path in reversed(there) if not _may_enter(path, user))
    raise LocalStackError(
        f"PostgreSQL refuses to run as root, so it runs as the user {user.name}, who cannot enter {closed}:"
        " choose a data folder elsewhere (data_dir, or on the command line"
        " --data-dir /var/lib/supabase-chunks)."
    )


def _may_enter(folder: Path, user: SystemUser) -> bool:
    # Asked of the system as that user: permission bits alone do not tell of access lists.
    if sys.platform == "win32":
        return True
    command = ["test", "-x", str(folder)]
    try:
        done = subprocess.run(  # noqa: S603 - constant but for the folder
            command, user=user.uid, group=user.gid, extra_groups=[], cwd="/", check=False
        )
    except FileNotFoundError:  # a system without the program; initdb will tell
        return True
    return done.returncode == 0


def environment() -> dict[str, str]:
    """Ours without what would steer PostgreSQL (PGPORT, PGDATA) or name a locale the system lacks."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C"}


def anywhere() -> str | None:
    """A working directory that every user can enter."""
    return None if sys.platform == "win32" else "/"


def give(path: Path, user: SystemUser | None) -> None:
    """Make a path belong to the server's user."""
    if sys.platform != "win32" and user is not None:
        os.chown(path, user.uid, user.gid)


def drop_stale_pid(path: Path) -> None:
    """Remove what a killed server left, when its process id belongs to another program or to a zombie by now.

    PostgreSQL refuses to start while that id exists. In a fresh container ids come again soon, and one whose
    first process collects no orphans keeps the dead server's id for ever.
    """
    try:
        pid = int(path.read_text().split()[0])
        status = Path(f"/proc/{pid}/status").read_text()
    except (OSError, ValueError, IndexError):
        return
    if "postgres" not in status.partition("\n")[0] or "State:\tZ" in status:
        path.unlink(missing_ok=True)
