"""What a chunk's handler saves and reads between attempts and jobs: checkpoints and state, as flows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import operations, reads
from .errors import LeaseLost

if TYPE_CHECKING:
    from ._claim_life import ClaimLife
    from ._encode import JSON
    from ._flow import Flow


def save_checkpoint(life: ClaimLife, checkpoint: dict[str, JSON]) -> Flow[None]:
    """Store where a later attempt goes on, with the items done so far.

    Raises:
        LeaseLost: The claim is no longer ours; nothing was stored.
    """
    claim = life.claim
    answer = yield from operations.extend_chunk_lease(
        chunk_id=claim.chunk_id,
        claim_token=claim.claim_token,
        lease_seconds=life.holder.lease_seconds,
        items_processed=life.items,
        checkpoint=checkpoint,
    )
    life.heard(answer)
    if not answer.ok:
        raise LeaseLost
    life.checkpoint = checkpoint


def read_state(life: ClaimLife) -> Flow[Any]:
    """Read what the last completed sync of the same kind, key and owner has left; None for nothing."""
    claim = life.claim
    job_key = yield from reads.job_key_of(job_id=claim.parent_sync_job_id)
    if job_key is None:
        return None
    return (yield from operations.get_sync_state(kind=claim.kind, job_key=job_key, owner_id=claim.owner_id))
