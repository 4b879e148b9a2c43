"""Blocking calls where an event loop runs, which they stop."""

from __future__ import annotations

import sys
import warnings


def warn_of_blocking(call: str, instead: str) -> None:
    """Warn who blocks a running event loop; called by what the user calls.

    In a notebook a loop always runs, and a cell may well wait.

    Args:
        call: What blocks.
        instead: What does not.
    """
    asyncio = sys.modules.get("asyncio")
    # Who has not imported it has no loop; we do not, as it would be a quarter of our import time.
    if asyncio is None or in_notebook():
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    text = f"{call} blocks the running event loop until it returns; await that of {instead}"
    warnings.warn(text, RuntimeWarning, stacklevel=3)


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs us; IPython in a terminal has a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")
