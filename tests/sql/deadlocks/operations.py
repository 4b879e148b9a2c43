"""Every operation that touches a job, on a job that has something for each of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from tests.sql.database import Row, Session

HOUR = timedelta(hours=1)


class Scene:
    """A job with claimed, waiting, failed, returned and fresh chunks."""

    limit_key: str | None = None

    def __init__(self, session: Session) -> None:
        self.key = str(uuid.uuid4())
        self.job: str = session.start(
            "web", chunks=[{}] * 8, max_concurrency=5, job_key=self.key, limit_key=self.limit_key
        )["id"]
        session.fail(session.claimed(self.job, kinds=None), retryable=False)
        self.held = [session.claimed(self.job, kinds=None) for _ in range(4)]
        # The last one's worker is gone; no heartbeat came for an hour.
        self.lost = self.held[3]
        session.execute(
            "update public.chunk_processing_queue q set locked_until = now() - interval '1 s', updated_at = now() - interval '1 h'"
            " where q.id = %s",
            self.lost["chunk_id"],
        )


class LimitedScene(Scene):
    """The same with a limit key, which another job has too: nothing of that one is claimed."""

    limit_key = "api.example.com"

    def __init__(self, session: Session) -> None:
        session.call("block_sync_limit", key=self.limit_key, seconds=0)
        session.call("save_sync_limit", key=self.limit_key, max_concurrency=5)
        super().__init__(session)
        self.other: str = session.start("web", chunks=[{}] * 3, limit_key=self.limit_key, priority=1)["id"]


Operation = Callable[[Session, Scene, int], Any]


def _reports(chunks: list[Row], **report: Any) -> list[dict[str, Any]]:
    return [{"chunk_id": c["chunk_id"], "claim_token": str(c["claim_token"])} | report for c in chunks]


# Each takes the scene and which of the held chunks is "its own".
OPERATIONS: dict[str, Operation] = {
    "claim": lambda s, _scene, _mine: s.claim(kinds=None),
    "claim by job": lambda s, scene, _mine: s.claim(scene.job, kinds=None),
    "claim a batch": lambda s, _scene, _mine: s.call("claim_chunk_jobs_safe", worker_id="w", batch_size=10),
    "complete": lambda s, scene, mine: s.complete(scene.held[mine]),
    "complete and claim": lambda s, scene, mine: s.complete(scene.held[mine], claim_next=True),
    "complete and append": lambda s, scene, mine: s.complete(scene.held[mine], next_chunks=[{}, {}]),
    "fail": lambda s, scene, mine: s.fail(scene.held[mine]),
    "fail for good": lambda s, scene, mine: s.fail(scene.held[mine], retryable=False),
    "complete in bulk": lambda s, scene, _mine: s.call(
        "complete_chunk_jobs_safe", completions=_reports(scene.held[2::-1])
    ),
    "append in bulk": lambda s, scene, _mine: s.call(
        "complete_chunk_jobs_safe", completions=_reports(scene.held[:3], next_chunks=[{}])
    ),
    "fail in bulk": lambda s, scene, _mine: s.call(
        "complete_chunk_jobs_safe", completions=_reports(scene.held[:3], success=False)
    ),
    "throttle": lambda s, scene, mine: s.fail(scene.held[mine], throttled_seconds=0),
    "extend": lambda s, scene, mine: s.extend(scene.held[mine]),
    "extend in bulk": lambda s, scene, _mine: s.call(
        "extend_chunk_leases", leases=_reports(scene.held[::-1])
    ),
    "save a checkpoint": lambda s, scene, mine: s.extend(scene.held[mine], checkpoint={"n": 1}),
    "give back": lambda s, scene, mine: s.give_back(scene.held[mine]),
    "give back and go on": lambda s, scene, mine: s.give_back(
        scene.held[mine], checkpoint={"n": 1}, items_processed=5
    ),
    "complete and leave state": lambda s, scene, mine: s.complete(scene.held[mine], next_state={"n": 1}),
    "save the state": lambda s, scene, _mine: s.call(
        "save_sync_state", kind="web", job_key=scene.key, state={"n": 2}
    ),
    "watchdog": lambda s, _scene, _mine: s.cleanup(stuck_after=HOUR / 2),
    "cancel": lambda s, scene, _mine: s.control("cancel_sync_job", scene.job),
    "pause": lambda s, scene, _mine: s.control("pause_sync_job", scene.job),
    "resume": lambda s, scene, _mine: s.control("resume_sync_job", scene.job),
    "retry failed": lambda s, scene, _mine: s.control("retry_failed_chunks", scene.job),
    "retry from start": lambda s, scene, _mine: s.call(
        "retry_failed_chunks", parent_sync_job_id=scene.job, from_start=True
    ),
    "append": lambda s, scene, _mine: s.call(
        "append_sync_chunks", parent_sync_job_id=scene.job, chunks=[{}], request_id=uuid.uuid4()
    ),
    "trigger": lambda s, scene, _mine: s.call("trigger_next_chunk_processing", parent_sync_job_id=scene.job),
    "progress": lambda s, scene, _mine: s.progress(scene.job),
    "purge": lambda s, _scene, _mine: s.call("purge_sync_jobs", older_than=timedelta(0)),
}
# What concerns limits, on a job that has some; `other` is one that shares them.
ON_LIMITS: dict[str, Operation] = {
    "throttle and block": lambda s, scene, mine: s.fail(scene.held[mine], throttled_seconds=1),
    "throttle in bulk": lambda s, scene, _mine: s.call(
        "complete_chunk_jobs_safe", completions=_reports(scene.held[:3], success=False, throttled_seconds=1)
    ),
    "block": lambda s, scene, _mine: s.call("block_sync_limit", key=scene.limit_key, seconds=1),
    "save the limit": lambda s, scene, _mine: s.call(
        "save_sync_limit", key=scene.limit_key, max_concurrency=7
    ),
    "pace": lambda s, scene, _mine: s.call("pace_sync_limit", key=scene.limit_key),
    "start another": lambda s, scene, _mine: s.start("web", chunks=[{}] * 2, limit_key=scene.limit_key),
    "cancel the other": lambda s, scene, _mine: s.control("cancel_sync_job", scene.other),  # type: ignore[attr-defined]  # a LimitedScene
    "append to the other": lambda s, scene, _mine: s.call(
        "append_sync_chunks",
        parent_sync_job_id=scene.other,  # type: ignore[attr-defined]
        chunks=[{}],
    ),
}
ON_ONE_CHUNK = {
    *(
        "complete",
        "complete and claim",
        "complete and append",
        "fail",
        "fail for good",
        "throttle",
        "extend",
        "save a checkpoint",
        "give back",
        "give back and go on",
    ),
}
