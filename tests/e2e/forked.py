"""Commands as processes that are forked from one in which all is imported: a hundredth of a second each, not half of one."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.reduction import DupFd
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.context import ForkServerProcess

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "supabase_chunks.cli",
        "supabase_chunks.commands.jobs",
        "supabase_chunks.commands.kinds",
        "supabase_chunks._project_client",
        "supabase_chunks.models",
        "postgrest",
        "rich.progress",
        "rich.table",
    ]
)


def start(arguments: Sequence[str], environment: Mapping[str, str], out: int) -> ForkServerProcess:
    """Start a command whose output and errors go to a file descriptor, which this closes."""
    process = _FORKS.Process(target=_run, args=(list(arguments), dict(environment), DupFd(out)))
    process.start()
    os.close(out)
    return process


def _run(arguments: list[str], environment: dict[str, str], out: Any) -> None:
    """Be a freshly started interpreter, as far as a command can tell."""
    given = out.detach()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor in (1, 2):
        os.dup2(given, descriptor)
    os.close(given)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["supabase-chunks", *arguments]
    is_terminal = os.isatty(1)
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - until the process ends
    sys.stdout = open(1, "w", encoding="utf-8", buffering=1 if is_terminal else -1)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1)  # noqa: SIM115
    from supabase_chunks.cli import main

    main()
