"""Email from end to end: the SDK starts a sync, the functions read a real IMAP server into the table."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from supabase_chunks import ChunksClient
from supabase_chunks.local import LocalStack
from tests.e2e.cutting import cutting
from tests.e2e.mail import DOVECOT, HOST, MailServer, certificate, dovecot, pymap
from tests.e2e.syncing import finish, letter, saved, stored, sync

SAMPLES = Path(os.environ.get("SAMPLE_MAIL", Path(__file__).resolve().parents[3] / "shared/data/mail"))

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the mail servers of these tests run on Unix only")
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"there are no sample messages in {SAMPLES}")
needs_dovecot = pytest.mark.skipif(DOVECOT is None, reason="Debian's dovecot-imapd is not installed")


@pytest.fixture(scope="module")
def stack(mail_stack: LocalStack) -> LocalStack:
    """The stack whose functions trust the mail servers."""
    return mail_stack


@pytest.fixture(scope="module")
def client(mail_client: ChunksClient) -> ChunksClient:
    """The SDK on it."""
    return mail_client


def error_of(job: Any) -> str:
    """The error of the only chunk that failed, which nothing was tried again for."""
    (chunk,) = job.chunks(status="failed")
    assert chunk.attempts == 1
    return str(chunk.error)


@contextmanager
def anywhere(stack: LocalStack, port: int, *, private: bool = True) -> Iterator[None]:
    """Users' accounts may be at this port and, unless told otherwise, on this machine, for as long as the block."""
    with psycopg.connect(stack.db_url, autocommit=True) as database:
        change = "select public.save_chunk_settings(%s)"
        settings = {"user_email_ports": [143, 993, port], "user_email_private_hosts": private}
        database.execute(change, (Jsonb(settings),))
        yield
        database.execute(change, (Jsonb(dict.fromkeys(settings)),))


def sample_messages() -> list[bytes]:
    """The messages, in a fixed order."""
    return [path.read_bytes() for path in sorted(SAMPLES.rglob("*.eml"))]


def check_samples(stack: LocalStack, client: ChunksClient, account: str) -> None:
    """Sync the sample mailbox twice and look at what is in the table."""
    job = sync(client, account, batch_size=20)
    rows = stored(stack, account)
    assert job.progress().status == "completed"
    assert len(rows) == 103
    assert job.progress().items_processed == job.progress().items_total == 103
    assert {"まみむめも", "NOTE: 한국말로 하는 것", "Säying Hello"} <= {row["subject"] for row in rows}
    assert all(row["size"] > 0 and row["received_at"] for row in rows)
    assert [row for row in rows if row["preview"] and "<html" in row["preview"].lower()] == []

    again = sync(client, account, batch_size=20)
    assert again.progress().status == "completed"
    assert [chunk.result["to_fetch"] for chunk in again.chunks()] == [0]
    assert stored(stack, account) == rows

    forced = sync(client, account, **{"from": 1, "to": 4_000_000_000})
    assert [chunk.result["changed"] for chunk in forced.chunks()] == [0]
    assert stored(stack, account) == rows


@needs_samples
def test_every_sample_message_is_stored_from_pymap_and_a_second_sync_adds_nothing(
    stack: LocalStack, client: ChunksClient, server: MailServer, account: str
) -> None:
    server.deliver(sample_messages())
    with saved(client, account, server):
        check_samples(stack, client, account)


@needs_samples
@needs_dovecot
@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_every_sample_message_is_stored_from_dovecot(
    stack: LocalStack, client: ChunksClient, pem: tuple[Path, Path], account: str, tls: str
) -> None:
    with dovecot(*pem) as server:
        server.deliver(sample_messages())
        port = server.tls_port if tls == "implicit" else server.port
        with saved(client, account, server, tls=tls, port=port):
            check_samples(stack, client, account)


def test_a_later_sync_fetches_only_what_is_new(
    stack: LocalStack, client: ChunksClient, server: MailServer, account: str
) -> None:
    server.deliver(letter(n) for n in range(3))
    with saved(client, account, server):
        sync(client, account)
        server.deliver([letter(3), letter(4)], flags=r"\Seen")
        job = sync(client, account)
        assert [chunk.result.get("fetched") for chunk in job.chunks()] == [None, 2]
        rows = stored(stack, account)
    assert [row["subject"] for row in rows] == [f"Grüße {n}" for n in range(5)]
    assert rows[4]["from_addresses"] == [{"name": "Ann", "address": "ann4@example.com"}]
    assert rows[4]["sent_at"].isoformat() == "2026-11-02T09:04:00+00:00"
    assert r"\Seen" in rows[4]["flags"]
    assert rows[4]["preview"] == "Hello 4"
    assert rows[4]["body_text"] is None


def test_what_an_earlier_failure_left_out_is_fetched_by_the_next_sync(
    stack: LocalStack, client: ChunksClient, server: MailServer, account: str
) -> None:
    server.deliver(letter(n) for n in range(6))
    with saved(client, account, server):
        sync(client, account)
        with psycopg.connect(stack.db_url) as connection:
            connection.execute("delete from public.synced_emails where subject in ('Grüße 1', 'Grüße 4')")
        job = sync(client, account)
        assert job.progress().items_total == 2
        assert len(stored(stack, account)) == 6


def test_two_folders_are_synced_and_a_missing_one_does_not_stop_the_other(
    stack: LocalStack, client: ChunksClient, server: MailServer, account: str
) -> None:
    server.deliver([letter(1), letter(2)])
    server.deliver([letter(3), letter(4)], folder="Archive")
    with saved(client, account, server):
        both = sync(client, account, folders=["INBOX", "Archive"])
        assert both.progress().status == "completed"
        assert {(row["folder"], row["subject"]) for row in stored(stack, account)} == {
            ("INBOX", "Grüße 1"),
            ("INBOX", "Grüße 2"),
            ("Archive", "Grüße 3"),
            ("Archive", "Grüße 4"),
        }
        server.deliver([letter(5)])
        one = sync(client, account, folders=["Lost", "INBOX"])
        assert one.progress().status == "failed"
        assert error_of(one) == 'sync-emails answered 422: the account has no folder "Lost"'
        assert len(stored(stack, account)) == 5


@needs_dovecot
def test_a_folder_is_called_by_its_name_in_any_script(
    stack: LocalStack, client: ChunksClient, pem: tuple[Path, Path], account: str
) -> None:
    with dovecot(*pem) as server:
        server.deliver([letter(1)], folder="Entw&APw-rfe &- mehr")
        with saved(client, account, server):
            sync(client, account, folder="Entwürfe & mehr")
            assert [row["folder"] for row in stored(stack, account)] == ["Entwürfe & mehr"]


def test_a_changed_uidvalidity_starts_over(
    stack: LocalStack, client: ChunksClient, pem: tuple[Path, Path], account: str
) -> None:
    with pymap(*pem) as first:
        first.deliver(letter(n) for n in range(3))
        client.email.save_account(
            account, host=HOST, port=first.port, tls="starttls", username="demouser", password="demopass"
        )
        sync(client, account)
    with pymap(*pem, port=first.port) as second:
        second.deliver([letter(7), letter(8)])
        sync(client, account)
    rows = stored(stack, account)
    client.email.remove_account(account)
    assert len({row["uidvalidity"] for row in rows}) == 2
    assert sorted(row["subject"] for row in rows if row["deleted_at"] is None) == ["Grüße 7", "Grüße 8"]
    assert len(rows) == 5


def test_a_range_of_an_older_uidvalidity_is_planned_again(
    stack: LocalStack, client: ChunksClient, server: MailServer, account: str
) -> None:
    server.deliver([letter(1)])
    with saved(client, account, server):
        job = sync(client, account, uidvalidity=1, **{"from": 1, "to": 9})
        assert job.progress().status == "completed"
        assert job.chunks()[0].result["renumbered"]["was"] == 1
        assert len(stored(stack, account)) == 1


def test_a_full_sync_notes_flags_and_deletions(
    stack: LocalStack, client: ChunksClient, server: MailServer, account: str
) -> None:
    server.deliver(letter(n) for n in range(4))
    with saved(client, account, server):
        sync(client, account)
        with server.session() as imap:
            imap.select("INBOX")
            imap.store("1", "+FLAGS", r"(\Flagged)")
            imap.store("3", "+FLAGS", r"(\Deleted)")
            imap.expunge()
        sync(client, account)
        assert all(row["deleted_at"] is None for row in stored(stack, account))
        job = sync(client, account, full=True)
        assert job.progress().status == "completed"
        rows = stored(stack, account)
    assert [row["deleted_at"] is not None for row in rows] == [False, False, True, False]
    assert [r"\Flagged" in row["flags"] for row in rows] == [True, False, False, False]


def test_bodies_are_stored_when_asked_for(
    stack: LocalStack, client: ChunksClient, server: MailServer, account: str
) -> None:
    server.deliver([letter(1)])
    with saved(client, account, server):
        sync(client, account, body=True)
        assert stored(stack, account)[0]["body_text"].strip() == "Hello 1"


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"password": "wrong"}, "refused the login of demouser"),
        ({"username": "nobody"}, "refused the login of nobody"),
    ],
)
def test_a_refused_login_fails_for_good_and_says_so(
    client: ChunksClient, server: MailServer, account: str, over: dict[str, str], message: str
) -> None:
    with saved(client, account, server, **over):
        job = sync(client, account)
        assert message in error_of(job)
        assert "demopass" not in error_of(job)


def test_a_certificate_that_nobody_trusts_fails_for_good(
    client: ChunksClient, tmp_path: Path, account: str
) -> None:
    with pymap(*certificate(tmp_path)) as server, saved(client, account, server):
        assert "is not trusted" in error_of(sync(client, account))


def test_without_tls_nothing_is_sent_unless_the_account_says_so(
    stack: LocalStack, client: ChunksClient, pem: tuple[Path, Path], account: str
) -> None:
    with pymap(*pem, tls=False) as server:
        with saved(client, account, server):
            assert "does not offer STARTTLS" in error_of(sync(client, account))
        with saved(client, account, server, tls="none"):
            assert sync(client, account).progress().status == "completed"


def test_an_unknown_account_and_another_owners_fail_for_good(
    stack: LocalStack, client: ChunksClient, server: MailServer, account: str
) -> None:
    owner, other = uuid.uuid4(), uuid.uuid4()
    with anywhere(stack, server.port), saved(client, account, server, owner_id=owner):
        assert "has no email account" in error_of(sync(client, account))
        stranger = ChunksClient(stack.url, stack.publishable_key, access_token=stack.user_token(str(other)))
        assert "has no email account" in error_of(sync(stranger, account))
        user = ChunksClient(stack.url, stack.publishable_key, access_token=stack.user_token(str(owner)))
        assert sync(user, account).progress().status == "completed"


def test_a_users_account_may_not_be_in_our_network(
    stack: LocalStack, client: ChunksClient, server: MailServer, account: str
) -> None:
    """Whether something is there or not, the error is the same."""
    owner = uuid.uuid4()
    user = ChunksClient(stack.url, stack.publishable_key, access_token=stack.user_token(str(owner)))
    server.deliver([letter(1)])
    said = set()
    with anywhere(stack, server.port, private=False):
        for host in (HOST, "localhost", "nobody.invalid"):
            with saved(client, account, server, owner_id=owner, host=host):
                job = user.trigger_sync("email", payload={"account": account}, max_retries=0)
                job.wait(timeout=30, raise_on_failure=False)
                said.add(error_of(job).replace(host, "HOST"))
    assert said == {
        f"sync-emails answered 503: HOST:{server.port} cannot be reached, or is no mail server on the internet"
    }
    with anywhere(stack, server.port), saved(client, account, server, owner_id=owner):
        assert sync(user, account).progress().status == "completed"


def test_a_server_that_is_away_is_tried_again(
    stack: LocalStack, client: ChunksClient, pem: tuple[Path, Path], account: str
) -> None:
    with pymap(*pem) as server:
        pass
    with saved(client, account, server):
        job = client.trigger_sync("email", payload={"account": account})
        for progress in job.watch(interval=0.1, timeout=30):
            if progress.retrying_chunks:
                break
        (chunk,) = job.chunks()
        assert "cannot be reached" in str(chunk.error)
        with pymap(*pem) as back:
            back.deliver([letter(1)])
            with saved(client, account, back):
                finish(client, job)
                assert len(stored(stack, account)) == 1


def test_a_message_that_breaks_the_connection_costs_no_other(
    stack: LocalStack, client: ChunksClient, pem: tuple[Path, Path], account: str
) -> None:
    with pymap(*pem, tls=False) as server, cutting(server.port, b"poison") as proxy:
        poison = letter(3).replace(b"Hello 3", b"poison")
        server.deliver([letter(1), letter(2), poison, letter(4), letter(5)], tls=False)
        with saved(client, account, server, tls="none", port=proxy.port):
            job = sync(client, account)
            assert job.progress().status == "completed"
            rows = stored(stack, account)
    assert proxy.cuts >= 2
    assert [row["subject"] for row in rows] == ["Grüße 1", "Grüße 2", None, "Grüße 4", "Grüße 5"]
    assert rows[2]["size"] > 0
    assert "did not send its content" in rows[2]["parse_error"]
    assert [row["parse_error"] for row in rows if row is not rows[2]] == [None] * 4


def test_a_connection_that_drops_once_costs_nothing(
    stack: LocalStack, client: ChunksClient, pem: tuple[Path, Path], account: str
) -> None:
    with pymap(*pem, tls=False) as server, cutting(server.port, b"Hello 3", cuts=1) as proxy:
        server.deliver([letter(n) for n in range(6)], tls=False)
        with saved(client, account, server, tls="none", port=proxy.port):
            job = sync(client, account)
            assert [chunk.attempts for chunk in job.chunks()] == [1, 1]
            assert [row["parse_error"] for row in stored(stack, account)] == [None] * 6
    assert proxy.cuts == 1


def test_a_server_that_always_breaks_off_is_tried_again_and_then_fails_readably(
    client: ChunksClient, pem: tuple[Path, Path], account: str
) -> None:
    with pymap(*pem, tls=False) as server, cutting(server.port, b"UIDVALIDITY") as proxy:
        server.deliver([letter(1)], tls=False)
        with saved(client, account, server, tls="none", port=proxy.port):
            job = client.trigger_sync("email", payload={"account": account}, max_retries=0)
            job.wait(timeout=60, raise_on_failure=False)
            assert "answered 503: the mail server broke off" in error_of(job)


def test_removing_an_account_removes_its_messages_and_its_password(
    stack: LocalStack, client: ChunksClient, server: MailServer, account: str
) -> None:
    server.deliver([letter(1)])
    with saved(client, account, server):
        sync(client, account)
        ids = {row["account_id"] for row in stored(stack, account)}
    with psycopg.connect(stack.db_url) as connection:
        left = connection.execute(
            """select (select count(*) from public.synced_emails where account_id = any(%(ids)s)),
                      (select count(*) from vault.secrets s
                       where s.name = any(select 'email_account_' || i from unnest(%(ids)s) i))""",
            {"ids": list(ids)},
        ).fetchone()
    assert left == (0, 0)
