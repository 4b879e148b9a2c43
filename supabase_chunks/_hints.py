"""What to do next, said in the words of who reads it: Python for programs, commands on the command line."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of the process, and not of a thread: a worker's threads speak as its command does.
_commands = 0


@contextmanager
def in_a_command() -> Iterator[None]:
    """Give hints as commands, while one runs."""
    global _commands
    _commands += 1
    try:
        yield
    finally:
        _commands -= 1


def hint(python: str, command: str) -> str:
    """Return a hint as code or as a command, whatever the reader has typed.

    Args:
        python: What a program does.
        command: The command after `supabase-chunks`.
    """
    return f"supabase-chunks {command}" if _commands else python


def hints(python: str, command: str) -> str:
    """Return both ways for who has Python and a terminal, and the command alone on the command line."""
    shown = f"supabase-chunks {command}"
    return shown if _commands else f"{python} or: {shown}"
