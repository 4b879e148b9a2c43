"""Deno: where it is, and fetching what the functions import."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from supabase_chunks.local.failure import LocalStackError

_FETCH_SECONDS = 300


def find_deno() -> Path:
    """The Deno of the package `deno`, else one on PATH.

    Raises:
        LocalStackError: There is none.
    """
    try:
        from deno import find_deno_bin

        return Path(find_deno_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("deno")
    if found is None:
        raise LocalStackError("Deno is missing: run pip install 'supabase-chunks[local]'.")
    return Path(found)


def fetch(deno: Path, directory: Path, arguments: list[str], what: str) -> None:
    """Let Deno download dependencies into its cache; the only thing here that needs the network.

    Raises:
        LocalStackError: It failed; the message ends with Deno's own last words.
    """
    environment = os.environ | {"NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1"}
    try:
        done = subprocess.run(  # noqa: S603 - the command is ours
            [deno, *arguments],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=_FETCH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LocalStackError(
            f"Downloading {what} took over {_FETCH_SECONDS} seconds: check the network connection and try again."
        ) from None
    if done.returncode != 0:
        words = " ".join(done.stderr.split())[-400:]
        raise LocalStackError(
            f"{what} could not be downloaded; the first start needs the npm registry (or a mirror named in"
            f" NPM_CONFIG_REGISTRY). Deno says: {words}"
        )


def clean_environment() -> dict[str, str]:
    """What a function's Deno gets of our environment: enough to find its cache, nothing that is ours alone.

    No proxy either, through which it would try to reach the stack on this machine.
    """
    names = ("PATH", "HOME", "USERPROFILE", "LOCALAPPDATA", "APPDATA", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR")
    names += ("XDG_CACHE_HOME", "DENO_DIR", "NPM_CONFIG_REGISTRY")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return kept | {"DENO_TLS_CA_STORE": "system,mozilla", "DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1"}
