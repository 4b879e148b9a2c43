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
    checkpoint: int | None = None
    # Whether it has saved a new one since it was claimed.
    advanced: bool = False
    token: str | None = None
    ready_in: float = 0
    lease_left: float = 0
    lease: int = 0
    chunk_id: int = 0


@dataclass
class Limit:
    """What jobs with one limit key share."""

    places: int
    blocked_for: float = 0
    jobs: list[Job] = field(default_factory=list)

    @property
    def room(self) -> int:
        """How many more of their chunks may be claimed now."""
        return 0 if self.blocked_for > 0 else self.places - sum(job.count("processing") for job in self.jobs)


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
    # What it leaves for the next one, where all keys' states are, and its number among the jobs with a key.
    next_state: dict[str, int] | None = None
    states: dict[str, tuple[int, dict[str, int]]] = field(default_factory=dict)
    number: int = 0
    limit: Limit | None = None
    # token → the outcome that its report got, or would get now
    outcomes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """A job without chunks is done at once."""
        if self.limit is not None:
            self.limit.jobs.append(self)
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
        room = self.slots_at_least() - self.count("processing") - in_backoff
        if self.limit is not None and self.limit.room <= 0:
            return False
        return self.status in ACTIVE and bool(self.due()) and room > 0

    def slots_at_least(self) -> int:
        """How many slots it has while it has so many chunks."""
        return self.cap if self.limit is None else min(self.cap, self.limit.places)

    def claim(self, chunk: Chunk, token: str, lease: int) -> None:
        """A worker took it."""
        assert self.status in ACTIVE, self.status
        assert chunk in self.due(), "claimed before its time, or twice"
        assert self.count("processing") < self.cap
        assert self.limit is None or self.limit.room > 0, (
            "more than its key has places, or while it is blocked"
        )
        self.status, self.started = "running", True
        chunk.status, chunk.token, chunk.lease, chunk.lease_left = "processing", token, lease, lease
        chunk.attempts += 1
        chunk.advanced = False

    def save(self, chunk: Chunk, checkpoint: int) -> None:
        """Its worker saved a checkpoint: a new one lets the attempts count anew."""
        if checkpoint != chunk.checkpoint:
            chunk.attempts, chunk.given_back, chunk.advanced = 1, 0, True
        chunk.checkpoint, chunk.lease_left = checkpoint, chunk.lease

    def complete(self, chunk: Chunk, added: int, state: dict[str, int] | None = None) -> str:
        """Its worker reported success."""
        assert chunk.token
        chunk.status = self.outcomes[chunk.token] = "completed"
        chunk.checkpoint = None
        if state is not None:
            self.next_state = (self.next_state or {}) | state
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

    def throttle(self, chunk: Chunk, seconds: int) -> str:
        """Its worker was told to wait: the chunk waits, and all that have its key."""
        assert chunk.token
        self.outcomes[chunk.token] = "throttled"
        chunk.status, chunk.token, chunk.ready_in = "pending", None, seconds
        chunk.attempts -= 1
        if self.limit is not None:
            self.limit.blocked_for = max(self.limit.blocked_for, min(seconds, 3600))
        return "throttled"

    def give_back(self, chunk: Chunk) -> str:
        """Its worker gave it back."""
        assert chunk.token
        if not chunk.advanced and chunk.given_back >= GIVEN_BACK_AT_MOST:
            return self.fail(chunk)
        self.outcomes[chunk.token] = "released"
        chunk.status, chunk.token, chunk.ready_in = "pending", None, 0
        chunk.attempts -= 1
        chunk.given_back += not chunk.advanced
        return "released"

    def settle(self) -> None:
        """The last open chunk ends a sealed job."""
        if self.sealed and self.status in (*ACTIVE, "paused") and not self.count(*OPEN):
            self.status = "failed" if self.count("failed") else "completed"
            self.finishes += 1
            if self.status == "completed" and self.key and self.next_state is not None:
                earlier, _ = self.states.get(self.key, (0, {}))
                if earlier < self.number:
                    self.states[self.key] = (self.number, self.next_state)

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

    def retry_failed(self, *, from_start: bool = False) -> None:
        """The failed ones begin anew, or go on."""
        for chunk in self.chunks:
            if chunk.status == "failed":
                chunk.status, chunk.attempts, chunk.given_back = "pending", 0, 0
                chunk.failed_once, chunk.token, chunk.ready_in = False, None, 0
                if from_start:
                    chunk.checkpoint = None
        if self.status == "failed":
            self.status = "running"
            # Nothing had failed of which all is known: it is done again at once.
            self.settle()

    def pass_time(self, seconds: int) -> None:
        """The clock moves."""
        for chunk in self.chunks:
            chunk.ready_in -= seconds
            chunk.lease_left -= seconds
