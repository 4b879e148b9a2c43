"""`supabase-chunks email login`: consent with a small provider, in a browser that follows redirects."""

from __future__ import annotations

import re
import webbrowser
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg
import pytest
from click.testing import CliRunner

from supabase_chunks.cli import cli
from supabase_chunks.commands import oauth
from tests.e2e.mail import DOVECOT, HOST, dovecot
from tests.e2e.oauth import Provider, provider
from tests.e2e.syncing import letter, stored, sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from supabase_chunks import ChunksClient
    from supabase_chunks.local import LocalStack


@pytest.fixture
def tokens() -> Iterator[Provider]:
    """A provider of tokens, which takes none yet."""
    with provider() as running:
        running.refresh_tokens.clear()
        yield running


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a browser shows in the end, which a stranger on the machine has tried to be ahead of."""
    shown: list[str] = []

    def visit(url: str) -> bool:
        query = parse_qs(urlsplit(url).query)
        back = query["redirect_uri"][0]
        for stranger in (
            {"code": "forged"},
            {"code": "forged", "state": "guessed"},
            {"error": "x", "state": ""},
        ):
            assert httpx.get(back, params=stranger).status_code == 404
        shown.append(httpx.get(url, follow_redirects=True).raise_for_status().text)
        return True

    monkeypatch.setattr(webbrowser, "open", visit)
    return shown


@pytest.fixture
def removed(mail_client: ChunksClient, account: str) -> Iterator[str]:
    """The account's name; what is saved under it goes."""
    yield account
    mail_client.email.remove_account(account)


def login(stack: LocalStack, *arguments: str, code: int = 0, **environment: str) -> str:
    """Run the command, and return everything that it says."""
    project = {"SUPABASE_URL": stack.url, "SUPABASE_SECRET_KEY": stack.secret_key}
    done = CliRunner().invoke(cli, ["email", "login", *arguments], env=project | environment)
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done.output


def custom(tokens: Provider, account: str, *more: str) -> list[str]:
    """The arguments for the small provider."""
    where = ["--authorize-url", f"{tokens.url}/authorize", "--token-url", f"{tokens.url}/token"]
    return ["custom", account, "--client-id", "client-1", *where, *more]


def in_vault(stack: LocalStack, account: str) -> dict[str, str]:
    """What the Vault has of an account."""
    with psycopg.connect(stack.db_url) as connection:
        row = connection.execute(
            "select s.decrypted_secret::jsonb from vault.decrypted_secrets s"
            " join public.email_accounts a on s.name = 'email_account_' || a.id where a.name = %s",
            [account],
        ).fetchone()
    assert row is not None
    found: dict[str, str] = row[0]
    return found


@pytest.mark.skipif(DOVECOT is None, reason="Debian's dovecot-imapd is not installed")
def test_who_gives_access_can_sync_and_give_it_again(
    mail_stack: LocalStack,
    mail_client: ChunksClient,
    pem: tuple[Path, Path],
    tokens: Provider,
    pages: list[str],
    removed: str,
) -> None:
    account = removed
    with dovecot(*pem, introspection_url=f"{tokens.url}/introspect?") as server:
        server.deliver(letter(n) for n in range(3))
        where = ["--username", "dove", "--host", HOST, "--port", str(server.port), "--tls", "starttls"]
        said = login(mail_stack, *custom(tokens, account, *where, "--scope", "mail offline"))
        assert f"The account {account} has access as dove." in said
        assert "You can close this page" in pages[0]
        assert tokens.consents[0]["scope"] == "mail offline"
        assert tokens.consents[0]["login_hint"] == "dove"
        (given,) = tokens.refresh_tokens
        assert in_vault(mail_stack, account)["refresh_token"] == given
        assert tokens.asked[0]["code_verifier"] not in said
        assert given not in said
        assert sync(mail_client, account).progress().status == "completed"
        assert len(stored(mail_stack, account)) == 3

        # Access is taken away, and given again: what is known of the account need not be said again.
        tokens.refresh_tokens.clear()
        tokens.revoke()
        with psycopg.connect(mail_stack.db_url) as connection:
            # The session that is open would stay so; another way is another login.
            connection.execute("update public.email_accounts set tls = 'none' where name = %s", [account])
        (failed,) = sync(mail_client, account).chunks(status="failed")
        assert "supabase-chunks email login" in str(failed.error)
        login(mail_stack, *custom(tokens, account))
        (found,) = [one for one in mail_client.email.accounts() if one.name == account]
        assert (found.port, found.tls, found.reauth_required) == (server.port, "none", False)
        assert sync(mail_client, account).progress().status == "completed"


@pytest.mark.parametrize(
    ("name", "host", "redirect", "asks"),
    [
        (
            "google",
            "imap.gmail.com",
            r"http://127\.0\.0\.1:\d+",
            {"scope": "https://mail.google.com/", "access_type": "offline", "prompt": "consent"},
        ),
        (
            "microsoft",
            "outlook.office365.com",
            r"http://localhost:\d+",
            {"scope": "https://outlook.office.com/IMAP.AccessAsUser.All offline_access"},
        ),
    ],
)
def test_the_large_providers_are_known(
    mail_stack: LocalStack,
    mail_client: ChunksClient,
    monkeypatch: pytest.MonkeyPatch,
    tokens: Provider,
    pages: list[str],
    removed: str,
    name: str,
    host: str,
    redirect: str,
    asks: dict[str, str],
) -> None:
    known = oauth.PROVIDERS[name]
    here = replace(known, authorize_url=f"{tokens.url}/authorize", token_url=f"{tokens.url}/token")
    monkeypatch.setitem(oauth.PROVIDERS, name, here)
    secret = {known.secret_name: "client-secret-1"}
    said = login(
        mail_stack, name, removed, "--client-id", "client-1", "--username", "me@example.com", **secret
    )
    assert f"needs EMAIL_OAUTH_{name.upper()}_CLIENT_SECRET, too" in said
    assert "client-secret-1" not in said
    (consent,), (form,) = tokens.consents, tokens.asked
    assert consent.items() >= asks.items()
    assert re.fullmatch(redirect, consent["redirect_uri"])
    assert form["redirect_uri"] == consent["redirect_uri"]
    assert form["client_secret"] == "client-secret-1"
    assert "client_secret" not in consent
    (given,) = tokens.refresh_tokens
    assert in_vault(mail_stack, removed) == {
        "provider": name,
        "client_id": "client-1",
        "refresh_token": given,
    }
    (found,) = [one for one in mail_client.email.accounts() if one.name == removed]
    assert (found.host, found.port, found.tls, found.auth) == (host, 993, "implicit", "xoauth2")


def test_what_is_not_given_is_said_and_nothing_is_saved(
    mail_stack: LocalStack, mail_client: ChunksClient, tokens: Provider, pages: list[str], account: str
) -> None:
    arguments = custom(tokens, account, "--username", "dove", "--host", HOST)
    tokens.denial = "access_denied"
    assert "the provider says access_denied" in login(mail_stack, *arguments, code=1)
    tokens.denial = "<script>"
    assert "the provider says no." in login(mail_stack, *arguments, code=1)
    tokens.denial = None
    tokens.refusal = (401, "invalid_client")
    said = login(mail_stack, *arguments, code=1, EMAIL_OAUTH_CUSTOM_CLIENT_SECRET="client-secret-1")
    assert "invalid_client. Is EMAIL_OAUTH_CUSTOM_CLIENT_SECRET set, and right?" in said
    assert "client-secret-1" not in said
    tokens.refusal = (503, "Not Now")
    assert "custom answered 503 instead of tokens" in login(mail_stack, *arguments, code=1)
    tokens.refusal, tokens.offline = None, False
    assert "custom gave no refresh token" in login(mail_stack, *arguments, code=1)
    assert account not in [one.name for one in mail_client.email.accounts()]


def test_nobody_is_waited_for_without_end_and_no_browser_is_opened_that_was_not_wanted(
    mail_stack: LocalStack, tokens: Provider, pages: list[str], account: str
) -> None:
    arguments = custom(tokens, account, "--username", "dove", "--host", HOST)
    said = login(mail_stack, *arguments, "--no-browser", "--timeout", "0.1s", code=3)
    assert f"{tokens.url}/authorize?response_type=code" in said
    assert "Nobody gave access" in said
    assert pages == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["google", "{}", "--client-id", "a"], "There is no account '{}' yet: --username is needed"),
        (["google", "{}", "--client-id", "a", "--scope", "b"], "--scope goes with the provider custom only"),
        (["custom", "{}", "--client-id", "a"], "The provider custom needs --authorize-url"),
        (
            [
                "custom",
                "{}",
                "--client-id",
                "a",
                "--authorize-url",
                "https://a.example",
                "--token-url",
                "http://b",
            ],
            "--token-url must be an https URL",
        ),
        (
            ["custom", "{}", "--client-id", "a", "--authorize-url", "https://[", "--token-url", "https://b"],
            "--authorize-url must be an https URL",
        ),
        (["google", "{}"], "Missing option '--client-id'"),
        (["yahoo", "{}", "--client-id", "a"], "'yahoo' is not one of 'google', 'microsoft', 'custom'"),
    ],
)
def test_what_is_missing_is_said_before_anybody_is_asked(
    mail_stack: LocalStack, pages: list[str], account: str, arguments: list[str], words: str
) -> None:
    said = login(mail_stack, *(argument.format(account) for argument in arguments), code=2)
    assert words.format(account) in said
    assert pages == []
