"""The colours: one for each state, the same in terminals, notebooks and pictures. Failed is never green."""

from __future__ import annotations

from typing import Final, NamedTuple

from supabase_chunks.states import ChunkStatus, JobStatus

GREEN: Final = "#2fb67c"
DARK_GREEN: Final = "#1f8a5b"
RED: Final = "#e5484d"
BLUE: Final = "#3d8bd4"
AMBER: Final = "#d98a00"
GREY: Final = "#98a39e"
DARK_GREY: Final = "#6f7a75"
TRACK: Final = "rgba(128,128,128,.25)"
"""What of a bar is empty, on a light page and a dark one."""


class Ink(NamedTuple):
    """What lines and letters are drawn with."""

    strong: str
    soft: str
    axis: str
    grid: str


ON_LIGHT: Final = Ink("#1c2a24", "#5f6f67", "#aab5af", "#e4eae7")
ON_DARK: Final = Ink("#eef3f0", "#b4c0ba", "#5f6b66", "#333b38")

OF_STATE: Final[dict[str, str]] = {
    JobStatus.PENDING: GREY,
    JobStatus.RUNNING: BLUE,
    JobStatus.PAUSED: AMBER,
    JobStatus.COMPLETED: GREEN,
    JobStatus.FAILED: RED,
    JobStatus.CANCELLED: DARK_GREY,
    ChunkStatus.PROCESSING: BLUE,
}
"""By the state's name, which jobs and chunks share."""

OF_ATTEMPT: Final[dict[str, str]] = {
    "retrying": AMBER,
    "failed": AMBER,
    "lost": AMBER,
    "released": GREY,
    "cancelled": DARK_GREY,
}
"""By the outcome of an attempt that another one followed."""
