"""Accounts and their secrets: what is refused, who renews tokens, and that nothing secret is in a table."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg.types.json import Jsonb

from supabase_chunks.local import platform
from tests.sql.database import Database, Session, refused

LOGIN = {"name": "work", "host": "imap.example.com", "username": "ann@example.com"}
OAUTH = {"provider": "google", "client_id": "client-1", "refresh_token": "refresh-1"}


@pytest.fixture
def vault(db: Database) -> Session:
    """A session of the service, in a database with a Vault."""
    platform.install(db.dsn)
    return db.connect()


def save(service: Session, **over: Any) -> str:
    """Save the account; its id."""
    arguments = {key: Jsonb(value) if key == "oauth" else value for key, value in (LOGIN | over).items()}
    return str(service.call("save_email_account", **arguments))


def with_tokens(service: Session, **over: Any) -> str:
    """An account that logs in by tokens."""
    return save(service, auth="xoauth2", oauth=OAUTH | over)


def begin(service: Session, account: str, **over: Any) -> Any:
    """Ask for a token."""
    return service.call("begin_email_token", account_id=account, **over)


@pytest.mark.parametrize(
    ("over", "argument"),
    [
        ({}, "password"),
        ({"auth": "kerberos", "password": "p"}, "auth"),
        ({"auth": "xoauth2"}, "oauth"),
        ({"auth": "xoauth2", "password": "p"}, "password"),
        ({"oauth": OAUTH}, "oauth"),
        ({"auth": "xoauth2", "oauth": OAUTH | {"provider": "yahoo"}}, "oauth"),
        ({"auth": "xoauth2", "oauth": OAUTH | {"refresh_token": "a b"}}, "oauth"),
        ({"auth": "xoauth2", "oauth": OAUTH | {"client_secret": "s"}}, "oauth"),
        ({"auth": "xoauth2", "oauth": OAUTH | {"token_url": "https://x.example"}}, "oauth"),
        ({"auth": "xoauth2", "oauth": OAUTH | {"provider": "custom"}}, "oauth"),
        (
            {"auth": "xoauth2", "oauth": OAUTH | {"provider": "custom", "token_url": "http://x.example"}},
            "oauth",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(vault: Session, over: dict[str, Any], argument: str) -> None:
    with refused("SC003", argument):
        save(vault, **over)


def test_a_stored_secret_goes_only_where_it_was_meant_to(vault: Session) -> None:
    account = save(vault, password="pw-1")
    assert save(vault) == account
    for over in ({"host": "evil.example.com"}, {"username": "bob"}, {"port": 1143}, {"tls": "none"}):
        with refused("SC003", "password"):
            save(vault, **over)
    assert save(vault, host="imap2.example.com", password="pw-2") == account
    secret = vault.call("get_email_account_secret", account="work")
    assert (secret["host"], secret["auth"], secret["password"]) == ("imap2.example.com", "password", "pw-2")


def test_a_token_is_renewed_by_one_at_a_time(vault: Session) -> None:
    account = with_tokens(vault)
    first, second = begin(vault, account), begin(vault, account)
    assert (first["state"], first["refresh_token"], first["client_id"]) == (
        "refresh",
        "refresh-1",
        "client-1",
    )
    assert second["state"] == "wait"
    assert 50 <= second["seconds"] <= 60

    def done(lease: str, **over: Any) -> Any:
        token = {"access_token": "access-1", "expires_in": 3600, "refresh_token": "refresh-2"} | over
        return vault.call("save_email_token", account_id=account, lease=lease, **token)

    assert done("00000000-0000-0000-0000-000000000000") is False
    assert done(first["lease"]) is True
    assert done(first["lease"], access_token="late") is False
    assert begin(vault, account) == {"state": "token", "access_token": "access-1"}
    # One that the mail server did not take is renewed, with the refresh token that came with it.
    again = begin(vault, account, refused="access-1")
    assert (again["state"], again["refresh_token"]) == ("refresh", "refresh-2")
    assert "access-1" not in str(again)


def test_a_refused_renewal_asks_for_access_anew_until_the_account_is_saved(vault: Session) -> None:
    account = with_tokens(vault)
    lease = begin(vault, account)["lease"]
    refuse = {"account_id": account, "lease": lease}
    assert [vault.call("refuse_email_token", **refuse) for _ in range(2)] == [True, False]
    assert begin(vault, account) == {"state": "reauth_required"}
    assert vault.value("select reauth_required from public.email_accounts")
    with_tokens(vault, refresh_token="refresh-9")
    assert begin(vault, account)["refresh_token"] == "refresh-9"


def test_saving_the_account_ends_a_renewal_under_way(vault: Session) -> None:
    account = with_tokens(vault)
    lease = begin(vault, account)["lease"]
    with_tokens(vault, refresh_token="refresh-9")
    late = {"account_id": account, "lease": lease, "access_token": "old", "expires_in": 3600}
    assert vault.call("save_email_token", **late) is False
    assert begin(vault, account)["refresh_token"] == "refresh-9"


def test_no_secret_is_in_a_table_of_ours(vault: Session, admin: Session) -> None:
    account = with_tokens(vault)
    renewed = {"access_token": "access-1", "expires_in": 3600, "refresh_token": "refresh-2"}
    vault.call("save_email_token", account_id=account, lease=begin(vault, account)["lease"], **renewed)
    tables = admin.rows(
        "select c.oid::regclass::text as name from pg_class c where c.relkind in ('r', 'p') and c.relnamespace in"
        " ('public'::regnamespace, 'chunk_private'::regnamespace)"
    )
    for table in tables:
        text = str(admin.rows(f"select * from {table['name']}"))
        assert "refresh-" not in text, table
        assert "access-1" not in text, table
    vault.call("remove_email_account", name="work")
    assert admin.value("select count(*) from vault.secrets where name like 'email_account_%'") == 0
