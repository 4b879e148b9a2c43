"""The cases after public reports that concern mail, from the folder beside the project where it is there."""

from __future__ import annotations

import html
import mailbox
import os
import re
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.mail import DOVECOT, HOST, MailServer, dovecot, pymap
from tests.e2e.scripted import message, scripted, within
from tests.e2e.syncing import saved, stored, sync
from tests.polling import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supabase_chunks import ChunksClient
    from supabase_chunks.local import LocalStack

CASES = Path(os.environ.get("SAMPLE_CASES", Path(__file__).resolve().parents[3] / "shared/data/cases"))
LOGIN: dict[str, Any] = {"username": "me", "password": "pw"}

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"there are no cases in {CASES}")


def lines(name: str) -> list[str]:
    """The lines of a case without its comments."""
    return [line for line in (CASES / name).read_text().splitlines() if not line.startswith("#")]


def found_in(name: str, pattern: str, charset: str = "utf-8") -> str:
    """What a pattern finds in a case, decoded."""
    raw = (CASES / name).read_bytes().replace(b"\r\n", b"\n")
    (found,) = re.findall(pattern.encode(), raw)[:1]
    return str(found.decode(charset)).strip()


def synced(
    stack: LocalStack, client: ChunksClient, account: str, server: MailServer, messages: list[bytes]
) -> dict[str, dict[str, Any]]:
    """The rows of messages that went through a mailbox, by the ids in their headers."""
    server.deliver(messages)
    with saved(client, account, server):
        assert sync(client, account).progress().status == "completed"
        return {row["message_id"]: row for row in stored(stack, account)}


@pytest.fixture
def server(pem: tuple[Path, Path]) -> Iterator[MailServer]:
    """A mailbox that keeps every byte, where one is installed."""
    with pymap(*pem) if DOVECOT is None else dovecot(*pem) as running:
        yield running


def test_the_messages_are_stored_with_the_right_values(
    mail_stack: LocalStack, mail_client: ChunksClient, account: str, server: MailServer
) -> None:
    large = runpy.run_path(str(CASES / "make_large.py"))
    messages = [path.read_bytes() for path in sorted(CASES.glob("*.eml"))]
    dated = [entry.as_bytes() for entry in mailbox.mbox(CASES / "odd-dates.mbox", create=False)]
    messages += [*dated, large["huge_to_header"](), large["nested"](300)]
    rows = synced(mail_stack, mail_client, account, server, messages)
    assert len(rows) == len(messages)

    sent = {number: rows[f"<date-{number}@example.com>"]["sent_at"] for number in ("03", "04", "05", "07")}
    assert [sent[number].isoformat() for number in ("03", "04")] == ["2026-11-03T07:00:00+00:00"] * 2
    assert sent["05"] is None
    assert "no date" in rows["<date-05@example.com>"]["parse_error"]
    assert sent["07"].isoformat() == "2017-01-01T00:00:00+00:00"

    text = html.unescape(found_in("html-entities.eml", r"<p>(.*?)</p>")).replace("\xa0", " ")
    preview = rows["<entities@example.de>"]["preview"]
    assert text in preview
    assert not re.search(r"&\w+;|[\u034f\u200c]", preview)

    latin = rows["<latin-1@example.com>"]
    for column, field in (("subject", "Subject: (.*)"), ("preview", "\n\n(.*)")):
        assert latin[column] == found_in("raw-latin1-headers.eml", field, "latin-1")
    assert latin["from_addresses"][0]["name"] == found_in("raw-latin1-headers.eml", "From: (.*) <", "latin-1")
    old = rows["<u7@example.com>"]
    assert old["subject"] == found_in("utf7.eml", r"Subject: =\?utf-7\?Q\?(.*)\?=", "utf-7")
    assert old["preview"] == found_in("utf7.eml", r"\n\n(.*)", "utf-7")

    everybody = rows["<everybody@example.com>"]
    assert [everybody["subject"], everybody["preview"]] == ["To everybody", "Hello all."]
    assert everybody["sent_at"].isoformat() == "2026-11-03T08:00:00+00:00"
    assert "to has 4200 addresses" in everybody["parse_error"]
    assert len(everybody["to_addresses"]) == 1000
    nested = rows["<nested@example.com>"]
    assert [nested["subject"], nested["sent_at"] is None] == ["Nested", False]
    assert nested["preview"] == "the first text" or nested["parse_error"]


def test_flags_that_nobody_asked_for_overwrite_nothing(
    mail_stack: LocalStack, mail_client: ChunksClient, account: str
) -> None:
    said = [
        line.removeprefix("S: ") for line in lines("imap-unsolicited-fetch.txt") if line.startswith("S: * ")
    ]
    assert len(said) == 6

    def script(command: str) -> list[str] | None:
        if "BODY.PEEK" not in command or not command.startswith("UID FETCH 1:3 "):
            return None
        whole = [message(int(line.split()[1]), command) if "BODY[]" in line else line for line in said]
        return [*whole, "TAG OK FETCH completed"]

    with scripted(script, [900]) as server:
        login = LOGIN | {"host": HOST, "port": server.port, "tls": "none"}
        mail_client.email.save_account(account, **login)
        sync(mail_client, account)
        (before,) = stored(mail_stack, account)
        server.uids[:] = [1, 2, 3, 900]
        job = sync(mail_client, account)
        rows = stored(mail_stack, account)
        mail_client.email.remove_account(account)
    assert job.progress().items_processed == 3
    assert [(row["uid"], row["subject"], row["flags"]) for row in rows[:3]] == [
        (1, "Letter 1", []),
        (2, "Letter 2", ["\\Seen"]),
        (3, "Letter 3", []),
    ]
    assert [row["parse_error"] for row in rows] == [None] * 4
    kept = ("subject", "preview", "message_id", "size")
    assert [rows[3][column] for column in kept] == [before[column] for column in kept]


@pytest.mark.parametrize("variant", ["NO", "BAD", "NO, then nothing"])
def test_a_message_that_the_server_cannot_fetch_costs_no_other(
    mail_stack: LocalStack, mail_client: ChunksClient, account: str, variant: str
) -> None:
    """The answers to the first FETCH of all, to that of the broken one, and to that of its envelope."""
    answers = [re.sub(r"^S: A\d+ ", "TAG ", line) for line in lines("imap-fetch-no.txt")]
    refusals = [line for line in answers if line.startswith("TAG NO")]
    (envelope,) = [line.removeprefix("S: ") for line in answers if line.startswith("S: * 5 FETCH")]
    assert len(refusals) == 2
    if variant == "BAD":
        refusals = [refusal.replace("TAG NO", "TAG BAD") for refusal in refusals]

    def script(command: str) -> list[str] | None:
        if not command.startswith("UID FETCH"):
            return None
        uids = within(server.uids, command.split(" ")[2])
        if 5 not in uids:
            return None
        if len(uids) > 1:
            sent = [uid for uid in uids if uid < 5 or (uid > 5 and "nothing" not in variant)]
            return [*(message(uid, command) for uid in sent), refusals[0]]
        return [refusals[1]] if "BODY.PEEK" in command else [envelope, "TAG OK done"]

    with scripted(script, list(range(1, 11))) as server:
        login = LOGIN | {"host": HOST, "port": server.port, "tls": "none"}
        mail_client.email.save_account(account, **login)
        job = sync(mail_client, account)
        rows = stored(mail_stack, account)
        mail_client.email.remove_account(account)
    assert job.progress().status == "completed"
    assert [chunk.attempts for chunk in job.chunks()] == [1, 1]
    assert [row["uid"] for row in rows] == list(range(1, 11))
    assert [row["uid"] for row in rows if row["parse_error"] is not None] == [5]
    assert rows[4]["size"] == 5758
    assert [row["preview"] for row in rows if row["uid"] != 5] == [
        f"Hello {n}" for n in range(1, 11) if n != 5
    ]


def test_a_refused_login_is_taken_for_what_it_is(mail_client: ChunksClient, account: str) -> None:
    refused: list[str] = []

    def script(command: str) -> list[str] | None:
        return [f"TAG {refused[-1]}"] if command.split(" ")[0] in ("LOGIN", "AUTHENTICATE") else None

    for number, line in enumerate(lines("imap-login-refusals.txt")):
        answer, _, meaning = line.partition(" ; ")
        refused.append(answer)
        name = f"{account}-{number}"
        with scripted(script, [1]) as server:
            mail_client.email.save_account(name, **LOGIN, host=HOST, port=server.port, tls="none")
            job = mail_client.trigger_sync("email", payload={"account": name})
            if meaning.startswith("later"):
                waiting_for = until(lambda: job.progress().waiting_for)  # noqa: B023 - asked at once
                assert [waiting_for.key, job.progress().failed_chunks] == [f"email::{name}", 0]
                job.cancel()
            else:
                job.wait(timeout=30, raise_on_failure=False)
                (chunk,) = job.chunks(status="failed")
                assert chunk.attempts == 1
                assert "refused the login of me" in str(chunk.error)
            logins = [said for said in server.commands if said.startswith(("LOGIN", "AUTHENTICATE"))]
            assert len(logins) == 1
            mail_client.email.remove_account(name)
