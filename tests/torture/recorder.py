"""Writes a history, as a client of the queue hears it."""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import httpx

# The connection was lost, the server was ending, or the statement was stopped: it may have been done before.
_UNCLEAR = re.compile(r"08|57|XX|PGRST[03]")
_SQLSTATE = re.compile(r"[0-9A-Z]{5}|PGRST\d+")


class Recorder:
    """Appends what one process asks and hears to its file. Threads may share it."""

    def __init__(self, folder: Path, name: str) -> None:
        """Open the file; a process that has the name of a dead one needs another generation in it."""
        self.name = name
        self._file = os.open(folder / f"{name}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._numbers = itertools.count(1)

    def clock(self) -> None:
        """Note how the wall's clock and the monotonic one differ."""
        self._write({"clock": time.time() - time.monotonic()})

    def begin(self, function: str, arguments: dict[str, Any]) -> str:
        """Note a call, before it is sent; returns its id."""
        operation = f"{self.name}:{next(self._numbers)}"
        self._write({"id": operation, "at": time.monotonic(), "call": function, "arguments": arguments})
        return operation

    def ok(self, operation: str, answer: Any) -> None:
        """Note what a call returned."""
        self._write({"id": operation, "at": time.monotonic(), "ok": answer})

    def error(self, operation: str, code: str) -> None:
        """Note that a call was refused: it has changed nothing."""
        self._write({"id": operation, "at": time.monotonic(), "error": code})

    def unknown(self, operation: str, why: str) -> None:
        """Note that nobody will say whether a call was done."""
        self._write({"id": operation, "at": time.monotonic(), "unknown": why})

    def failed(self, operation: str, code: str | None, why: str) -> None:
        """Note an error of the database, by its SQLSTATE."""
        if code is None or not _SQLSTATE.fullmatch(code) or _UNCLEAR.match(code):
            self.unknown(operation, why)
        else:
            self.error(operation, code)

    def answered(self, operation: str, status: int, content: bytes) -> None:
        """Note an answer of PostgREST."""
        try:
            body = json.loads(content) if content else None
        except ValueError:
            return self.unknown(operation, f"HTTP {status} without JSON")
        if status < 300:
            return self.ok(operation, body)
        code = body.get("code") if isinstance(body, dict) else None
        return self.failed(operation, code if status != 503 else None, f"HTTP {status} {code}")

    def _write(self, entry: dict[str, Any]) -> None:
        # One write a line: lines of several threads do not mix, and what was written outlives the process.
        os.write(self._file, (json.dumps(entry, default=str) + "\n").encode())


def called(path: str) -> str | None:
    """The function that a request's path calls; None for other requests."""
    found = re.search(r"/rest/v1/rpc/(\w+)$", path)
    return found[1] if found else None


class RecordingTransport(httpx.HTTPTransport):
    """Sends an SDK's requests, each of which it records; also those that the SDK repeats by itself."""

    def __init__(self, recorder: Recorder) -> None:
        """Take where to record."""
        super().__init__()
        self._recorder = recorder

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one."""
        function = called(request.url.path)
        if function is None:
            return super().handle_request(request)
        operation = self._recorder.begin(function, json.loads(request.content or b"{}"))
        try:
            response = super().handle_request(request)
            response.read()
        except httpx.TransportError as error:
            _lost(self._recorder, operation, error)
            raise
        self._recorder.answered(operation, response.status_code, response.content)
        return response


class AsyncRecordingTransport(httpx.AsyncHTTPTransport):
    """The same for an async client."""

    def __init__(self, recorder: Recorder) -> None:
        """Take where to record."""
        super().__init__()
        self._recorder = recorder

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one."""
        function = called(request.url.path)
        if function is None:
            return await super().handle_async_request(request)
        operation = self._recorder.begin(function, json.loads(request.content or b"{}"))
        try:
            response = await super().handle_async_request(request)
            await response.aread()
        except httpx.TransportError as error:
            _lost(self._recorder, operation, error)
            raise
        self._recorder.answered(operation, response.status_code, response.content)
        return response


def _lost(recorder: Recorder, operation: str, error: httpx.TransportError) -> None:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        recorder.error(operation, "not sent")
    else:
        recorder.unknown(operation, type(error).__name__)
