"""Deno: where it is, and fetching what the functions import."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

from supabase_chunks.errors import LocalStackError
from supabase_chunks.local.process import kill_with_children, spawn

_FETCH_SECONDS = 300
# Certificates that a company added to the system count too.
_SETTINGS = {
    "DENO_TLS_CA_STORE": "system,mozilla",
    "DENO_NO_UPDATE_CHECK": "1",
    # That of the program whose folder the functions lie in is none of theirs.
    "DENO_NO_PACKAGE_JSON": "1",
    "NO_COLOR": "1",
}
_KEPT = (
    "PATH",
    "HOME",
    "USERPROFILE",
    "LOCALAPPDATA",
    "APPDATA",
    "SYSTEMROOT",
    "TEMP",
    "TMP",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "DENO_DIR",
    "NPM_CONFIG_REGISTRY",
)


def find_deno() -> Path:
    """The Deno of the package `deno`, else one on PATH.

    Raises:
        LocalStackError: There is none.
    """
    try:
        from deno import find_deno_bin  # type: ignore[import-untyped]

        return Path(find_deno_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("deno")
    if found is None:
        raise LocalStackError("Deno is missing: run pip install 'supabase-chunks[local]'.")
    return Path(found)


async def fetch(deno: Path, directory: Path, arguments: list[str], what: str) -> None:
    """Let Deno download dependencies into its cache; the only thing here that needs the network.

    Raises:
        LocalStackError: It failed; the message ends with Deno's own last words.
    """
    environment = _SETTINGS | os.environ
    with tempfile.TemporaryFile() as words:
        process = spawn([deno, *arguments], log=words, cwd=directory, env=environment)
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                while process.poll() is None:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise LocalStackError(
                f"Downloading {what} took over {_FETCH_SECONDS} seconds: check the network and try again."
            ) from None
        finally:
            kill_with_children(process)
        words.seek(0)
        said = " ".join(words.read().decode(errors="replace").split())[-400:]
    if process.returncode != 0:
        raise LocalStackError(
            f"{what} could not be downloaded; the first start needs the npm registry (or a mirror named in"
            f" NPM_CONFIG_REGISTRY). Deno says: {said}"
        )


def clean_environment() -> dict[str, str]:
    """What a function's Deno gets of our environment: enough to find its cache, nothing that is ours alone.

    No proxy either, through which it would try to reach the stack on this machine.
    """
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | _SETTINGS
