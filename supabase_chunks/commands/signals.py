"""Ctrl-C and SIGTERM for commands that must clean up before they end."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


class Interrupted(BaseException):
    """Somebody wants this process to end.

    Not a KeyboardInterrupt, at which the SDK tells how to come back to the sync: here nothing is left of it.
    """

    def __init__(self, number: int) -> None:
        """Take the signal's number."""
        super().__init__(number)
        self.exit_code: int = 128 + number


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` at the first signal, and ignore those that follow while it is being dealt with.

    Ctrl-C under `make` comes twice: from the terminal and from make. A clean-up that is interrupted in its
    turn leaves processes behind; it is short in any case.
    """
    seen = False

    def interrupt(number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if not seen:
            seen = True
            raise Interrupted(number)

    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    # A hangup that somebody already ignores (nohup) stays ignored.
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
