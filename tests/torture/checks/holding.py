"""A chunk is held by one at a time, and who holds it is heard."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from tests.torture.checks.claims import CLAIMS, SLACK, Claim, claims, heartbeats, told_by
from tests.torture.history import History


def held_by_one(history: History) -> Iterator[str]:
    """No two tokens of a chunk hold at the same moment."""
    in_order = sorted(claims(history).values(), key=lambda claim: (claim.chunk_id, claim.known))
    for _, of_chunk in groupby(in_order, key=lambda claim: claim.chunk_id):
        latest: Claim | None = None
        for claim in of_chunk:
            if latest is not None and claim.known < min(latest.until, claim.until):
                yield f"two hold {latest} from {claim.known:.3f} to {min(latest.until, claim.until):.3f}; also {claim}"
            if latest is None or claim.until > latest.until:
                latest = claim


def held_in_the_tables(history: History) -> Iterator[str]:
    """Each time somebody looked at the tables, a chunk that was held was processing, with the holder's token."""
    held = sorted(claims(history).values(), key=lambda claim: claim.known)
    for look in history.of("observe"):
        if look.ok:
            rows = {int(chunk): token for job in look.answer["jobs"] for chunk, token in job["held"].items()}
            for claim in held:
                if claim.held(look.start, look.end) and rows.get(claim.chunk_id) != claim.token:
                    yield f"{claim} holds, but the tables say {rows.get(claim.chunk_id, 'not processing')} at {look.start:.3f}"


def fenced(history: History) -> Iterator[str]:
    """Once somebody else has claimed a chunk, the earlier token ends nothing."""
    by_chunk: dict[int, list[Claim]] = {}
    for claim in claims(history).values():
        by_chunk.setdefault(claim.chunk_id, []).append(claim)
    for of_chunk in by_chunk.values():
        for earlier in of_chunk:
            for later in of_chunk:
                if (
                    earlier.outcome is not None
                    and earlier.known <= later.first
                    and later.known <= earlier.reported
                ):
                    yield f"accepted after the chunk had gone to another: {earlier.reports[0].operation} after {later}"


def heard(history: History) -> Iterator[str]:
    """Heartbeats and the first report of who holds a chunk are accepted."""
    known = claims(history)
    for operation, item, answer in heartbeats(history):
        claim = known.get(str(item["claim_token"]))
        if (
            claim is not None
            and answer is not None
            and not answer["ok"]
            and claim.held(operation.start, operation.end)
        ):
            yield f"a heartbeat of who holds the chunk is refused: {operation}; {claim}"
    for claim in known.values():
        if claim.reports and claim.outcome is None:
            report = min(claim.reports, key=lambda each: each.operation.start)
            alone = all(
                each.operation.start >= report.operation.end for each in claim.reports if each is not report
            )
            in_time = report.operation.end <= min(claim.lease - SLACK, claim.cancelled)
            if report.outcome == "stale" and alone and in_time and claim.known <= report.operation.start:
                yield f"the report of who holds the chunk is stale: {report.operation}; {claim}"


def repeated_claims(history: History) -> Iterator[str]:
    """A claim that is repeated with its id, and a report with its token, find again what they have and still hold."""
    known = claims(history)
    asked = history.of(*CLAIMS, "complete_chunk_job_safe")
    by_id: dict[tuple[str, str], list[int]] = {}
    for number, operation in enumerate(asked):
        name = operation.arguments.get("claim_id")
        if operation.function == "complete_chunk_job_safe" and operation.arguments.get("claim_next"):
            name = operation.arguments["claim_token"]
        if operation.ok and name is not None:
            by_id.setdefault((operation.function, str(name)), []).append(number)
    for numbers in by_id.values():
        for first in numbers:
            for again in numbers:
                found = {str(chunk["claim_token"]) for chunk in told_by(asked[again])}
                for chunk in told_by(asked[first]):
                    claim = known[str(chunk["claim_token"])]
                    if claim.held(asked[again].start, asked[again].end) and claim.token not in found:
                        yield f"repeated, it does not find what it has: {asked[first]}, then {asked[again]}"
