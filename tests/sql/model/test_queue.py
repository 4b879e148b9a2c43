"""The whole queue against a model: hypothesis plays, and after each step all invariants and all rows must agree."""

from __future__ import annotations

import pytest

from tests.sql.database import Database
from tests.sql.model.machine import play


def test_the_queue_does_what_the_model_does(db: Database) -> None:
    play(db, examples=80, steps=25)


@pytest.mark.soak
def test_the_queue_does_what_the_model_does_for_long(db: Database) -> None:
    play(db, examples=20_000, steps=50)
