"""Every figure of progress is exact: within what the operations beside it leave open, and to the row for who looks at both."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.torture.checks.additions import additions
from tests.torture.checks.claims import Claim, claims, heartbeats, reports
from tests.torture.history import History, Operation

PROGRESS = (
    "get_sync_job_progress_safe",
    "start_sync_job",
    "append_sync_chunks",
    "cancel_sync_job",
    "pause_sync_job",
    "resume_sync_job",
    "retry_failed_chunks",
)
STATES = ("pending_chunks", "processing_chunks", "completed_chunks", "failed_chunks", "cancelled_chunks")


@dataclass
class Known:
    """What is known of one job over time: each pair is since when something is certain, or may be so."""

    added: list[tuple[float, float, int]] = field(default_factory=list)
    """Chunks: since when certainly, since when perhaps, how many."""
    completed: dict[int, tuple[float, float]] = field(default_factory=dict)
    items: dict[int, tuple[float, float, int]] = field(default_factory=dict)


def progress_exact(history: History) -> Iterator[str]:
    """Each answer's counts lie between what was certainly done before it and what may have been done before its end."""
    known = _known(history)
    by_job: dict[str, list[Claim]] = {}
    for claim in claims(history).values():
        by_job.setdefault(claim.job_id, []).append(claim)
    for answer in _answers(history):
        counts, job = answer.answer, known.get(answer.answer["id"], Known())
        if sum(counts[state] for state in STATES) != counts["total_chunks"]:
            yield f"the states do not add up: {answer} {counts}"
        bounds = {
            "total_chunks": (
                sum(n for done, _, n in job.added if done <= answer.start),
                sum(n for _, began, n in job.added if began < answer.end),
            ),
            "completed_chunks": (
                sum(done <= answer.start for done, _ in job.completed.values()),
                sum(began < answer.end for _, began in job.completed.values()),
            ),
            "items_processed": (
                sum(n for done, _, n in job.items.values() if done <= answer.start),
                sum(n for _, began, n in job.items.values() if began < answer.end),
            ),
            "processing_chunks": (
                sum(claim.held(answer.start, answer.end) for claim in by_job.get(counts["id"], [])),
                history.jobs.get(counts["id"], {}).get("cap", math.inf),
            ),
        }
        for name, (least, most) in bounds.items():
            if not least <= counts[name] <= most:
                yield f"{name} is {counts[name]}, and must be {least} to {most}: {answer}"


def never_back(history: History) -> Iterator[str]:
    """Of two answers, one after the other, the later one has not less completed, nor fewer chunks."""
    most: dict[tuple[str, str], list[Operation]] = {}
    for answer in sorted(_answers(history), key=lambda each: each.start):
        for name in ("completed_chunks", "total_chunks"):
            earlier = most.setdefault((answer.answer["id"], name), [])
            for before in earlier:
                if before.end < answer.start and before.answer[name] > answer.answer[name]:
                    yield f"{name} went from {before.answer[name]} to {answer.answer[name]}: {before}, {answer}"
            if not earlier or answer.answer[name] > max(each.answer[name] for each in earlier):
                earlier.append(answer)


def rows_agree(history: History) -> Iterator[str]:
    """In one snapshot the view's figures are those of the rows."""
    for look in history.of("observe"):
        for job in look.answer["jobs"] if look.ok else []:
            if job["counts"] != job["rows"]:
                yield f"job {job['id']} counts {job['counts']}, and has {job['rows']}: {look.id} at {look.start:.3f}"


def _answers(history: History) -> list[Operation]:
    return [each for each in history.of(*PROGRESS) if each.ok]


def _known(history: History) -> dict[str, Known]:
    known: dict[str, Known] = {job: Known() for job in history.jobs}
    of_mark = {chunk["marker"]: history.job_of[chunk["id"]] for chunk in history.chunks.values()}
    for addition in additions(history):
        job = next((of_mark[mark] for mark in addition.marks if mark in of_mark), None)
        if job is not None:
            known[job].added.append((addition.done, addition.began, len(addition.marks)))
    for report in reports(history):
        job = history.job_of.get(report.chunk_id)
        if job is None or not report.succeeds or report.outcome not in {None, "completed"}:
            continue
        done, began = known[job].completed.get(report.chunk_id, (math.inf, math.inf))
        certain = report.operation.end if report.outcome == "completed" else math.inf
        known[job].completed[report.chunk_id] = (min(done, certain), min(began, report.operation.start))
    said = [
        (report.operation, report.arguments, report.outcome == "completed" and report.succeeds)
        for report in reports(history)
    ]
    said += [(operation, item, False) for operation, item, _ in heartbeats(history)]
    for operation, arguments, counts in said:
        job, items = history.job_of.get(int(arguments["chunk_id"])), arguments.get("items_processed")
        if job is not None and items is not None:
            done, began, most = known[job].items.get(int(arguments["chunk_id"]), (math.inf, math.inf, 0))
            certain = operation.end if counts else math.inf
            known[job].items[int(arguments["chunk_id"])] = (
                min(done, certain),
                min(began, operation.start),
                max(most, items),
            )
    return known
