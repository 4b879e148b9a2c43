"""Waiting for something with a deadline, in every suite."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], what: str = "", *, seconds: float = 20.0) -> T:
    """Return the first true value of a condition; fail when there is none in time.

    Args:
        condition: What is asked again and again.
        what: What was waited for, in words; the condition's own source unless given.
        seconds: When to give up.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what or _source(condition)}"
        time.sleep(0.005)
    return value


def _source(condition: Callable[[], object]) -> str:
    try:
        return inspect.getsource(condition).strip()
    except OSError:
        return repr(condition)
