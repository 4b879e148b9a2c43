"""Logging in by OAuth, with a real server that takes XOAUTH2 and a small provider of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.sql import SQL

from supabase_chunks import ChunksClient
from supabase_chunks.local import LocalStack
from tests.e2e.mail import DOVECOT, MailServer, dovecot
from tests.e2e.oauth import Provider, provider
from tests.e2e.syncing import letter, saved, stored, sync
from tests.polling import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(DOVECOT is None, reason="Debian's dovecot-imapd is not installed")


@pytest.fixture
def tokens(mail_stack: LocalStack) -> Iterator[Provider]:
    """A provider of tokens. In the end none of them is in a log, nor in a table outside the Vault."""
    with provider() as running:
        yield running
    assert secrets_in(everything_written(mail_stack), running) == []


@pytest.fixture
def server(pem: tuple[Path, Path], tokens: Provider) -> Iterator[MailServer]:
    """A Dovecot that takes its tokens, and asks anew each time."""
    with dovecot(*pem, introspection_url=f"{tokens.url}/introspect?") as running:
        running.deliver(letter(n) for n in range(30))
        yield running


def oauth(tokens: Provider) -> dict[str, Any]:
    """How the account gets its tokens."""
    custom = {"provider": "custom", "client_id": "client-1", "token_url": f"{tokens.url}/token"}
    return {"password": None, "oauth": custom | {"refresh_token": "refresh-0"}}


def secrets_in(text: str, tokens: Provider) -> list[str]:
    """The tokens, and the client secret, that stand in a text."""
    return [secret for secret in {"client-secret-1", *tokens.given} if secret in text]


def everything_written(stack: LocalStack) -> str:
    """All logs, and all rows of all tables but those of the Vault."""

    def logs() -> list[str]:
        texts = [path.read_text(errors="replace") for path in stack.logs.rglob("*.log")]
        # The handler has a line of its own only when something was wrong.
        return texts if any('"function":"background-sync-processor"' in text for text in texts) else []

    texts = until(logs)
    assert [path for path in stack.logs.rglob("sync-emails.log") if path.stat().st_size]
    with psycopg.connect(stack.db_url) as connection:
        tables = connection.execute(
            "select oid::regclass::text from pg_class where relkind = 'r' and relnamespace::regnamespace::text"
            " not in ('pg_catalog', 'information_schema', 'vault')"
        ).fetchall()
        for (table,) in tables:
            rows = connection.execute(SQL(f"select t::text from {table} t"))
            texts += [row for (row,) in rows]
    assert ("email_accounts",) in tables
    return "\n".join(texts)


def test_chunks_at_the_same_time_renew_a_token_once_and_rotate_it(
    mail_stack: LocalStack, mail_client: ChunksClient, server: MailServer, tokens: Provider, account: str
) -> None:
    tokens.delay = 0.3
    with saved(mail_client, account, server, **oauth(tokens)):
        jobs = [
            mail_client.trigger_sync("email", payload={"account": account, "batch_size": 5}) for _ in range(2)
        ]
        for job in jobs:
            job.wait(timeout=60)
        assert len(stored(mail_stack, account)) == 30
        assert tokens.renewals == 1
        assert tokens.asked[0] == {
            "grant_type": "refresh_token",
            "client_id": "client-1",
            "refresh_token": "refresh-0",
            "client_secret": "client-secret-1",
        }
        assert secrets_in(everything_written(mail_stack), tokens) == []


def test_a_token_that_is_revoked_before_its_time_is_renewed_by_the_rotated_one(
    mail_stack: LocalStack, mail_client: ChunksClient, server: MailServer, tokens: Provider, account: str
) -> None:
    with saved(mail_client, account, server, **oauth(tokens)):
        assert sync(mail_client, account).progress().status == "completed"
        (rotated,) = tokens.refresh_tokens
        tokens.revoke()
        with psycopg.connect(mail_stack.db_url) as connection:
            # The session that is open would stay so; another address is another login.
            connection.execute("update public.email_accounts set tls = 'none' where name = %s", [account])
        assert sync(mail_client, account).progress().status == "completed"
        assert tokens.renewals == 2
        assert tokens.asked[1]["refresh_token"] == rotated


def test_an_expired_token_is_renewed_without_asking_the_server(
    mail_stack: LocalStack, mail_client: ChunksClient, server: MailServer, tokens: Provider, account: str
) -> None:
    tokens.lifetime = 30  # Less than the minute that a token must last when it is handed out.
    with saved(mail_client, account, server, **oauth(tokens)):
        assert sync(mail_client, account).progress().status == "completed"
        assert tokens.renewals >= 1
        assert len(stored(mail_stack, account)) == 30


@pytest.mark.parametrize("refusal", ["invalid_grant", "interaction_required"])
def test_access_that_is_gone_fails_for_good_and_says_what_to_do(
    mail_stack: LocalStack,
    mail_client: ChunksClient,
    server: MailServer,
    tokens: Provider,
    account: str,
    refusal: str,
) -> None:
    tokens.refusal = (400, refusal)
    with saved(mail_client, account, server, **oauth(tokens)):
        for _ in range(2):
            (chunk,) = sync(mail_client, account).chunks(status="failed")
            assert chunk.attempts == 1
            assert "has to be given access again: run supabase-chunks email login" in str(chunk.error)
        # The provider is not asked again and again.
        assert tokens.renewals == 1
        (found,) = [one for one in mail_client.email.accounts() if one.name == account]
        assert (found.auth, found.reauth_required) == ("xoauth2", True)
        tokens.refusal = None
        with saved(mail_client, account, server, **oauth(tokens)):
            assert sync(mail_client, account).progress().status == "completed"


def test_a_provider_that_is_away_is_tried_again(
    mail_client: ChunksClient, server: MailServer, tokens: Provider, account: str
) -> None:
    tokens.refusal = (503, "temporarily_unavailable")
    with saved(mail_client, account, server, **oauth(tokens)):
        job = mail_client.trigger_sync("email", payload={"account": account}, max_retries=0)
        job.wait(timeout=60, raise_on_failure=False)
        assert "custom answered 503 instead of renewing a token" in str(job.chunks()[0].error)
        (found,) = [one for one in mail_client.email.accounts() if one.name == account]
        assert not found.reauth_required
