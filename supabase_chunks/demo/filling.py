"""What a person sees while a mailbox is filled: a bar in a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from supabase_chunks._show.characters import is_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_LINE_EVERY = 5.0


def shown(
    messages: Iterable[bytes],
    total: int,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[bytes]:
    """Give the messages on, and show how many were taken.

    Args:
        messages: The messages.
        total: How many there are.
        say: Called with a line every few seconds, where there is no terminal.
        clock: The seconds.
    """
    if is_terminal(sys.stderr):
        from rich.console import Console
        from rich.progress import track

        console = Console(file=sys.stderr)
        yield from track(messages, "Filling the mailbox", total=total, console=console, transient=True)
        return
    said = clock()
    for count, message in enumerate(messages):
        if clock() - said >= _LINE_EVERY:
            said = clock()
            say(f"  {count:,} of {total:,} messages …")
        yield message
