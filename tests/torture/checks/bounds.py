"""Caps, limits, pauses and cancels hold at every moment."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tests.torture.checks.claims import Claim, claims, reports
from tests.torture.history import History, Operation


def capped(history: History) -> Iterator[str]:
    """Of a job no more chunks are held than its max_concurrency, by the claims and by the tables."""
    asked = {
        operation.answer["id"]: operation.arguments["max_concurrency"]
        for operation in history.of("start_sync_job")
        if operation.ok and "max_concurrency" in operation.arguments
    }
    by_job: dict[str, list[Claim]] = {}
    for claim in claims(history).values():
        by_job.setdefault(claim.job_id, []).append(claim)
    for job, cap in asked.items():
        of_job = by_job.get(job, [])
        for claim in of_job:
            beside = [each for each in of_job if each.known <= claim.known < each.until]
            if len(beside) > cap:
                yield f"{len(beside)} chunks of job {job} at once, of {cap}: " + "; ".join(map(str, beside))
    for look in history.of("observe"):
        for job in look.answer["jobs"] if look.ok else []:
            if len(job["held"]) > asked.get(job["id"], math.inf):
                yield f"the tables hold {len(job['held'])} processing chunks of {job['id']} at {look.start:.3f}, of {asked[job['id']]}"


def limited(history: History) -> Iterator[str]:
    """Of a limit key no more chunks are held, of all jobs, than the limit of the moment at which each is claimed."""
    by_key: dict[str, list[Claim]] = {}
    for claim in claims(history).values():
        if claim.chunk.get("limit_key"):
            by_key.setdefault(claim.chunk["limit_key"], []).append(claim)
    for key, of_key in by_key.items():
        saved = [each for each in history.of("save_sync_limit") if each.arguments["key"] == key]
        for claim in of_key:
            most = _most(saved, claim.first, claim.known)
            beside = [each for each in of_key if each is not claim and each.held(claim.first, claim.known)]
            if len(beside) + 1 > most:
                yield f"{len(beside) + 1} chunks of the key {key} at once, of {most}: {claim}; " + "; ".join(
                    map(str, beside)
                )


def _most(saved: list[Operation], start: float, end: float) -> float:
    """The greatest limit that may have been in force between: the last that was certainly saved, or any that came beside."""
    before = [each for each in saved if each.end <= start]
    latest = max((each.start for each in before), default=-math.inf)
    # Of those that overlap each other nobody knows which was the last.
    in_force = [each for each in saved if each.start < end and each.end >= latest]
    return (
        max((each.arguments["max_concurrency"] for each in in_force), default=math.inf)
        if before
        else math.inf
    )


def blocked(history: History) -> Iterator[str]:
    """While a limit key is blocked, no chunk of it is claimed."""
    by_key: dict[str, list[Operation]] = {}
    for operation in history.of("block_sync_limit"):
        by_key.setdefault(operation.arguments["key"], []).append(operation)
    for key, blocks in by_key.items():
        of_key = [claim for claim in claims(history).values() if claim.chunk.get("limit_key") == key]
        for block in blocks:
            until = min(
                _ends(block), *(_lifted(block, other) for other in blocks if other is not block), math.inf
            )
            for claim in of_key if block.ok else []:
                if claim.first > block.end and claim.known < until - 0.01:
                    yield f"claimed while its key was blocked: {claim}; {block}"


def _ends(block: Operation) -> float:
    return block.start + float(block.arguments["seconds"])


def _lifted(block: Operation, other: Operation) -> float:
    """When another block of the same key may have ended this one: it counts from its own moment on, whatever was before."""
    if other.end < block.start:
        return math.inf
    if other.start > block.end:
        return other.start
    # It came before this one, and is over; or after both had begun.
    return max(block.start, other.start) + float(other.arguments["seconds"])


def paused(history: History) -> Iterator[str]:
    """While a job is paused, no chunk of it is claimed."""
    # A paused job may end, with what was processing; who then retries it does not pause it again.
    resumes = history.of("resume_sync_job", "retry_failed_chunks")
    for pause in history.of("pause_sync_job"):
        job = pause.arguments["parent_sync_job_id"]
        later = [
            each
            for each in resumes
            if each.arguments["parent_sync_job_id"] == job and each.end >= pause.start
        ]
        until = min((each.start for each in later), default=math.inf)
        if pause.ok and pause.answer["status"] == "paused":
            for claim in claims(history).values():
                if claim.job_id == job and claim.first > pause.end and claim.known < until:
                    yield f"claimed while its job was paused: {claim}; {pause}"


def cancelled(history: History) -> Iterator[str]:
    """Once a job is cancelled, no chunk of it is claimed, and no report is accepted."""
    for cancel in history.of("cancel_sync_job"):
        job = cancel.arguments["parent_sync_job_id"]
        if cancel.ok:
            for claim in claims(history).values():
                if claim.job_id == job and claim.first > cancel.end:
                    yield f"claimed after its job was cancelled: {claim}; {cancel}"
                if claim.job_id == job and claim.outcome is not None and claim.reported > cancel.end:
                    yield f"accepted after its job was cancelled: {claim.reports[0].operation}; {cancel}"


def attempts(history: History) -> Iterator[str]:
    """No attempt beyond the last, and no chunk fails before its last, unless its worker says so."""
    for claim in claims(history).values():
        if not 1 <= claim.chunk["attempt"] <= claim.chunk["max_attempts"]:
            yield f"attempt {claim.chunk['attempt']} of {claim.chunk['max_attempts']}: {claim}"
    known = claims(history)
    for report in reports(history):
        claim = known.get(report.token)
        if (
            claim is None
            or report.outcome not in {"failed", "retrying"}
            or report.arguments.get("retryable") is False
        ):
            continue
        last = claim.chunk["attempt"] >= claim.chunk["max_attempts"]
        if (report.outcome == "failed") != last:
            yield f"attempt {claim.chunk['attempt']} of {claim.chunk['max_attempts']} ended as {report.outcome}: {report.operation}"
