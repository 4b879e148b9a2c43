"""Adding blocks to a project's config.toml, without touching what is there."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from supabase_chunks.errors import InstallError
from supabase_chunks.install.settings import warnings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_BOM = b"\xef\xbb\xbf"


def parse(path: Path, content: bytes) -> dict[str, Any]:
    """Read a config.toml.

    Raises:
        InstallError: It is not valid.
    """
    try:
        return tomllib.loads(content.removeprefix(_BOM).decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InstallError(
            f"{path} cannot be read ({error}): repair it, and run this again. Nothing was changed."
        ) from error


def with_functions(path: Path, content: bytes, names: Iterable[str]) -> tuple[bytes, list[str], list[str]]:
    """Add the blocks of functions at the end.

    Args:
        path: The file, for messages.
        content: What is in it.
        names: The functions.

    Returns:
        The new content, the blocks that were added, and what the user must change in what was there.

    Raises:
        InstallError: The file is not valid, or is written so that no block can be added.
    """
    wanted = list(names)
    settings = parse(path, content)
    functions = settings.get("functions", {})
    if not isinstance(functions, dict):
        raise InstallError(
            f"{path}: functions must be a table of blocks [functions.NAME]. Nothing was changed."
        )
    newline = "\r\n" if b"\r\n" in content else "\n"
    blocks: list[str] = []
    added: list[str] = []
    for name in wanted:
        if name not in functions:
            blocks.append(_block(name))
            added.append(f"[functions.{name}]")
        elif not isinstance(functions[name], dict):
            raise InstallError(
                f"{path}: functions.{name} must be a block [functions.{name}], and is"
                f" {type(functions[name]).__name__}: remove it, and run this again. Nothing was changed."
            )
    to_change = warnings(settings, wanted)
    if not blocks:
        return content, added, to_change
    end = "" if not content or content.endswith(b"\n") else newline
    text = end + newline + "\n".join(blocks).replace("\n", newline)
    result = content + text.encode()
    try:
        tomllib.loads(result.removeprefix(_BOM).decode("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InstallError(
            f"No block can be added to {path} ({error}): write its functions as [functions.NAME] blocks, and"
            " run this again. Nothing was changed."
        ) from error
    return result, added, to_change


def _block(name: str) -> str:
    return (
        f"[functions.{name}]\n"
        "# The function checks the project's secret key itself.\n"
        "verify_jwt = false\n"
        f'import_map = "./functions/{name}/deno.json"\n'
        f'entrypoint = "./functions/{name}/index.ts"\n'
    )
