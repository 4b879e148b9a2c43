"""Claims where there are thousands of kinds: they miss nothing. What they cost is in tests/clocks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import psycopg
import pytest

from tests.sql.claim.kinds import fill, wait
from tests.sql.database import Database, Session


def claim(session: Session, **arguments: Any) -> Any:
    """Claim of all kinds that have a handler."""
    return session.claim(kinds=None, **arguments)


def test_every_kind_is_found_the_highest_priority_first(service: Session) -> None:
    fill(service, 120)
    for priority in (-3, 0, 2):
        wait(service, 1, 120, priority=priority)
    wait(service, 50, 50, priority=3)
    taken = []
    while (chunk := claim(service)) is not None:
        taken.append(chunk)
    priority_of = {
        row["id"]: row["priority"] for row in service.rows("select j.id, j.priority from public.sync_jobs j")
    }
    order = [priority_of[chunk["parent_sync_job_id"]] for chunk in taken]
    assert len(order) == 361
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize("waiting", [2, 100])
def test_kinds_take_turns(service: Session, waiting: int) -> None:
    fill(service, 120)
    wait(service, 121 - waiting, 120, each=200 // waiting)
    taken = Counter(claim(service)["kind"] for _ in range(100))
    assert len(taken) > waiting / 4
    assert max(taken.values()) < 80


def test_what_may_not_be_claimed_hides_nothing(service: Session) -> None:
    fill(service, 300, with_handler=150)
    wait(service, 1, 149, in_seconds=60)
    wait(service, 151, 299)
    assert claim(service) is None
    wait(service, 150, 150)
    assert claim(service)["kind"] == "k150"
    named = [f"k{n}" for n in range(200, 300)]
    assert service.claimed(kinds=named)["kind"] in named
    wait(service, 300, 300)
    assert service.claimed(kinds=["k7", "k300"])["kind"] == "k300"


def test_a_start_that_is_refused_takes_no_number(db: Database, service: Session) -> None:
    anna = db.connect("authenticated", user="8d4d9c63-5f4b-4c0e-9a57-7f7f4f6f3c15")
    service.execute("update chunk_private.settings set user_max_active_jobs = 1")
    anna.start(chunks=[{}])
    admin = db.connect("supabase_admin")
    sequences = "select s.sequencename, s.last_value from pg_sequences s where s.schemaname in ('public', 'chunk_private')"
    before = admin.rows(sequences)
    for _ in range(50):
        with pytest.raises(psycopg.Error) as caught:
            anna.start(chunks=[{}], priority=-2)
        assert caught.value.sqlstate == "SC004"
    assert admin.rows(sequences) == before
    assert admin.value("select count(*) from chunk_private.lanes") == 1
