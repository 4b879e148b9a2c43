"""How soon the demo is there, with nothing beside it."""

from __future__ import annotations

from tests.e2e.test_demo import demo


def test_the_demo_is_ready_within_fifteen_seconds() -> None:
    with demo() as run:
        assert run.when("Ready after", within=60) < 15
        assert run.end(within=60) == 0, run.text
