"""A job's chunks as a pandas DataFrame."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from supabase_chunks.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd  # type: ignore[import-untyped]  # only for the return type

_NUMBERS = ("id", "chunk_index", "attempts", "max_retries")
_NUMBERS_OR_NONE = ("items_processed", "items_total")
_TEXTS = ("kind", "status", "error", "worker_id")
# As text: no format of a table has ids, or values that are now a number and now an object.
_IDS = ("parent_sync_job_id", "owner_id")
_JSON = ("payload", "result", "checkpoint")
_TIMES = ("locked_until", "ready_at", "created_at", "started_at", "completed_at", "updated_at")


def dataframe(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Return a row a chunk, each column in the type that suits it, the same for no rows as for many.

    Args:
        rows: What is known of each chunk, by column.
        columns: The columns in their order.

    Raises:
        ConfigurationError: pandas is not installed.
    """
    try:
        from supabase_chunks._show.frame import ChunkFrame
    except ImportError as error:
        raise ConfigurationError("a DataFrame needs pandas: pip install 'supabase-chunks[plots]'") from error
    types = dict.fromkeys(_NUMBERS, "int64") | dict.fromkeys(_NUMBERS_OR_NONE, "Int64")
    types |= dict.fromkeys(_TEXTS + _IDS + _JSON, "string") | dict.fromkeys(_TIMES, "datetime64[us, UTC]")
    return ChunkFrame([_plain(row) for row in rows], columns=list(columns)).astype(
        {name: kind for name, kind in types.items() if name in columns}
    )


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    ids = {name: None if row.get(name) is None else str(row[name]) for name in _IDS}
    values = {
        name: None if row.get(name) is None else json.dumps(row[name], ensure_ascii=False) for name in _JSON
    }
    return {**row, **ids, **values}
