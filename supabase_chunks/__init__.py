"""Long syncs that finish on Supabase: start them, watch them, work on them.

Example:
    >>> from supabase_chunks import ChunksClient
    >>> client = ChunksClient.from_env()
    >>> account = client.email.save_account("work", host="imap.example.com", username="me", password="…")
    >>> job = client.trigger_sync("email", payload={"account": "work"}, job_key="work")
    >>> job.wait(progress=True).status
    <JobStatus.COMPLETED: 'completed'>
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._flow import Retry
from .chunk import AsyncChunk, Chunk, Continue, PermanentFailure, Result, RetryLater, Throttled
from .client import AsyncChunksClient, ChunksClient
from .errors import (
    AuthenticationError,
    ChunksError,
    ConfigurationError,
    ConnectionFailed,
    DatabaseReadOnly,
    DemoError,
    FunctionsNotInstalled,
    InstallError,
    InvalidArgument,
    InvalidState,
    JobCancelled,
    JobError,
    JobFailed,
    JobNotFound,
    LeaseLost,
    LimitExceeded,
    LocalStackError,
    NotConfigured,
    NotFound,
    PayloadError,
    PermissionDenied,
    RateLimited,
    RequestTimeout,
    RequestTooLarge,
    ResponseError,
    ServerError,
    ServerUnavailable,
    StatementTimeout,
    TransportError,
    UnexpectedResponse,
    UnknownKind,
    WaitTimeout,
)
from .jobs import AsyncJob, Job
from .states import ChunkStatus, JobStatus, Outcome

if TYPE_CHECKING:
    from ._unreadable import Unreadable
    from .async_worker import AsyncWorker
    from .health import Health
    from .models import (
        Attempt,
        ChunkRecord,
        Claim,
        Completion,
        EmailAccount,
        EmailFolder,
        Kind,
        Lease,
        Limit,
        Progress,
        Purged,
        WaitingFor,
    )
    from .throughput import Throughput
    from .timeline import Timeline
    from .worker import Worker

__all__ = [
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

# Imported when they are asked for: models need pydantic, workers asyncio and signals.
_LATER = {
    "AsyncWorker": "async_worker",
    "Attempt": "models",
    "ChunkRecord": "models",
    "Claim": "models",
    "Completion": "models",
    "EmailAccount": "models",
    "EmailFolder": "models",
    "Health": "health",
    "Kind": "models",
    "Lease": "models",
    "Limit": "models",
    "Progress": "models",
    "Purged": "models",
    "Throughput": "throughput",
    "Timeline": "timeline",
    "Unreadable": "_unreadable",
    "WaitingFor": "models",
    "Worker": "worker",
}


def __getattr__(name: str) -> Any:
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
