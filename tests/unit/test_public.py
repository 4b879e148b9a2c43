"""The public names, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import supabase_chunks

PINNED = [
    "AsyncChunk",
    "AsyncChunksClient",
    "AsyncJob",
    "AsyncWorker",
    "Attempt",
    "AuthenticationError",
    "Chunk",
    "ChunkRecord",
    "ChunkStatus",
    "ChunksClient",
    "ChunksError",
    "Claim",
    "Completion",
    "ConfigurationError",
    "ConnectionFailed",
    "Continue",
    "DatabaseReadOnly",
    "DemoError",
    "EmailAccount",
    "EmailFolder",
    "FunctionsNotInstalled",
    "Health",
    "InstallError",
    "InvalidArgument",
    "InvalidState",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobNotFound",
    "JobStatus",
    "Kind",
    "Lease",
    "LeaseLost",
    "Limit",
    "LimitExceeded",
    "LocalStackError",
    "NotConfigured",
    "NotFound",
    "Outcome",
    "PayloadError",
    "PermanentFailure",
    "PermissionDenied",
    "Progress",
    "Purged",
    "RateLimited",
    "RequestTimeout",
    "RequestTooLarge",
    "ResponseError",
    "Result",
    "Retry",
    "RetryLater",
    "ServerError",
    "ServerUnavailable",
    "StatementTimeout",
    "Throttled",
    "Throughput",
    "Timeline",
    "TransportError",
    "UnexpectedResponse",
    "UnknownKind",
    "Unreadable",
    "WaitTimeout",
    "WaitingFor",
    "Worker",
]

HEAVY = [
    "supabase",
    "postgrest",
    "httpx",
    "pydantic",
    "asyncio",
    "rich",
    "pandas",
    "numpy",
    "matplotlib",
    "IPython",
    "click",
]


def test_the_public_names_are_these() -> None:
    assert supabase_chunks.__all__ == PINNED


@pytest.mark.parametrize("name", PINNED)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(supabase_chunks, name).__doc__


def test_a_wrong_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="NoSuchThing"):
        _ = supabase_chunks.NoSuchThing


def test_importing_us_imports_nothing_heavy() -> None:
    script = (
        "import sys; from supabase_chunks import AsyncChunksClient, ChunksClient, Job;"
        "ChunksClient('https://x.example', 'k');"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
