"""What a caller does, as a generator of calls and pauses: the same over SQL and over the SDK, sync and async."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from typing import Any

from tests.torture.steps import (
    AT_ONCE,
    EDGE_KIND,
    KIND,
    LEASE,
    LIMITS,
    Call,
    CallError,
    Steps,
    Together,
    next_chunks,
    payload,
)


class Caller:
    """One caller, until a moment of the monotonic clock."""

    def __init__(self, name: str, seed: str, *, until: float, jobs: int) -> None:
        """Take its name, its own seed, and how many jobs it may start."""
        self._draw = random.Random(f"{seed} {name}")
        self._name = name
        self._until = until
        # What is started has time to be worked on.
        self._last_start = until - 0.2 * (until - time.monotonic())
        self._may_start = jobs
        self._marks = 0
        self._jobs: list[str] = []
        self._unsealed: list[str] = []
        # Chunks that were claimed, and those of them that have gone on to others.
        self._taken: list[dict[str, Any]] = []
        self._gone: list[dict[str, Any]] = []

    def run(self) -> Steps:
        """Do one thing after the other; what is refused or lost is left at that. In the end only work."""
        choices: list[tuple[Callable[[], Steps], int]] = [
            (self._start, 6),
            (self._append, 5),
            (self._take_one, 30),
            (self._take_many, 14),
            (self._look, 14),
            (self._steer, 9),
            (self._limit, 3),
            (self._watch, 6),
            (self._haunt, 12),
            (self._meet, 16),
        ]
        steps, weights = [step for step, _ in choices], [weight for _, weight in choices]
        step: Callable[[], Steps] = self._start
        while True:
            try:
                yield from step()
            except CallError:
                yield self._draw.uniform(0.02, 0.1)
            if time.monotonic() < self._until:
                yield self._draw.uniform(0.0, 0.01)
                (step,) = self._draw.choices(steps, weights)
            else:
                yield self._draw.uniform(0.05, 0.2)
                step = self._take_many

    def _id(self) -> str:
        return str(uuid.UUID(int=self._draw.getrandbits(128), version=4))

    def _payloads(self, count: int) -> list[dict[str, Any]]:
        self._marks += count
        return [payload(self._draw, f"{self._name}.{self._marks - n}") for n in range(count)]

    def _insist(self, function: str, arguments: dict[str, Any], *, again: float = 0.1) -> Steps:
        """A call, repeated as it is when nobody said what came of it, and now and then without need."""
        call = Call(function, arguments)
        for _ in range(self._draw.choice([0, 1, 3])):
            try:
                answer = yield call
                break
            except CallError:
                yield self._draw.uniform(0.02, 0.2)
        else:
            answer = yield call
        if self._draw.random() < again:
            return (yield call)
        return answer

    def _start(self) -> Steps:
        if not self._may_start:
            return
        self._may_start -= 1
        sealed = self._draw.random() < 0.75
        job = yield from self._begin(
            self._draw.choice([1, 2, 4, 8, 16]),
            kind=self._draw.choice([KIND, KIND, EDGE_KIND]),
            max_concurrency=self._draw.randint(1, 4),
            max_retries=self._draw.choice([1, 3, 5]),
            sealed=sealed,
            limit_key=self._draw.choice([None, *LIMITS]),
        )
        if job is not None and not sealed:
            self._unsealed.append(job)

    def _begin(self, chunks: int, *, kind: str = KIND, limit_key: str | None = None, **more: Any) -> Steps:
        """Start a job, unless it is late; returns its id."""
        if time.monotonic() > self._last_start:
            return None
        arguments = {"kind": kind, "chunks": self._payloads(chunks), "request_id": self._id(), **more}
        if limit_key is not None:
            arguments["limit_key"] = limit_key
        job = str((yield from self._insist("start_sync_job", arguments))["id"])
        self._jobs.append(job)
        return job

    def _append(self) -> Steps:
        if not self._unsealed:
            return
        job, seal = self._draw.choice(self._unsealed), self._draw.random() < 0.3
        arguments = {
            "parent_sync_job_id": job,
            "chunks": self._payloads(self._draw.randint(1, 3)),
            "request_id": self._id(),
            "seal": seal,
        }
        if seal:
            self._unsealed.remove(job)
        yield from self._insist("append_sync_chunks", arguments)

    def _take_one(self) -> Steps:
        arguments: dict[str, Any] = {"worker_id": self._name, "claim_id": self._id(), "kinds": [KIND]}
        if self._jobs and self._draw.random() < 0.2:
            arguments["parent_sync_job_id"] = self._draw.choice(self._jobs)
            arguments["kinds"] = [KIND, EDGE_KIND]
        chunk = yield from self._insist("claim_next_chunk_job_safe", arguments)
        if not chunk:
            yield from self._start()
        while chunk:
            chunk = yield from self._work(chunk[0] if isinstance(chunk, list) else chunk)

    def _work(self, chunk: dict[str, Any]) -> Steps:
        """Work on a chunk; returns the one that came with the answer."""
        asked, fate = chunk["payload"], self._draw.random()
        self._taken.append(chunk)
        yield asked.get("ms", 0) / 1000
        name = {"chunk_id": chunk["chunk_id"], "claim_token": str(chunk["claim_token"])}
        if fate < 0.02:
            return None
        if fate < 0.05:
            yield LEASE * self._draw.uniform(0.8, 1.5)
        if fate < 0.15:
            yield Call("extend_chunk_lease", {**name, "items_processed": 1})
            yield self._draw.uniform(0, 0.1)
        if fate > 0.95:
            self._gone.append(chunk)
            yield from self._insist("release_chunk_job", name)
            return None
        arguments = name | self._said(chunk) | {"claim_next": self._draw.random() < 0.4}
        answer = yield from self._insist("complete_chunk_job_safe", arguments, again=0.2)
        if answer["chunk_status"] == "pending":
            self._gone.append(chunk)
        return answer.get("next")

    def _said(self, chunk: dict[str, Any]) -> dict[str, Any]:
        asked = chunk["payload"]
        if chunk["attempt"] <= asked.get("fails", 0):
            return {"success": False, "error": "as the chunk asks"}
        if asked.get("throttled") and self._draw.random() < 0.5:
            return {"success": False, "error": "too many", "throttled_seconds": 1}
        said = {"success": True, "result": {"m": asked["m"]}, "items_processed": asked["items"]}
        return said | ({"next_chunks": following} if (following := next_chunks(asked)) else {})

    def _take_many(self) -> Steps:
        arguments = {
            "worker_id": self._name,
            "batch_size": self._draw.randint(2, 6),
            "kinds": [KIND],
            "claim_id": self._id(),
        }
        chunks = yield from self._insist("claim_chunk_jobs_safe", arguments)
        if not chunks:
            return
        self._taken += chunks
        names = [
            {"chunk_id": chunk["chunk_id"], "claim_token": str(chunk["claim_token"])} for chunk in chunks
        ]
        if self._draw.random() < 0.3:
            yield Call("extend_chunk_leases", {"leases": names})
        yield sum(chunk["payload"].get("ms", 0) for chunk in chunks) / 1000
        said = [name | self._said(chunk) for name, chunk in zip(names, chunks, strict=True)]
        yield from self._insist("complete_chunk_jobs_safe", {"completions": said}, again=0.2)

    def _meet(self) -> Steps:
        """End the last chunks of a small job at the same moment, or chunks of one while it is steered."""
        job = yield from self._begin(
            self._draw.choice([2, 2, 3]), max_concurrency=AT_ONCE, max_retries=1, sealed=True
        )
        if job is None:
            return
        named = {"worker_id": self._name, "batch_size": AT_ONCE, "kinds": [KIND], "parent_sync_job_id": job}
        chunks = yield Call("claim_chunk_jobs_safe", named)
        self._taken += chunks
        calls = [
            Call(
                "complete_chunk_job_safe",
                {"chunk_id": chunk["chunk_id"], "claim_token": str(chunk["claim_token"])} | self._said(chunk),
            )
            for chunk in chunks
        ]
        steering = self._draw.choice([None, None, "pause_sync_job", "cancel_sync_job", "append_sync_chunks"])
        if steering is not None:
            more = (
                {"chunks": self._payloads(1), "request_id": self._id()}
                if steering == "append_sync_chunks"
                else {}
            )
            calls[-1:] = [Call(steering, {"parent_sync_job_id": job} | more)]
        yield Together(tuple(calls))
        if steering == "pause_sync_job":
            yield from self._insist("resume_sync_job", {"parent_sync_job_id": job})

    def _haunt(self) -> Steps:
        """Say something of a chunk that was claimed some time ago, whoever has it now."""
        if not self._taken:
            return
        chunk = self._draw.choice(self._gone[-6:] or self._taken[-12:])
        name = {"chunk_id": chunk["chunk_id"], "claim_token": str(chunk["claim_token"])}
        what = self._draw.choice(["report", "report", "release", "heartbeat"])
        if what == "report":
            yield Call("complete_chunk_job_safe", name | self._said(chunk) | {"claim_next": False})
        elif what == "release":
            yield Call("release_chunk_job", name)
        else:
            yield Call("extend_chunk_lease", name)

    def _look(self) -> Steps:
        if self._jobs:
            yield Call("get_sync_job_progress_safe", {"parent_sync_job_id": self._draw.choice(self._jobs)})

    def _steer(self) -> Steps:
        if not self._jobs:
            return
        # More often a late one, which runs.
        job = {"parent_sync_job_id": self._draw.choice(self._jobs[-3:])}
        what = self._draw.choice(["pause", "pause", "retry", "retry", "cancel"])
        if what == "retry":
            yield Call("retry_failed_chunks", job)
        elif what == "cancel" and self._draw.random() < 0.5:
            yield from self._insist("cancel_sync_job", job)
        elif what == "pause":
            yield from self._insist("pause_sync_job", job)
            yield self._draw.uniform(0.2, 0.6)
            yield from self._insist("resume_sync_job", job)

    def _limit(self) -> Steps:
        """Change a limit; or block one, and ask all the same for a chunk of it."""
        if self._draw.random() < 0.4:
            yield Call(
                "save_sync_limit", {"key": "wide", "max_concurrency": self._draw.randint(1, LIMITS["wide"])}
            )
            return
        seconds = self._draw.choice([0, *[1] * 7, 2, 2])
        yield Call("block_sync_limit", {"key": "narrow", "seconds": seconds, "reason": "try later"})
        job = yield from self._begin(1, limit_key="narrow", max_concurrency=1, max_retries=1, sealed=True)
        if job is not None:
            chunk = yield Call(
                "claim_next_chunk_job_safe",
                {"worker_id": self._name, "kinds": [KIND], "parent_sync_job_id": job},
            )
            if chunk:
                yield from self._work(chunk[0] if isinstance(chunk, list) else chunk)

    def _watch(self) -> Steps:
        yield Call("cleanup_stuck_chunks", {})
