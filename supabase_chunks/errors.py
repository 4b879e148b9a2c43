"""What this package raises when something outside the caller's code goes wrong, one tree.

::

    ChunksError
    ├── ConfigurationError           a URL or key is missing or cannot be one; an optional package is absent
    ├── PayloadError                 a value cannot be sent as JSON (also a ValueError); `path` says which
    ├── InstallError                 `init` or `new` cannot change that project; nothing was changed
    ├── LocalStackError              a part of the local stack could not start, or stopped for good
    ├── DemoError                    the demo cannot go on
    ├── LeaseLost                    a claim is no longer this worker's: what it was to save is not saved
    ├── JobError                     how a sync ended, or did not; `progress` has the counts
    │   ├── JobFailed                every chunk ended and at least one failed; `errors` has the first
    │   ├── JobCancelled             somebody cancelled it
    │   └── WaitTimeout              your waiting ended (also a TimeoutError); the sync goes on
    ├── TransportError               no answer came
    │   ├── ConnectionFailed         DNS, refused, reset, closed early, TLS
    │   └── RequestTimeout           no answer within the client's timeout (also a TimeoutError)
    └── ResponseError                an answer came, and it is an error: `status`, `code`, `details`, `hint`
        ├── AuthenticationError      401, PGRST301-303: the key or the token is wrong or expired
        ├── PermissionDenied         403, 42501: this key or user may not do that
        ├── NotFound                 404: nothing at that URL
        ├── FunctionsNotInstalled    PGRST202, PGRST205, 42P01: the migrations are not in that database
        ├── RequestTooLarge          413
        ├── RateLimited              429; `retry_after` in seconds, if the server said so
        ├── ServerError              5xx
        │   └── ServerUnavailable    502 to 504, 520 to 524: the next try may go through
        ├── UnexpectedResponse       a success that is not what was asked for: HTML, cut JSON, another shape
        ├── StatementTimeout         57014, 55P03: the database stopped the call: it, or a lock, took too long
        ├── DatabaseReadOnly         25006: the database takes no writes, as when its disk is full
        ├── JobNotFound              SC001
        ├── UnknownKind              SC002
        ├── InvalidArgument          SC003
        ├── LimitExceeded            SC004
        ├── InvalidState             SC005
        └── NotConfigured            SC006

An error's default message is the first line of its docstring. No error holds a key or a request's headers.

Wrong use is Python's own TypeError, ValueError or AttributeError. `RetryLater`, `Throttled` and
`PermanentFailure` are no errors of the package: a handler raises them to steer its worker.
"""
# ruff: noqa: N818 - JobNotFound, PermissionDenied and their like say it without the suffix.

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .models import ChunkRecord, Progress

__all__ = [
    "AuthenticationError",
    "ChunksError",
    "ConfigurationError",
    "ConnectionFailed",
    "DatabaseReadOnly",
    "DemoError",
    "FunctionsNotInstalled",
    "InstallError",
    "InvalidArgument",
    "InvalidState",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobNotFound",
    "LeaseLost",
    "LimitExceeded",
    "LocalStackError",
    "NotConfigured",
    "NotFound",
    "PayloadError",
    "PermissionDenied",
    "RateLimited",
    "RequestTimeout",
    "RequestTooLarge",
    "ResponseError",
    "ServerError",
    "ServerUnavailable",
    "StatementTimeout",
    "TransportError",
    "UnexpectedResponse",
    "UnknownKind",
    "WaitTimeout",
]


class ChunksError(Exception):
    """Something went wrong in supabase-chunks."""

    retryable: bool = False
    """Whether the same call, repeated as it is, may succeed."""

    def __init__(self, message: str | None = None) -> None:
        """Take `message`, or the first line of the class's docstring."""
        self.message: str = message or (type(self).__doc__ or type(self).__name__).strip().splitlines()[0]
        super().__init__(self.message)

    def __str__(self) -> str:
        """Return the message."""
        return self.message


class ConfigurationError(ChunksError):
    """The client cannot be set up with what it was given."""


class PayloadError(ChunksError, ValueError):
    """A value cannot be sent as JSON."""

    def __init__(self, message: str | None = None, *, path: str = "") -> None:
        """Take what is wrong, and where, as in `chunks[17].total`."""
        super().__init__(f"{path}: {message}" if path and message else message)
        self.path: str = path


class InstallError(ChunksError):
    """Nothing was installed into the project; the message says why and what to do."""


class LocalStackError(ChunksError):
    """A part of the local stack could not start, or stopped for good; the message says what to do."""


class DemoError(ChunksError):
    """The demo cannot go on; the message says what to do."""


class LeaseLost(ChunksError):
    """The claim is no longer this worker's: somebody else may have the chunk. Nothing was saved."""


class JobError(ChunksError):
    """A sync did not end well, or not in time."""

    def __init__(self, message: str | None = None, *, progress: Progress | None = None) -> None:
        """Take the last progress that was seen."""
        super().__init__(message)
        self.progress: Progress | None = progress


class JobFailed(JobError):
    """The sync ended, and some of its chunks failed."""

    def __init__(
        self,
        message: str | None = None,
        *,
        progress: Progress | None = None,
        errors: Sequence[ChunkRecord] = (),
    ) -> None:
        """Take the first failed chunks, each with its `error`."""
        super().__init__(message, progress=progress)
        self.errors: tuple[ChunkRecord, ...] = tuple(errors)


class JobCancelled(JobError):
    """The sync was cancelled."""


class WaitTimeout(JobError, TimeoutError):
    """The sync did not end within the time given; it goes on in the database."""


class TransportError(ChunksError):
    """No answer came from the server."""


class ConnectionFailed(TransportError):
    """The server could not be reached, or the connection was lost."""

    retryable = True


class RequestTimeout(TransportError, TimeoutError):
    """The server did not answer within the timeout."""


class ResponseError(ChunksError):
    """The server answered with an error."""

    by_code: ClassVar[dict[str, type[ResponseError]]] = {}
    """The class of each SQLSTATE or PostgREST code."""
    by_status: ClassVar[dict[int, type[ResponseError]]] = {}
    """The class of each HTTP status that has no known code."""

    def __init_subclass__(cls, *, codes: Sequence[str] = (), statuses: Sequence[int] = ()) -> None:
        """Register the class for its codes and HTTP statuses."""
        ResponseError.by_code.update(dict.fromkeys(codes, cls))
        ResponseError.by_status.update(dict.fromkeys(statuses, cls))

    def __init__(
        self,
        message: str | None = None,
        *,
        status: int | None = None,
        code: str | None = None,
        details: str | None = None,
        hint: str | None = None,
        retry_after: float | None = None,
        body: str = "",
    ) -> None:
        """Take the parts of the answer; `body` is its beginning, `retry_after` is in seconds."""
        super().__init__(message)
        self.status: int | None = status
        self.code: str | None = code
        self.details: str | None = details
        self.hint: str | None = hint
        self.retry_after: float | None = retry_after
        self.body: str = body

    def __str__(self) -> str:
        """Return the message with the code, the details and the hint."""
        origin = ", ".join(
            part for part in (self.code, f"HTTP {self.status}" if self.status else None) if part
        )
        text = f"{self.message} ({origin})" if origin else self.message
        return "\n".join(
            [
                text,
                *(
                    f"{label}: {value}"
                    for label, value in (("Details", self.details), ("Hint", self.hint))
                    if value
                ),
            ]
        )

    @classmethod
    def of(cls, *, status: int, code: str | None) -> type[ResponseError]:
        """Return the most telling class for an answer's status and code."""
        if code in cls.by_code:
            return cls.by_code[code]
        if status in cls.by_status:
            return cls.by_status[status]
        return ServerError if status >= 500 else ResponseError


class AuthenticationError(ResponseError, codes=["PGRST301", "PGRST302", "PGRST303"], statuses=[401]):
    """The server does not accept the key or the access token: it is wrong, or has expired."""


class PermissionDenied(ResponseError, codes=["42501"], statuses=[403]):
    """This key or user may not do that."""


class NotFound(ResponseError, statuses=[404]):
    """There is nothing at that URL."""


class FunctionsNotInstalled(ResponseError, codes=["PGRST202", "PGRST205", "42P01"]):
    """The database of this project does not have supabase-chunks installed."""


class RequestTooLarge(ResponseError, statuses=[413]):
    """The request is larger than the server takes."""


class RateLimited(ResponseError, statuses=[429]):
    """The server asks for fewer requests."""

    retryable = True


class ServerError(ResponseError):
    """The server failed."""


# With a code: PostgreSQL is shutting down, crashed or starting, has too many connections, or broke a deadlock
# by undoing this statement. PostgREST gives some of them as 500.
class ServerUnavailable(
    ServerError,
    codes=["57P01", "57P02", "57P03", "53300", "40P01", "40001"],
    statuses=[502, 503, 504, 520, 521, 522, 523, 524],
):
    """The server is not available at the moment."""

    retryable = True


class UnexpectedResponse(ResponseError):
    """The server's answer is not what was asked for."""


class StatementTimeout(ResponseError, codes=["57014", "55P03"]):
    """The database stopped the call at its time limit, or while it waited for a lock that somebody holds."""

    retryable = True


class DatabaseReadOnly(ResponseError, codes=["25006"]):
    """The database takes no writes at the moment; Supabase sets it so when the disk is full."""

    retryable = True


class JobNotFound(ResponseError, codes=["SC001"]):
    """There is no such sync job, or it belongs to somebody else."""


class UnknownKind(ResponseError, codes=["SC002"]):
    """There is no such kind of sync; `client.save_kind()` adds one."""


class InvalidArgument(ResponseError, codes=["SC003"]):
    """An argument is not valid."""


class LimitExceeded(ResponseError, codes=["SC004"]):
    """A limit is exceeded."""


class InvalidState(ResponseError, codes=["SC005"]):
    """That is not possible in the job's present state."""


class NotConfigured(ResponseError, codes=["SC006"]):
    """The project lacks a setting; `supabase-chunks configure` makes it."""
