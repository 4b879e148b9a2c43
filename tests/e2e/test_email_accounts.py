"""Email accounts through the API: who may save, see, use and remove them, and where the password is."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest

if TYPE_CHECKING:
    from supabase_chunks.local import LocalStack

LOGIN = {"name": "work", "host": "imap.example.com", "username": "me", "password": "p4ss-w0rd"}


class Api:
    """The Data API with one key and, for a user, a token."""

    def __init__(self, stack: LocalStack, user: uuid.UUID | None = None) -> None:
        """As the service, or as a signed-in user."""
        self._rest = f"{stack.url}/rest/v1"
        self._headers = {"apikey": stack.secret_key}
        if user is not None:
            token = stack.user_token(str(user))
            self._headers = {"apikey": stack.publishable_key, "authorization": f"Bearer {token}"}

    def rpc(self, name: str, /, **arguments: Any) -> httpx.Response:
        """Call a function."""
        return httpx.post(f"{self._rest}/rpc/{name}", headers=self._headers, json=arguments)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """What of a table is seen."""
        rows: list[dict[str, Any]] = httpx.get(f"{self._rest}/{table}", headers=self._headers).json()
        return rows


@pytest.fixture
def user() -> uuid.UUID:
    """A user that no other test has."""
    return uuid.uuid4()


def test_a_user_saves_changes_sees_and_removes_an_account(stack: LocalStack, user: uuid.UUID) -> None:
    api = Api(stack, user)
    account = api.rpc("save_email_account", **LOGIN).json()
    assert api.rpc("save_email_account", **LOGIN | {"host": "mail.example.com"}).json() == account
    (row,) = api.rows("email_accounts")
    assert (row["id"], row["owner_id"], row["host"]) == (account, str(user), "mail.example.com")
    assert LOGIN["password"] not in str(row)
    assert api.rpc("remove_email_account", name="work").json() is True
    assert api.rpc("remove_email_account", name="work").json() is False
    assert api.rows("email_accounts") == []


def test_users_have_accounts_of_the_same_name_and_see_only_their_own(
    stack: LocalStack, user: uuid.UUID
) -> None:
    mine, theirs = Api(stack, user), Api(stack, uuid.uuid4())
    ids = {api.rpc("save_email_account", **LOGIN).json() for api in (mine, theirs)}
    assert len(ids) == 2
    service = Api(stack)
    for api in (mine, theirs):
        (account,) = api.rows("email_accounts")
        saved = service.rpc(
            "save_synced_emails",
            account_id=account["id"],
            folder="INBOX",
            uidvalidity=1,
            emails=[{"uid": 1, "subject": account["id"]}],
        )
        assert saved.json() == 1
        assert [row["subject"] for row in api.rows("synced_emails")] == [account["id"]]
    assert theirs.rpc("remove_email_account", name="work").json() is True
    assert len(mine.rows("synced_emails")) == 1


def test_a_user_cannot_reach_beyond_their_own(stack: LocalStack, user: uuid.UUID) -> None:
    api = Api(stack, user)
    refused = api.rpc("save_email_account", **LOGIN, owner_id=str(uuid.uuid4()))
    assert (refused.status_code, refused.json()["code"], refused.json()["details"]) == (
        400,
        "SC003",
        "owner_id",
    )
    account = api.rpc("save_email_account", **LOGIN, owner_id=str(user)).json()
    forbidden: dict[str, dict[str, Any]] = {
        "get_email_account_secret": {"account": "work", "owner_id": str(user)},
        "plan_email_folder": {"account_id": account, "folder": "a", "uidvalidity": 1, "present": []},
        "save_synced_emails": {"account_id": account, "folder": "a", "uidvalidity": 1, "emails": []},
        "save_email_flags": {"account_id": account, "folder": "a", "uidvalidity": 1, "emails": []},
    }
    for name, arguments in forbidden.items():
        assert api.rpc(name, **arguments).status_code == 403, name


def test_the_password_comes_out_for_the_service_and_the_right_owner_only(
    stack: LocalStack, user: uuid.UUID
) -> None:
    Api(stack, user).rpc("save_email_account", **LOGIN)
    service = Api(stack)
    found = service.rpc("get_email_account_secret", account="work", owner_id=str(user)).json()
    assert (found["username"], found["password"]) == ("me", "p4ss-w0rd")
    assert service.rpc("get_email_account_secret", account="work", owner_id=str(uuid.uuid4())).json() is None
    with psycopg.connect(stack.db_url) as connection:
        connection.execute(
            "delete from vault.secrets where name = 'email_account_' || %s", [found["account_id"]]
        )
    lost = service.rpc("get_email_account_secret", account="work", owner_id=str(user))
    assert (lost.status_code, lost.json()["code"]) == (400, "SC006")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("name", ""),
        ("name", "x" * 101),
        ("host", "imap.example.com:993"),
        ("host", "a b"),
        ("username", "me\r\nA1 LOGOUT"),
        ("password", ""),
        ("password", "a\nb"),
        ("port", 0),
        ("port", 65536),
        ("tls", "maybe"),
    ],
)
def test_an_argument_that_makes_no_sense_is_named(stack: LocalStack, argument: str, value: Any) -> None:
    answer = Api(stack).rpc("save_email_account", **LOGIN | {argument: value}).json()
    assert (answer["code"], answer["details"]) == ("SC003", argument)
    assert LOGIN["password"] not in answer["message"]


@pytest.mark.parametrize(
    "host", ["imap.example.com", "localhost", "10.0.0.1", "::1", "2001:db8::7", "mail_1"]
)
def test_a_host_is_a_name_or_an_address(stack: LocalStack, host: str, user: uuid.UUID) -> None:
    assert Api(stack, user).rpc("save_email_account", **LOGIN | {"host": host}).status_code == 200
