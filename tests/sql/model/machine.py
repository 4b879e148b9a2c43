"""The moves of the game: everything that can be done to the queue, with what the model says comes of it."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from tests.sql.database import Database
from tests.sql.model.board import Board
from tests.sql.model.damage import BY_HAND, OF_A_JOB_THAT_GOES_ON
from tests.sql.model.expected import ACTIVE, Chunk, Job

KIND = "model"
LEASES = (150, 650)
PICK = st.integers(0, 1000)
CHECKPOINT = st.none() | st.integers(1, 3)


class QueueMachine(Board):
    """The rules that hypothesis picks from."""

    # Starting and appending

    @rule(
        size=st.integers(0, 4),
        cap=st.integers(1, 3),
        retries=st.integers(0, 2),
        sealed=st.booleans() | st.just(True),
        key=st.sampled_from([None, None, "a", "b"]),
        priority=st.integers(-1, 1),
        limit=st.sampled_from([None, None, "x", "y"]),
    )
    @precondition(lambda self: len(self.jobs) < 4)
    def start(
        self,
        size: int,
        cap: int,
        retries: int,
        sealed: bool,
        key: str | None,
        priority: int,
        limit: str | None,
    ) -> None:
        """Start a job, or get the one with its key."""
        answer = self.session.start(
            KIND,
            chunks=[{"n": n} for n in range(size)],
            max_concurrency=cap,
            max_retries=retries,
            sealed=sealed,
            job_key=key,
            priority=priority,
            limit_key=limit,
        )
        active = [
            job_id
            for job_id, job in self.jobs.items()
            if key and job.key == key and job.status in (*ACTIVE, "paused")
        ]
        assert answer["created"] is (not active)
        if active:
            assert answer["id"] == active[0]
        else:
            self.started += 1
            chunks = [Chunk() for _ in range(size)]
            self.jobs[answer["id"]] = Job(
                cap,
                retries,
                sealed,
                key,
                chunks,
                states=self.states,
                number=self.started,
                limit=self.limits[limit] if limit else None,
            )

    @rule(pick=PICK, size=st.integers(0, 3), seal=st.booleans(), repeat=st.booleans())
    @precondition(lambda self: self.jobs)
    def append(self, pick: int, size: int, seal: bool, repeat: bool) -> None:
        """Append a page, perhaps twice, perhaps the last one."""
        job_id, job = self.job(pick)
        arguments = {
            "parent_sync_job_id": job_id,
            "chunks": [{}] * size,
            "request_id": uuid.uuid4(),
            "seal": seal,
        }
        if job.status not in (*ACTIVE, "paused"):
            self.impossible(lambda: self.session.call("append_sync_chunks", **arguments))
            return
        for _ in range(1 + repeat):
            self.session.call("append_sync_chunks", **arguments)
        job.chunks += [Chunk() for _ in range(size)]
        job.sealed = job.sealed or seal
        job.settle()

    # Claiming

    @rule(pick=st.none() | PICK, lease=st.sampled_from(LEASES), repeat=st.booleans())
    @precondition(lambda self: self.jobs)
    def claim(self, pick: int | None, lease: int, repeat: bool) -> None:
        """Claim one, of any job or of one; the same claim again brings the same."""
        job_id = None if pick is None else self.job(pick)[0]
        claim_id = uuid.uuid4()
        row = self.session.claim(job_id, kinds=[KIND], lease_seconds=lease, claim_id=claim_id)
        if row is None:
            among = [self.jobs[job_id]] if job_id else self.jobs.values()
            assert not any(job.must_give() for job in among) or self.others_go_first(job_id), (
                "nothing was found, though something is claimable"
            )
            return
        self.took(row, lease)
        if repeat:
            assert self.session.claim(job_id, kinds=[KIND], lease_seconds=lease, claim_id=claim_id) == row

    def others_go_first(self, job_id: str | None) -> bool:
        """Whether all the room of a job's limit key is for others: just woken, or asked for by id and older."""
        limit = self.jobs[job_id].limit if job_id else None
        return limit is not None and limit.room <= self.session.value(
            "select count(*) from chunk_private.slots o join chunk_private.slots s on s.limit_key = o.limit_key"
            " where o.job_id = %s and o.chunk_index = (select min(m.chunk_index) from chunk_private.slots m where m.job_id = o.job_id)"
            " and s.job_id <> o.job_id and not s.claimed and s.ready_at <= now() and case when s.parked"
            " then s.job_id in (select k.job_id from chunk_private.limit_seekers k where k.asked_at > now() - interval '3 seconds')"
            " else s.ready_at > now() - interval '3 seconds' end",
            job_id,
        )

    @rule(size=st.integers(1, 5), lease=st.sampled_from(LEASES))
    @precondition(lambda self: self.jobs)
    def claim_a_batch(self, size: int, lease: int) -> None:
        """Claim several at once."""
        batch = self.session.call(
            "claim_chunk_jobs_safe", worker_id="w", batch_size=size, kinds=[KIND], lease_seconds=lease
        )
        assert len(batch) <= size
        for row in batch:
            self.took(row, lease)
        if len(batch) < size:
            assert not any(job.must_give() for job in self.jobs.values())

    # Reporting

    @rule(
        pick=PICK,
        added=st.integers(0, 2),
        claim_next=st.booleans(),
        state=st.none() | st.dictionaries(st.sampled_from("ab"), st.integers(0, 3), max_size=2),
    )
    @precondition(lambda self: self.claims)
    def complete(self, pick: int, added: int, claim_next: bool, state: dict[str, int] | None) -> None:
        """Report success, by a token that holds or one that no longer does."""
        job, chunk, row = self.a_claim(pick)
        holds = chunk.token == str(row["claim_token"]) and chunk.status == "processing"
        expected = job.complete(chunk, added, state) if holds else self.known(job, row)
        answer = self.session.complete(row, next_chunks=[{}] * added, claim_next=claim_next, next_state=state)
        self.check_report(answer, expected, job)
        self.follow(job, chunk, answer, asked=claim_next and holds, first=holds)

    @rule(
        pick=PICK,
        retryable=st.booleans() | st.just(True),
        after=st.sampled_from([0, 0, 350]),
        claim_next=st.booleans(),
    )
    @precondition(lambda self: self.claims)
    def fail(self, pick: int, retryable: bool, after: int, claim_next: bool) -> None:
        """Report a failure."""
        job, chunk, row = self.a_claim(pick)
        holds = chunk.token == str(row["claim_token"]) and chunk.status == "processing"
        expected = job.fail(chunk, retryable=retryable, after=after) if holds else self.known(job, row)
        answer = self.session.fail(row, retryable=retryable, retry_after_seconds=after, claim_next=claim_next)
        self.check_report(answer, expected, job)
        self.follow(job, chunk, answer, asked=claim_next and holds, first=holds)

    @rule(pick=PICK, seconds=st.sampled_from([0, 150, 350]), claim_next=st.booleans())
    @precondition(lambda self: self.claims)
    def throttled(self, pick: int, seconds: int, claim_next: bool) -> None:
        """Report that what the chunk works on has asked for a pause."""
        job, chunk, row = self.a_claim(pick)
        holds = chunk.token == str(row["claim_token"]) and chunk.status == "processing"
        expected = job.throttle(chunk, seconds) if holds else self.known(job, row)
        answer = self.session.fail(row, throttled_seconds=seconds, claim_next=claim_next)
        self.check_report(answer, expected, job)
        self.follow(job, chunk, answer, asked=claim_next and holds, first=holds)

    # Limits

    @rule(key=st.sampled_from("xy"), places=st.integers(1, 4))
    def save_limit(self, key: str, places: int) -> None:
        """More places, or fewer."""
        self.session.call("save_sync_limit", key=key, max_concurrency=places)
        self.limits[key].places = places

    @rule(key=st.sampled_from("xy"), seconds=st.sampled_from([0, 150, 350]))
    def block_limit(self, key: str, seconds: int) -> None:
        """Block a key, or end it."""
        self.session.call("block_sync_limit", key=key, seconds=seconds)
        self.limits[key].blocked_for = seconds

    @rule(picks=st.lists(st.tuples(PICK, st.booleans()), min_size=1, max_size=5))
    @precondition(lambda self: self.claims)
    def report_in_bulk(self, picks: list[tuple[int, bool]]) -> None:
        """Several reports in one call; those that no longer hold among them."""
        reports: list[dict[str, Any]] = []
        expected: list[str] = []
        for pick, success in picks:
            job, chunk, row = self.a_claim(pick)
            if any(report["chunk_id"] == row["chunk_id"] for report in reports):
                continue
            holds = chunk.token == str(row["claim_token"]) and chunk.status == "processing"
            if not holds:
                expected.append(self.known(job, row))
            else:
                expected.append(job.complete(chunk, 0) if success else job.fail(chunk))
            token = str(row["claim_token"])
            reports.append(
                {
                    "chunk_id": row["chunk_id"],
                    "claim_token": token,
                    "success": success,
                    "retry_after_seconds": 0,
                }
            )
        answers = self.session.call("complete_chunk_jobs_safe", completions=reports)
        assert [answer["chunk_id"] for answer in answers] == [report["chunk_id"] for report in reports]
        assert [answer["outcome"] for answer in answers] == expected

    @rule(pick=PICK, checkpoint=CHECKPOINT)
    @precondition(lambda self: self.claims)
    def give_back(self, pick: int, checkpoint: int | None) -> None:
        """Give a chunk back, perhaps with a checkpoint."""
        job, chunk, row = self.a_claim(pick)
        holds = chunk.token == str(row["claim_token"]) and chunk.status == "processing"
        if holds and checkpoint is not None:
            job.save(chunk, checkpoint)
        expected = job.give_back(chunk) if holds else self.known(job, row, released="released")
        given = self.session.give_back(row, checkpoint=None if checkpoint is None else {"at": checkpoint})
        assert given["outcome"] == expected

    @rule(pick=PICK, checkpoint=CHECKPOINT)
    @precondition(lambda self: self.claims)
    def extend(self, pick: int, checkpoint: int | None) -> None:
        """Send a heartbeat, perhaps with a checkpoint."""
        job, chunk, row = self.a_claim(pick)
        holds = chunk.token == str(row["claim_token"]) and chunk.status == "processing"
        beat = self.session.extend(row, checkpoint=None if checkpoint is None else {"at": checkpoint})
        assert beat["ok"] is holds
        assert beat["cancel_requested"] is (job.outcomes.get(str(row["claim_token"])) == "cancelled")
        if holds:
            chunk.lease_left = chunk.lease
            if checkpoint is not None:
                job.save(chunk, checkpoint)

    # Time and the watchdog

    @rule(seconds=st.sampled_from([200, 400]))
    @precondition(lambda self: self.jobs)
    def pass_time(self, seconds: int) -> None:
        """Time passes."""
        self.session.pass_time(timedelta(seconds=seconds))
        for job in self.jobs.values():
            job.pass_time(seconds)
        for limit in self.limits.values():
            limit.blocked_for -= seconds

    @rule()
    @precondition(lambda self: self.jobs)
    def watchdog(self) -> None:
        """One pass: what has lost its lease comes back."""
        lost = self.lose_workers()
        assert self.session.cleanup() == lost

    def lose_workers(self) -> int:
        """Those whose leases are over; returns how many chunks come back."""
        recovered = 0
        for job in self.jobs.values():
            for chunk in job.chunks:
                if chunk.status == "processing" and chunk.lease_left < 0:
                    job.fail(chunk, lost=True)
                    recovered += 1
        return recovered

    @rule(pick=PICK, what=st.sampled_from(sorted(BY_HAND)))
    @precondition(lambda self: any(job.status in (*ACTIVE, "paused") for job in self.jobs.values()))
    def heal(self, pick: int, what: str) -> None:
        """Somebody does by hand what should not be, and a pass puts it right; the next one has nothing to heal."""
        states = ACTIVE if what in OF_A_JOB_THAT_GOES_ON else (*ACTIVE, "paused")
        if active := [job_id for job_id, job in self.jobs.items() if job.status in states]:
            self.admin.execute(BY_HAND[what], active[pick % len(active)])
        # A chunk whose slot is gone is seen by the first pass, and taken back by the second.
        lost = self.lose_workers()
        assert self.session.cleanup() + self.session.cleanup() == lost
        healed = "select count(*) from chunk_private.healings"
        before = self.session.value(healed)
        self.session.cleanup()
        assert self.session.value(healed) == before

    # Steering

    @rule(
        pick=PICK,
        action=st.sampled_from(
            ["cancel_sync_job", "pause_sync_job", "resume_sync_job", "retry_failed_chunks"]
        ),
        from_start=st.booleans(),
    )
    @precondition(lambda self: self.jobs)
    def steer(self, pick: int, action: str, from_start: bool) -> None:
        """Cancel, pause, resume or retry."""
        job_id, job = self.job(pick)
        another = job.key and any(
            other is not job and other.key == job.key and other.status in (*ACTIVE, "paused")
            for other in self.jobs.values()
        )
        possible = {
            "cancel_sync_job": job.status not in ("completed", "failed"),
            "pause_sync_job": job.status in (*ACTIVE, "paused"),
            "resume_sync_job": job.status in (*ACTIVE, "paused"),
            "retry_failed_chunks": job.status in (*ACTIVE, "paused")
            or (job.status == "failed" and not another),
        }
        if not possible[action]:
            self.impossible(lambda: self.session.control(action, job_id))
            return
        choice = {"from_start": from_start} if action == "retry_failed_chunks" else {}
        self.session.call(action, parent_sync_job_id=job_id, **choice)
        if action == "cancel_sync_job":
            job.cancel()
        elif action == "retry_failed_chunks":
            job.retry_failed(from_start=from_start)
        elif action == "pause_sync_job":
            job.status = "paused"
        elif job.status == "paused":
            job.status = "running" if job.started else "pending"


def play(db: Database, *, examples: int, steps: int) -> None:
    """Run the machine on a database."""
    session = db.connect()
    session.call("save_sync_kind", kind=KIND, max_concurrency=4, retry_delay_seconds=0)
    machine = type("Machine", (QueueMachine,), {"session": session, "admin": db.connect("supabase_admin")})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
