"""Starting a job: what is sent first, and what with each further page of its chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from . import operations, reads
from ._encode import JSON, encode, encode_object
from ._secrets import shown
from .errors import PayloadError

if TYPE_CHECKING:
    from ._flow import Flow
    from .models import Progress


class Trigger:
    """One `trigger_sync`: the arguments, checked, and the job once it is there.

    The request ids are made here, once, so that a request repeated after a lost reply changes nothing.
    """

    def __init__(self, kind: str, *, payload: object, owner_id: UUID | str | None, **options: Any) -> None:
        """Check and encode what goes into the first request.

        Raises:
            PayloadError: The payload, the kind or an option such as job_key cannot be sent.
        """
        self._progress: Progress | None = None
        encode(kind, "kind")
        self._kind = kind
        self._request_id = uuid4()
        self._payload = None if payload is None else encode_object(payload, "payload")
        self._owner_id = None if owner_id is None else as_uuid(owner_id, "owner_id")
        for name, value in options.items():
            encode(value, name)
        self._options = options

    def send(self, page: list[JSON] | None, *, last: bool) -> Flow[Progress]:
        """Start the job with the first page, or append a further one; seal it with the last."""
        if self._progress is None:
            started = yield from operations.start_sync_job(
                kind=self._kind,
                chunks=page,
                payload=self._payload,
                owner_id=self._owner_id,
                request_id=self._request_id,
                sealed=None if last else False,
                **self._options,
            )
            if not started.created:
                # Running already under its job_key, or made by our own request whose reply was lost?
                ours = yield from reads.made_by(job_id=started.id, request_id=self._request_id)
                started = started.model_copy(update={"created": ours})
            self._progress = started
            return started
        appended = yield from operations.append_sync_chunks(
            parent_sync_job_id=self._progress.id, chunks=page or [], request_id=uuid4(), seal=last
        )
        self._progress = appended.model_copy(update={"created": True})
        return self._progress

    @property
    def started(self) -> Progress:
        """The job as the last answer gave it."""
        if self._progress is None:
            raise AssertionError("nothing has been sent yet")
        return self._progress

    @property
    def unfinished(self) -> bool:
        """Whether there is a job of ours, so that an error now leaves it half made."""
        return self._progress is not None and not self.joined

    @property
    def joined(self) -> bool:
        """Whether the start found a job that was running already, with its own chunks instead of ours."""
        return self._progress is not None and not self._progress.created

    def cancel(self) -> Flow[Progress]:
        """End a job whose chunks could not all be given: it would wait for the rest for ever."""
        return (yield from operations.cancel_sync_job(parent_sync_job_id=self.started.id))

    def half_made(self) -> str:
        """Return the note for the error that interrupted it."""
        return f"The sync job {self.started.id} had some of its chunks by then and was cancelled."


def as_uuid(value: UUID | str, name: str) -> UUID:
    """Return an id given as a UUID or as its text."""
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except (ValueError, AttributeError, TypeError):
        raise PayloadError(f"{shown(value)} is not a UUID", path=name) from None
