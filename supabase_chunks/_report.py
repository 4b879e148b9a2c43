"""What a worker reports of a chunk: its result, or how it failed."""

from __future__ import annotations

import json
import math
import traceback
from typing import Any

from ._bounds import LONGEST_BLOCK, LONGEST_PAUSE
from ._encode import JSON, encode, encode_object, printable
from ._flow import logger
from .chunk import Continue, HeldChunk, PermanentFailure, Result, RetryLater, Throttled
from .errors import PayloadError

_MOST_REPORT_BYTES = 1_000_000
_MOST_ERROR_TEXT = 4_000


class Report:
    """One item of a bulk completion, or a chunk given back to go on from its checkpoint."""

    def __init__(self, chunk: HeldChunk, fields: dict[str, JSON]) -> None:
        """Take the chunk, and what is said about it beside its id and token."""
        self.chunk = chunk
        self.gives_back = "checkpoint" in fields
        self.is_failure = fields.get("success") is False
        self.tries = 0
        self.item = chunk._life.report(fields)
        self.size = len(json.dumps(self.item, ensure_ascii=False).encode())


def succeeded(chunk: HeldChunk, value: object) -> Report:
    """Return the report of a handler's result; one that cannot be sent is a permanent failure."""
    if isinstance(value, Continue):
        return _continued(chunk, value)
    result = value if isinstance(value, Result) else Result(value)
    items = chunk._life.items if result.items_processed is None else result.items_processed
    try:
        following = [
            encode_object(payload, f"next_chunks[{index}]")
            for index, payload in enumerate(result.next_chunks)
        ]
        return Report(
            chunk,
            {
                "result": encode(result.value, "result"),
                "next_chunks": list(following) or None,
                "items_processed": encode(items, "items_processed"),
                "items_total": encode(result.items_total, "items_total"),
                "next_state": None
                if result.next_state is None
                else encode_object(result.next_state, "next_state"),
            },
        )
    except PayloadError as error:
        return failed(chunk, PermanentFailure(f"the result cannot be stored: {error}"))


def _continued(chunk: HeldChunk, value: Continue) -> Report:
    items = chunk._life.items if value.items is None else value.items
    try:
        return Report(
            chunk,
            {
                "checkpoint": encode_object(value.checkpoint, "checkpoint"),
                "items_processed": encode(items, "items_processed"),
            },
        )
    except PayloadError as error:
        return failed(chunk, PermanentFailure(f"the checkpoint cannot be stored: {error}"))


def failed(chunk: HeldChunk, error: BaseException) -> Report:
    """Return the report of what a handler raised."""
    fields: dict[str, JSON] = {"success": False, "error": _error_text(error)}
    if isinstance(error, RetryLater):
        fields["retry_after_seconds"] = math.ceil(min(max(0.0, error.seconds), LONGEST_PAUSE))
    elif isinstance(error, Throttled):
        fields["throttled_seconds"] = math.ceil(min(max(0.0, error.seconds), LONGEST_BLOCK))
    elif isinstance(error, PermanentFailure):
        fields["retryable"] = False
    else:
        logger.exception("%r failed", chunk, exc_info=error, extra=log_fields(chunk))
    return Report(chunk, fields)


def first_batch(reports: list[Report], most: int) -> list[Report]:
    """Return the first reports, as many as fit into a request."""
    size = 0
    for count, report in enumerate(reports[:most]):
        size += report.size
        if count and size > _MOST_REPORT_BYTES:
            return reports[:count]
    return reports[:most]


def _error_text(error: BaseException) -> str:
    """Return what is kept of an exception: its kind and text, and where it was raised."""
    if isinstance(error, RetryLater | Throttled | PermanentFailure):
        text = str(error)
    else:
        text = "".join(traceback.format_exception_only(error)).strip()
        frames = traceback.extract_tb(error.__traceback__)
        if frames:
            text += f" ({frames[-1].filename}:{frames[-1].lineno})"
    return printable(text[:_MOST_ERROR_TEXT]) or type(error).__name__


def log_fields(chunk: HeldChunk, **more: Any) -> dict[str, Any]:
    """Return the fields for structured logs."""
    return {
        "job_id": str(chunk.job_id),
        "chunk_id": chunk.id,
        "chunk_index": chunk.index,
        "attempt": chunk.attempt,
        **more,
    }
