"""The checker of `make torture` finds what is wrong: each check in histories told by hand, and nothing in one that is right."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.torture.checks import ALL, findings
from tests.torture.history import load
from tests.torture.mutations import MUTATIONS
from tests.torture.recorder import Recorder
from tests.unit.stories import JOB, Story

ROOT = Path(__file__).parents[2]
WRONG: list[tuple[str, Callable[[], Story]]] = []


def wrong(check: str) -> Callable[[Callable[[], Story]], Callable[[], Story]]:
    """A story that one check must find wrong."""

    def note(tell: Callable[[], Story]) -> Callable[[], Story]:
        WRONG.append((check, tell))
        return tell

    return note


def right() -> Story:
    """A job whose three chunks are completed, after a lost worker, a retry, a cut answer, and a pause."""
    story = Story()
    story.look((1.1, 1.2), {})
    story.claim("t1", 1, (2, 3), claim_id="c1")
    story.claim("t1", 1, (3.1, 3.2), claim_id="c1")
    story.claim("t2", 2, (2.5, 3.5))
    story.look((3.6, 3.7), {1: "t1", 2: "t2"})
    story.progress((3.6, 3.8), total=3, pending=1, processing=2)
    story.beat("t1", 1, (5, 6))
    story.report("t1", 1, (7, 8), next=story.taken("t3", 3, 18), claim_next=True)
    story.report("t1", 1, (8.1, 8.2), next=story.taken("t3", 3, 18), claim_next=True)
    story.progress((8.3, 8.4), total=3, processing=2, completed=1)
    # Its lease ends at 13.5.
    story.claim("t4", 2, (14, 15), attempt=2)
    story.report("t2", 2, (16, 17), "stale")
    story.report("t4", 2, (17, 18), "retrying")
    story.report("t4", 2, (18, 18.5), "retrying")
    story.steer("pause_sync_job", (19, 20), "paused", total=3, pending=1, processing=1, completed=1)
    story.lost("complete_chunk_job_safe", 21, {"chunk_id": 3, "claim_token": "t3", "items_processed": 2})
    story.chunks[3] |= {"status": "completed", "token": "t3", "result": {"m": "mark-3"}}
    story.steer("resume_sync_job", (22, 23), "running", total=3, pending=1, completed=2)
    story.claim("t5", 2, (23.5, 24), attempt=3)
    story.give_back("t5", 2, (24.5, 25))
    story.report("t5", 2, (25.1, 25.2), "stale")
    story.claim("t6", 2, (26, 27), attempt=3)
    story.report("t6", 2, (28, 29))
    story.progress((30, 31), total=3, completed=3)
    story.end("completed", "completed")
    return story


def right_though_paused() -> Story:
    """A job that fails while it is paused, and is retried."""
    story = Story(chunks=1)
    story.claim("t1", 1, (2, 3), attempt=3)
    story.steer("pause_sync_job", (4, 5), "paused", total=1, processing=1)
    story.report("t1", 1, (6, 7), "failed")
    story.steer("retry_failed_chunks", (8, 9), "running", total=1, pending=1)
    story.claim("t2", 1, (10, 11))
    story.report("t2", 1, (12, 13))
    story.end("completed", "failed", "reopened", "completed")
    return story


@pytest.mark.parametrize("tell", [right, right_though_paused])
def test_nothing_is_found_where_all_is_right(tell: Callable[[], Story]) -> None:
    assert [str(finding) for finding in findings(tell().told())] == []


@wrong("held_by_one")
def two_hold_a_chunk() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3))
    story.claim("t2", 1, (5, 6))
    return story


@wrong("held_by_one")
def a_heartbeat_made_the_lease_longer_and_it_was_taken_all_the_same() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3))
    story.beat("t1", 1, (10, 11))
    story.claim("t2", 1, (15, 16))
    return story


@wrong("held_in_the_tables")
def a_chunk_is_taken_back_while_its_lease_runs() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3))
    story.look((4, 5), {})
    return story


@wrong("fenced")
def a_late_report_is_accepted_after_another_claim() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3))
    story.claim("t2", 1, (14, 15))
    story.report("t1", 1, (16, 17))
    return story


@wrong("heard")
def a_report_in_time_is_stale() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3))
    story.report("t1", 1, (4, 5), "stale")
    return story


@wrong("heard")
def a_heartbeat_in_time_is_refused() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3))
    story.beat("t1", 1, (4, 5), ok=False)
    return story


@wrong("repeated_claims")
def a_repeated_claim_finds_another_chunk() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3), claim_id="c")
    story.claim("t2", 2, (4, 5), claim_id="c")
    return story


@wrong("repeated_claims")
def a_repeated_report_has_forgotten_the_next_chunk() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3))
    story.report("t1", 1, (4, 5), next=story.taken("t2", 2, 15), claim_next=True)
    story.report("t1", 1, (6, 7), claim_next=True)
    return story


@wrong("completed_once")
def two_complete_a_chunk() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3))
    story.report("t1", 1, (12, 13))
    story.claim("t2", 1, (12, 13))
    story.report("t2", 1, (14, 15))
    return story


@wrong("answered_alike")
def a_repeated_report_is_answered_otherwise() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3))
    story.report("t1", 1, (4, 5))
    story.report("t1", 1, (6, 7), "stale")
    return story


@wrong("answered_alike")
def a_chunk_that_was_given_back_is_completed_by_the_same_token() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3))
    story.give_back("t1", 1, (4, 5))
    story.report("t1", 1, (6, 7))
    return story


@wrong("ended_for_good")
def a_completed_chunk_is_claimed() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3))
    story.report("t1", 1, (4, 5))
    story.claim("t2", 1, (6, 7))
    return story


@wrong("ended_for_good")
def a_failed_chunk_is_claimed_that_nobody_has_reopened() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3), attempt=3)
    story.report("t1", 1, (4, 5), "failed")
    story.claim("t2", 1, (6, 7))
    return story


@wrong("kept_as_said")
def a_completion_was_answered_and_is_not_there() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3))
    story.report("t1", 1, (4, 5), ends=False)
    return story


@wrong("kept_as_said")
def a_chunk_is_completed_that_nobody_has_reported() -> Story:
    story = Story()
    story.chunks[1] |= {"status": "completed", "token": "t1", "result": {"m": "mark-1"}}
    return story


@wrong("kept_as_said")
def a_chunk_has_the_result_of_another() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3))
    story.report("t1", 1, (4, 5))
    story.chunks[1]["result"] = {"m": "mark-2"}
    return story


@wrong("finished_once")
def a_job_ends_twice() -> Story:
    story = Story()
    story.end("completed", "completed", "completed")
    return story


@wrong("finished_once")
def a_job_is_reopened_that_nobody_has_retried() -> Story:
    story = Story()
    story.end("failed", "failed", "reopened", "failed")
    return story


@wrong("ended_in_time")
def a_job_stays_open() -> Story:
    story = Story()
    story.ask("settle", (20, 40), {}, {"open": [JOB], "bound": 20})
    return story


@wrong("capped")
def three_chunks_are_held_of_two() -> Story:
    story = Story()
    for number in (1, 2, 3):
        story.claim(f"t{number}", number, (number, number + 0.5))
    return story


@wrong("capped")
def three_chunks_are_processing_in_the_tables() -> Story:
    story = Story()
    story.look((4, 5), {1: "t1", 2: "t2", 3: "t3"})
    return story


@wrong("limited")
def a_key_of_one_has_two() -> Story:
    story = Story(limit_key="k")
    story.ask("save_sync_limit", (1, 1.5), {"key": "k", "max_concurrency": 1}, {})
    story.claim("t1", 1, (2, 3))
    story.claim("t2", 2, (4, 5))
    return story


@wrong("blocked")
def a_chunk_of_a_blocked_key_is_claimed() -> Story:
    story = Story(limit_key="k")
    story.ask("block_sync_limit", (1, 1.5), {"key": "k", "seconds": 10}, {})
    story.claim("t1", 1, (2, 3))
    return story


@wrong("blocked")
def it_is_claimed_before_another_block_makes_the_first_shorter() -> Story:
    story = Story(limit_key="k")
    story.ask("block_sync_limit", (1, 1.5), {"key": "k", "seconds": 10}, {})
    story.claim("t1", 1, (2, 3))
    story.ask("block_sync_limit", (4, 4.5), {"key": "k", "seconds": 0}, {})
    return story


@wrong("paused")
def a_chunk_of_a_paused_job_is_claimed() -> Story:
    story = Story()
    story.steer("pause_sync_job", (1, 2), "paused", total=3, pending=3)
    story.claim("t1", 1, (3, 4))
    story.steer("resume_sync_job", (5, 6), "running", total=3, pending=2, processing=1)
    return story


@wrong("cancelled")
def a_report_is_accepted_after_the_cancel() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3))
    story.steer("cancel_sync_job", (4, 5), "cancelled", total=3, cancelled=3)
    story.report("t1", 1, (6, 7))
    return story


@wrong("cancelled")
def a_chunk_is_claimed_after_the_cancel() -> Story:
    story = Story()
    story.steer("cancel_sync_job", (4, 5), "cancelled", total=3, cancelled=3)
    story.claim("t1", 1, (6, 7))
    return story


@wrong("attempts")
def a_fourth_attempt_of_three() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3), attempt=4)
    return story


@wrong("attempts")
def a_first_failure_is_the_last() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3))
    story.report("t1", 1, (4, 5), "failed")
    return story


@wrong("everybody_asked")
def a_client_was_never_heard() -> Story:
    story = Story()
    story.ask("begin", (0, 0.1), {"clients": ["teller", "sdk"]}, None)
    return story


@wrong("nothing_lost")
def a_chunk_of_the_start_is_gone() -> Story:
    story = Story()
    del story.chunks[2]
    return story


@wrong("nothing_lost")
def an_append_without_answer_is_half_done() -> Story:
    story = Story()
    story.append((2, math.inf), there=1)
    return story


@wrong("nothing_twice")
def an_append_is_done_twice() -> Story:
    story = Story()
    story.append((2, 3), there=2)
    story.append((4, 5), there=2)
    return story


@wrong("nothing_twice")
def the_next_chunks_of_a_stale_report_are_there() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3))
    story.report("t1", 1, (14, 15), "stale", next_chunks=[{"m": "more"}])
    story._chunk("more")
    return story


@wrong("invariants_hold")
def an_invariant_is_broken_in_the_end() -> Story:
    story = Story()
    story.broken.append("the counters differ from the rows")
    return story


@wrong("invariants_hold")
def an_invariant_was_broken_for_a_moment() -> Story:
    story = Story()
    story.ask("check_invariants", (2, 3), {}, ["a slot without a chunk"])
    return story


@wrong("progress_exact")
def a_completed_chunk_is_not_counted() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3))
    story.report("t1", 1, (4, 5))
    story.progress((6, 7), total=3, pending=3)
    return story


@wrong("progress_exact")
def a_chunk_counts_before_anybody_has_done_it() -> Story:
    story = Story()
    story.progress((2, 3), total=3, pending=2, completed=1)
    return story


@wrong("progress_exact")
def the_states_do_not_add_up() -> Story:
    story = Story()
    story.progress((2, 3), total=3, pending=2)
    return story


@wrong("progress_exact")
def items_are_counted_twice() -> Story:
    story = Story()
    story.claim("t1", 1, (2, 3))
    story.report("t1", 1, (4, 5))
    story.progress((6, 7), total=3, pending=2, completed=1, items=4)
    return story


@wrong("never_back")
def completed_chunks_become_fewer() -> Story:
    story = Story()
    story.lost("complete_chunk_job_safe", 2, {"chunk_id": 1, "claim_token": "t1"})
    story.progress((3, 4), total=3, pending=2, completed=1)
    story.progress((5, 6), total=3, pending=3)
    return story


@wrong("rows_agree")
def the_view_differs_from_the_rows() -> Story:
    story = Story()
    story.look((2, 3), {1: "t1"}, counts=[3, 3, 0, 0, 0, 0])
    return story


@pytest.mark.parametrize(("check", "tell"), WRONG, ids=[tell.__name__ for _, tell in WRONG])
def test_what_is_wrong_is_found(check: str, tell: Callable[[], Story]) -> None:
    found = findings(tell().told())
    assert check in {finding.check for finding in found}, found
    # It names what shows it: an operation, the job, a chunk or the invariant.
    assert all(finding.text for finding in found)


def test_every_check_has_a_history_that_it_finds_wrong() -> None:
    assert {check for check, _ in WRONG} == {check.__name__ for check in ALL}


def test_the_page_names_every_check_and_every_mutation() -> None:
    page = (ROOT / "docs" / "proof.md").read_text(encoding="utf-8")
    checks, _, mutations = page.partition("## What is checked")[2].partition("## Who checks")
    rows = [row.partition(" | ")[0] for row in re.findall(r"^\| (`.+)$", checks, re.MULTILINE)]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == {check.__name__ for check in ALL}
    assert set(re.findall(r"^\| `([a-z-]+)` \|", mutations, re.MULTILINE)) == set(MUTATIONS)


def test_what_a_killed_process_had_asked_is_unknown(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "caller")
    recorder.clock()
    recorder.ok(recorder.begin("cleanup_stuck_chunks", {}), 0)
    recorder.error(recorder.begin("pause_sync_job", {}), "SC005")
    recorder.begin("complete_chunk_job_safe", {})
    recorder.answered(recorder.begin("claim_next_chunk_job_safe", {}), 500, b'{"code": "40P01"}')
    recorder.answered(recorder.begin("claim_next_chunk_job_safe", {}), 400, b'{"code": ""}')
    recorder.answered(recorder.begin("claim_next_chunk_job_safe", {}), 503, b'{"code": "PGRST001"}')
    under_way = recorder.begin("pause_sync_job", {})
    reading = recorder.begin("read_tables", {})
    recorder.ok(under_way, {})
    recorder.ok(reading, None)
    recorder.ok(recorder.begin("resume_sync_job", {}), {})
    with (tmp_path / "caller.jsonl").open("a") as file:
        file.write('{"id": "caller:9", "at": 1.')
    history = load(tmp_path)
    outcomes = ["ok", "error", "unknown", "error", "unknown", "unknown", "unknown"]
    assert [each.outcome for each in history.operations] == outcomes
    assert history.operations[2].end == math.inf
