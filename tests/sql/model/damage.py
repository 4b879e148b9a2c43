"""What somebody may do to the queue by hand, that one pass of the watchdog sees and puts right; no chunk's state is touched."""

from __future__ import annotations

_ONE = "(select s.ctid from chunk_private.slots s where s.job_id = %s and {} order by s.chunk_index limit 1)"
_CLAIMED, _WAITING = _ONE.format("s.claimed"), _ONE.format("not s.claimed")

# Not of a paused job: how many slots it should have is seen only when it goes on.
OF_A_JOB_THAT_GOES_ON = {"a claimed slot is deleted", "all slots are deleted"}
# Each of a job that has not ended, named by %s.
BY_HAND = {
    "a claimed slot is deleted": f"delete from chunk_private.slots where ctid = {_CLAIMED}",
    "a waiting slot is deleted": f"delete from chunk_private.slots where ctid = {_WAITING}",
    "a slot is claimed by nobody": f"update chunk_private.slots set claimed = true where ctid = {_WAITING}",
    "a claimed slot is freed": f"update chunk_private.slots set claimed = false where ctid = {_CLAIMED}",
    "a slot is for an ended chunk": (
        "insert into chunk_private.slots (job_id, chunk_index, lane, ready_at)"
        " select j.id, q.chunk_index, l.id, now() from public.sync_jobs j"
        " join public.chunk_processing_queue q on q.parent_sync_job_id = j.id and q.completed_at is not null"
        " join chunk_private.lanes l on (l.kind, l.priority) = (j.kind, j.priority)"
        " where j.id = %s order by q.chunk_index limit 1 on conflict do nothing"
    ),
    "a slot is for no chunk": (
        "insert into chunk_private.slots (job_id, chunk_index, lane, ready_at, claimed)"
        " select j.id, 1000000, l.id, now(), true from public.sync_jobs j"
        " join chunk_private.lanes l on (l.kind, l.priority) = (j.kind, j.priority) where j.id = %s"
    ),
    "all slots are deleted": "delete from chunk_private.slots where job_id = %s",
    "the counters say more is open": (
        "update chunk_private.job_counters set open_chunks = open_chunks + 1 where job_id = %s"
    ),
    "the counters say nothing is open": (
        "update chunk_private.job_counters set open_chunks = 0 where job_id = %s and open_chunks > 0"
    ),
    "the counters say more is done": (
        "update chunk_private.job_counters set completed_chunks = completed_chunks + 7, retrying_chunks = 3"
        " where job_id = %s"
    ),
    "the counters are deleted": "delete from chunk_private.job_counters where job_id = %s",
}
