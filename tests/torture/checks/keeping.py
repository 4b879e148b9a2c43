"""Nothing is lost, nothing is there twice, and what is done together is done whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.torture.checks.additions import additions
from tests.torture.history import History


def everybody_asked(history: History) -> Iterator[str]:
    """Every client was answered at least once: what nobody has tried has not been found right."""
    answered = {
        operation.id.partition(":")[0].rpartition("-")[0] for operation in history.operations if operation.ok
    }
    for begin in history.of("begin"):
        for client in begin.arguments["clients"]:
            if client not in answered:
                yield f"nothing of what {client} asked was answered"


def nothing_lost(history: History) -> Iterator[str]:
    """Every job whose start was answered is there, and every chunk of an addition that was."""
    there = {chunk["marker"] for chunk in history.chunks.values()}
    for operation in history.of("start_sync_job"):
        if operation.ok and operation.answer["id"] not in history.jobs:
            yield f"a job is lost: {operation}"
    for addition in additions(history):
        missing = [mark for mark in addition.marks if mark not in there]
        if missing and addition.done < float("inf"):
            yield f"chunks {missing} are lost: {addition.asked[0]}"
        elif missing and len(missing) < len(addition.marks):
            yield f"half done, without {missing}: {addition.asked[0]}"


def nothing_twice(history: History) -> Iterator[str]:
    """No chunk is there twice, and none that nobody has added, or only who was refused."""
    there = Counter(chunk["marker"] for chunk in history.chunks.values())
    doubled = [mark for mark, times in there.items() if times > 1]
    if doubled:
        yield f"added twice: {doubled}"
    added = {mark for addition in additions(history) if not addition.refused for mark in addition.marks}
    for mark in there.keys() - added:
        asked = [str(each.asked[0]) for each in additions(history) if mark in each.marks]
        yield f"nobody has added {mark}, or was told so: {asked}"


def invariants_hold(history: History) -> Iterator[str]:
    """`tests/sql/invariants.py` found nothing, each time that it looked and in the end."""
    for look in history.of("check_invariants"):
        if look.ok and look.answer:
            yield f"at {look.start:.3f}: {look.answer}"
    if history.tables["broken"]:
        yield f"in the end: {history.tables['broken']}"
