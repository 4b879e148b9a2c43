"""Chunks of any source to pages of JSON objects that a server takes, without holding them all."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import TypeAlias

from ._encode import JSON, encode_object
from ._frames import is_pandas, records
from .errors import PayloadError

Chunks: TypeAlias = Iterable[object]
"""Mappings, pydantic models or dataclasses; a pandas Series or DataFrame."""

_PAGE_CHUNKS = 1000
_PAGE_BYTES = 1_000_000


class Pager:
    """Collects chunks into pages. One is given out when a chunk follows it, so that the last is known."""

    def __init__(self) -> None:
        """Start empty."""
        self._page: list[JSON] = []
        self._bytes = 0
        self._index = 0

    def add(self, chunk: object) -> list[JSON] | None:
        """Take a chunk; return the page before it, if that is full."""
        encoded = encode_object(chunk, f"chunks[{self._index}]")
        self._index += 1
        size = len(json.dumps(encoded, ensure_ascii=False, separators=(",", ":")).encode()) + 1
        full = None
        if self._page and (len(self._page) >= _PAGE_CHUNKS or self._bytes + size > _PAGE_BYTES):
            full, self._page, self._bytes = self._page, [], 0
        self._page.append(encoded)
        self._bytes += size
        return full

    def rest(self) -> list[JSON]:
        """Return the last page."""
        return self._page


def pages(chunks: Chunks | None) -> Iterator[tuple[list[JSON] | None, bool]]:
    """Give each page and whether it is the last; one empty last page for None.

    Raises:
        PayloadError: A chunk cannot be sent; the path names it.
    """
    if chunks is None:
        yield None, True
        return
    pager = Pager()
    for chunk in objects(chunks):
        page = pager.add(chunk)
        if page is not None:
            yield page, False
    yield pager.rest(), True


async def pages_async(
    chunks: Chunks | AsyncIterable[object] | None,
) -> AsyncIterator[tuple[list[JSON] | None, bool]]:
    """Do what `pages` does, for async iterables too."""
    if not isinstance(chunks, AsyncIterable):
        for part in pages(chunks):
            yield part
        return
    pager = Pager()
    async for chunk in chunks:
        page = pager.add(chunk)
        if page is not None:
            yield page, False
    yield pager.rest(), True


def objects(chunks: Chunks) -> Iterable[object]:
    """Return the chunks: of a DataFrame its rows, of a Series its values under the column's name."""
    if isinstance(chunks, str | bytes | Mapping) or not isinstance(chunks, Iterable):
        raise PayloadError(f"must be an iterable of JSON objects, not {type(chunks).__name__}", path="chunks")
    if is_pandas(chunks):
        return records(chunks)
    return chunks
