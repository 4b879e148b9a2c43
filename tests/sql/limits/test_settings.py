"""save_chunk_settings: the named ones change, null is the default, and a wrong one is named."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.sql.database import Database, Session, refused
from tests.sql.threads import together


def save(session: Session, settings: Any) -> Any:
    """Call it."""
    return session.value("select public.save_chunk_settings(%s)", Jsonb(settings))


def test_what_is_named_changes_and_null_is_the_default(service: Session) -> None:
    defaults = save(service, {})
    assert defaults["user_max_chunks"] == 10_000
    changed = save(
        service, {"user_max_chunks": 5, "user_email_ports": [993], "user_email_private_hosts": True}
    )
    assert changed == defaults | {
        "user_max_chunks": 5,
        "user_email_ports": [993],
        "user_email_private_hosts": True,
    }
    assert save(service, {"user_max_chunks": None, "max_given_back": 0}) == changed | {
        "user_max_chunks": 10_000,
        "max_given_back": 0,
    }
    assert save(service, dict.fromkeys(defaults)) == defaults


def test_every_setting_can_be_saved_as_it_is(service: Session) -> None:
    every = save(service, {})
    assert save(service, every) == every
    assert "only_row" not in every


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("user_max_chunks", value) for value in (-1, 1.5, 2**31, "5", True, [5], {})),
        *(("user_email_ports", value) for value in (993, [0], [65536], [1.5], ["993"], [[993]], [1] * 21)),
        *(("user_email_private_hosts", value) for value in (1, "yes", [])),
    ],
    ids=str,
)
def test_a_value_that_cannot_be(service: Session, name: str, value: Any) -> None:
    before = save(service, {})
    with refused("SC003", name):
        save(service, {"max_given_back": 3, name: value})
    assert save(service, {}) == before


@pytest.mark.parametrize("settings", [{"user_max_chonks": 5}, {"only_row": True}, [], None, 5, "x"], ids=str)
def test_what_is_no_setting(service: Session, settings: Any) -> None:
    with refused("SC003", "settings"):
        save(service, settings)


def test_an_unknown_name_is_told_the_known_ones(service: Session) -> None:
    with pytest.raises(Exception, match=r"user_max_chonks; there are .*max_given_back, .*user_max_chunks,"):
        save(service, {"user_max_chonks": 5})


def test_two_at_once_lose_nothing(db: Database, service: Session) -> None:
    names = ["user_max_chunks", "user_max_requests", "max_given_back", "max_checkpoints"]
    together(db, 4, lambda session, number: [save(session, {names[number]: n}) for n in range(10)])
    assert {name: save(service, {})[name] for name in names} == dict.fromkeys(names, 9)
