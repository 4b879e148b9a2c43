"""Chunks and attempts that ran at times of the test's choice, and where a picture has them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from supabase_chunks import Attempt, ChunkRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

START = datetime(2026, 1, 1, tzinfo=UTC)


def chunk(index: int, start: float, end: float | None, worker: str = "a", **fields: Any) -> ChunkRecord:
    ended = None if end is None else START + timedelta(seconds=end)
    return ChunkRecord.model_validate(
        {
            "id": index,
            "parent_sync_job_id": UUID(int=1),
            "kind": "pages",
            "chunk_index": index,
            "status": "completed" if ended else "processing",
            "started_at": START + timedelta(seconds=start),
            "completed_at": ended,
            "worker_id": worker,
            "attempts": 1,
            **fields,
        }
    )


def attempt(index: int, start: float, end: float, outcome: str = "retrying", **fields: Any) -> Attempt:
    return Attempt.model_validate(
        {
            "id": index,
            "chunk_id": index,
            "chunk_index": index,
            "attempt": 1,
            "outcome": outcome,
            "worker_id": "a",
            "started_at": START + timedelta(seconds=start),
            "ended_at": START + timedelta(seconds=end),
            **fields,
        }
    )


def bars(ax: Axes) -> list[tuple[float, float, float]]:
    """Each bar's row, left edge and width, row by row."""
    boxes = [path.get_extents() for drawn in ax.collections for path in drawn.get_paths()]
    return sorted((round((box.y0 + box.y1) / 2), round(box.x0, 3), round(box.width, 3)) for box in boxes)
