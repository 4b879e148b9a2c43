"""Chunks end once, jobs end once, and what was said once is said again."""

from __future__ import annotations

from collections.abc import Iterator

from tests.torture.checks.claims import Report, claims, reports
from tests.torture.history import History


def completed_once(history: History) -> Iterator[str]:
    """At most one token of a chunk completes it."""
    accepted: dict[int, Report] = {}
    for report in reports(history):
        if report.outcome == "completed":
            first = accepted.setdefault(report.chunk_id, report)
            if first.token != report.token:
                yield f"chunk {report.chunk_id} was completed twice: {first.operation} and {report.operation}"


def answered_alike(history: History) -> Iterator[str]:
    """Whoever repeats a report is answered as at first; only a give-back calls itself released."""
    by_token: dict[str, list[Report]] = {}
    for report in reports(history):
        if report.outcome is not None:
            by_token.setdefault(report.token, []).append(report)
    for said in by_token.values():
        alike = {"stale" if report.outcome == "released" else report.outcome for report in said}
        given_back = {report.outcome for report in said if report.is_release}
        if len(alike) > 1 or (len(given_back) > 1 and "released" in given_back):
            yield "repeated, it is answered otherwise: " + " and ".join(
                str(report.operation) for report in said
            )


def ended_for_good(history: History) -> Iterator[str]:
    """A chunk that has ended is not claimed again: completed never, failed only if it was reopened."""
    ends: dict[int, Report] = {}
    for report in reports(history):
        if report.outcome in {"completed", "failed"}:
            earlier = ends.get(report.chunk_id)
            if earlier is None or report.operation.end < earlier.operation.end or earlier.outcome == "failed":
                ends[report.chunk_id] = report
    reopened: dict[str, list[float]] = {}
    for operation in history.of("retry_failed_chunks"):
        reopened.setdefault(operation.arguments["parent_sync_job_id"], []).append(operation.end)
    for claim in claims(history).values():
        end = ends.get(claim.chunk_id)
        if end is None or claim.first < end.operation.end or claim.token == end.token:
            continue
        if end.outcome == "completed" or not any(
            moment >= end.operation.start for moment in reopened.get(claim.job_id, [])
        ):
            yield f"claimed after its end: {claim}; ended by {end.operation}"


def kept_as_said(history: History) -> Iterator[str]:
    """What was answered is what the tables hold: completed chunks by that token, with its result."""
    said = reports(history)
    possible: dict[int, set[str]] = {}
    for report in said:
        if report.succeeds and report.outcome in {None, "completed"}:
            possible.setdefault(report.chunk_id, set()).add(report.token)
        if report.outcome == "completed":
            chunk = history.chunks.get(report.chunk_id)
            if chunk is None or (chunk["status"], chunk["token"]) != ("completed", report.token):
                yield f"answered completed, and the tables hold {chunk}: {report.operation}"
    for chunk in history.chunks.values():
        if chunk["status"] == "completed" and chunk["token"] not in possible.get(chunk["id"], set()):
            yield f"the tables hold a chunk as completed that nobody has completed: {chunk}"
        if chunk["status"] == "completed" and chunk["result"] != {"m": chunk["marker"]}:
            yield f"the result of another chunk, or none: {chunk}"


def finished_once(history: History) -> Iterator[str]:
    """A job ends once, and once more each time that it is reopened, which retry_failed_chunks alone does."""
    for job in history.jobs.values():
        events = job["events"]
        expected = ["end", "reopened"] * len(events)
        kinds = ["reopened" if event == "reopened" else "end" for event in events]
        if kinds != expected[: len(events)]:
            yield f"job {job['id']} ended and began as {events}"
        asked = [
            each
            for each in history.of("retry_failed_chunks")
            if each.arguments["parent_sync_job_id"] == job["id"]
        ]
        if kinds.count("reopened") > len(asked):
            yield f"job {job['id']} was reopened {kinds.count('reopened')} times, asked for by {len(asked)} calls"
        if (job["status"] in {"completed", "failed", "cancelled"}) != (kinds[-1:] == ["end"]):
            yield f"job {job['id']} is {job['status']}, and ended and began as {events}"


def ended_in_time(history: History) -> Iterator[str]:
    """After the last fault everything ends within the bound."""
    for operation in history.of("settle"):
        if operation.ok and operation.answer["open"]:
            bound, still = operation.answer["bound"], operation.answer["open"]
            yield f"not ended {bound:g} s after the last fault: {still}"
