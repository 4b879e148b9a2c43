"""The queue in Python: what the database must have done, in a hundred lines instead of three thousand."""

from __future__ import annotations

from dataclasses import dataclass, field

OPEN = ("pending", "processing")
ACTIVE = ("pending", "running")
GIVEN_BACK_AT_MOST = 10


@dataclass
class Chunk:
    """A chunk as it should be."""

    status: str = "pending"
    attempts: int = 0
    given_back: int = 0
    failed_once: bool = False
    token: str | None = None
    ready_in: float = 0
    lease_left: float = 0
    lease: int = 0
    chunk_id: int = 0


@dataclass
class Job:
    """A job as it should be."""

    cap: int
    max_retries: int
    sealed: bool
    key: str | None
    chunks: list[Chunk]
    status: str = "pending"
    started: bool = False
    finishes: int = 0
    # token → the outcome that its report got, or would get now
    outcomes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """A job without chunks is done at once."""
        self.settle()

    def count(self, *states: str) -> int:
        """How many chunks are in these states."""
        return sum(chunk.status in states for chunk in self.chunks)

    @property
    def retrying(self) -> int:
        """Open chunks that have failed."""
        return sum(chunk.status in OPEN and chunk.failed_once for chunk in self.chunks)

    def due(self) -> list[Chunk]:
        """Pending chunks that wait for nothing but a slot."""
        return [chunk for chunk in self.chunks if chunk.status == "pending" and chunk.ready_in <= 0]

    def must_give(self) -> bool:
        """Whether a claim must find a chunk, even if all that is in backoff holds slots."""
        in_backoff = self.count("pending") - len(self.due())
        room = self.cap - self.count("processing") - in_backoff
        return self.status in ACTIVE and bool(self.due()) and room > 0

    def claim(self, chunk: Chunk, token: str, lease: int) -> None:
        """A worker took it."""
        assert self.status in ACTIVE, self.status
        assert chunk in self.due(), "claimed before its time, or twice"
        assert self.count("processing") < self.cap
        self.status, self.started = "running", True
        chunk.status, chunk.token, chunk.lease, chunk.lease_left = "processing", token, lease, lease
        chunk.attempts += 1

    def complete(self, chunk: Chunk, added: int) -> str:
        """Its worker reported success."""
        assert chunk.token
        chunk.status = self.outcomes[chunk.token] = "completed"
        self.chunks += [Chunk() for _ in range(added)]
        self.settle()
        return "completed"

    def fail(self, chunk: Chunk, *, retryable: bool = True, after: int = 0, lost: bool = False) -> str:
        """Its worker reported a failure, or is gone."""
        assert chunk.token
        retry = retryable and chunk.attempts <= self.max_retries
        outcome = "retrying" if retry else "failed"
        self.outcomes[chunk.token] = "lost" if lost else outcome
        chunk.failed_once = True
        if retry:
            chunk.status, chunk.token, chunk.ready_in = "pending", None, after
        else:
            chunk.status = "failed"
        self.settle()
        return outcome

    def give_back(self, chunk: Chunk) -> str:
        """Its worker gave it back."""
        assert chunk.token
        if chunk.given_back >= GIVEN_BACK_AT_MOST:
            return self.fail(chunk)
        self.outcomes[chunk.token] = "released"
        chunk.status, chunk.token, chunk.ready_in = "pending", None, 0
        chunk.attempts -= 1
        chunk.given_back += 1
        return "released"

    def settle(self) -> None:
        """The last open chunk ends a sealed job."""
        if self.sealed and self.status in (*ACTIVE, "paused") and not self.count(*OPEN):
            self.status = "failed" if self.count("failed") else "completed"
            self.finishes += 1

    def cancel(self) -> None:
        """Everything open ends."""
        if self.status != "cancelled":
            for chunk in self.chunks:
                if chunk.status in OPEN:
                    if chunk.token:
                        self.outcomes[chunk.token] = "cancelled"
                    chunk.status = "cancelled"
            self.status = "cancelled"
            self.finishes += 1

    def retry_failed(self) -> None:
        """The failed ones begin anew."""
        for chunk in self.chunks:
            if chunk.status == "failed":
                chunk.status, chunk.attempts, chunk.given_back = "pending", 0, 0
                chunk.failed_once, chunk.token, chunk.ready_in = False, None, 0
        if self.status == "failed":
            self.status = "running"
            # Nothing had failed of which all is known: it is done again at once.
            self.settle()

    def pass_time(self, seconds: int) -> None:
        """The clock moves."""
        for chunk in self.chunks:
            chunk.ready_in -= seconds
            chunk.lease_left -= seconds
