"""A figure that says in words what is on it, for who hears a notebook; imported only where matplotlib is."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure


class DescribedFigure(Figure):
    """A figure whose image in a notebook has a text beside it (`alt`)."""

    alt: str = ""

    def _repr_mimebundle_(
        self,
        include: object = None,  # noqa: ARG002 - as IPython calls it
        exclude: object = None,  # noqa: ARG002 - as above
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Leave the image to IPython, and add what it is."""
        return {}, {f"image/{kind}": {"alt": self.alt} for kind in ("png", "jpeg", "svg+xml")}
