"""Long syncs that finish on Supabase: start them, watch them, work on them.

Example:
    >>> from supabase_chunks import ChunksClient
    >>> client = ChunksClient.from_env()
    >>> client.email.save_account("work", host="imap.example.com", username="me", password="…")
    >>> client.trigger_sync("email", payload={"account": "work"}, job_key="work").wait(progress=True)
"""

from ._flow import Retry
from .client import AsyncChunksClient, ChunksClient
from .errors import (
    AuthenticationError,
    ChunksError,
    ConfigurationError,
    ConnectionFailed,
    FunctionsNotInstalled,
    InvalidArgument,
    InvalidState,
    JobCancelled,
    JobError,
    JobFailed,
    JobNotFound,
    LimitExceeded,
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
from .models import (
    ChunkRecord,
    ChunkStatus,
    Claim,
    Completion,
    EmailAccount,
    JobStatus,
    Kind,
    Lease,
    Outcome,
    Progress,
)

__all__ = [
    "AsyncChunksClient",
    "AsyncJob",
    "AuthenticationError",
    "ChunkRecord",
    "ChunkStatus",
    "ChunksClient",
    "ChunksError",
    "Claim",
    "Completion",
    "ConfigurationError",
    "ConnectionFailed",
    "EmailAccount",
    "FunctionsNotInstalled",
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
    "LimitExceeded",
    "NotConfigured",
    "NotFound",
    "Outcome",
    "PayloadError",
    "PermissionDenied",
    "Progress",
    "RateLimited",
    "RequestTimeout",
    "RequestTooLarge",
    "ResponseError",
    "Retry",
    "ServerError",
    "ServerUnavailable",
    "StatementTimeout",
    "TransportError",
    "UnexpectedResponse",
    "UnknownKind",
    "WaitTimeout",
]
