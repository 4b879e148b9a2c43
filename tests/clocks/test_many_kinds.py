"""A claim among thousands of kinds costs what one among a few does: timed alone, since what is larger suffers more from others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.sql.claim.kinds import fill, wait
from tests.sql.database import Database, Session
from tests.sql.server import running


def cpu(session: Session) -> int:
    """The nanoseconds of CPU that a session's backend has had."""
    schedule = Path(f"/proc/{session.connection.info.backend_pid}/schedstat")
    return int(schedule.read_text().split()[0])


@pytest.fixture(scope="module")
def sizes() -> Iterator[dict[str, Database]]:
    """Five kinds, and five thousand, in which few chunks wait, or some in each, most of them for Python workers or not."""
    with ExitStack() as opened:
        cluster = opened.enter_context(running())
        made: dict[str, Database] = {}
        for name, kinds, with_handler, waiting, each in (
            ("few", 5, 5, 5, 300),
            ("many", 5000, 5000, 3, 200),
            ("full", 5000, 5000, 5000, 1),
            ("others", 5000, 100, 3, 200),
        ):
            made[name] = opened.enter_context(cluster.database(fresh=True))
            session = made[name].connect()
            fill(session, kinds, with_handler=with_handler)
            wait(session, with_handler - waiting + 1, with_handler, each=each)
            if with_handler < kinds:
                wait(session, with_handler + 1, kinds)
            made[name].connect("supabase_admin").execute("vacuum analyze")
        yield made


CLAIMS: dict[str, Callable[[Session], Any]] = {
    "one": lambda session: session.claimed(kinds=None),
    "a batch": lambda session: session.call("claim_chunk_jobs_safe", worker_id="w", batch_size=1)[0],
    "by job": lambda session: session.claimed(
        session.value(
            "select s.job_id::text from chunk_private.slots s join public.sync_jobs j on j.id = s.job_id"
            " join public.sync_kinds k on k.kind = j.kind and k.handler is not null where not s.claimed limit 1"
        ),
        kinds=None,
    ),
}


@pytest.mark.parametrize("size", ["many", "full", "others"])
@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_costs_with_5000_kinds_what_it_costs_with_five(
    sizes: dict[str, Database], size: str, name: str
) -> None:
    """In CPU of the backend: the least of some turns, which others do not disturb, of some backends, of which some are slow."""
    spent: dict[str, list[int]] = {"few": [], size: []}
    for _ in range(5):
        sessions = {which: sizes[which].connect() for which in spent}
        for _ in range(6):
            for which, session in sessions.items():
                before = cpu(session)
                for _ in range(5):
                    CLAIMS[name](session)
                spent[which].append(cpu(session) - before)
    assert min(spent[size]) <= 2 * min(spent["few"])
