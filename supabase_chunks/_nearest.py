"""What somebody who mistyped a name may have meant."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from ._hints import hint

if TYPE_CHECKING:
    from collections.abc import Sequence

_LISTED = 10


def meant(name: str, names: Sequence[str]) -> str:
    """Return what may have been meant as the end of a message; nothing where no name is near.

    Example:
        >>> meant("emial", ["custom", "email"])
        "; did you mean 'email'?"
    """
    near = difflib.get_close_matches(name.lower(), names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def no_such_kind(name: str, names: Sequence[str]) -> str:
    """Return the message for a kind that is not there: with the nearest, else with those that are.

    Example:
        >>> no_such_kind("reports", ["custom", "email"])
        "no sync kind is named 'reports'; there are custom, email; client.save_kind('reports') adds one"
    """
    near = meant(name, names)
    if near:
        return f"no sync kind is named {name!r}{near}"
    listed = ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
    adds = hint(f"client.save_kind({name!r})", f"save-kind {name}")
    return f"no sync kind is named {name!r}; there are {listed or 'none yet'}; {adds} adds one"
