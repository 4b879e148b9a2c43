"""What one writes without this package: a script with imaplib that reads a folder and upserts the rows."""

from __future__ import annotations

import imaplib
import re
import ssl
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header, make_header
from email.utils import getaddresses, parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import supabase

if TYPE_CHECKING:
    from email.message import Message
    from uuid import UUID

    from supabase_chunks.local import LocalStack
    from tests.e2e.mail import MailServer

_ROWS = 100


def read_and_upsert(
    stack: LocalStack, server: MailServer, port: int, account: UUID, *, batch: int, most: int
) -> int:
    """Read messages of INBOX and upsert a row for each.

    Args:
        stack: Where the rows go.
        server: Whose mailbox.
        port: Where to reach it over TLS.
        account: The account of the rows.
        batch: How many messages a command asks for; 1 as in the documentation of imaplib, and in most scripts.
        most: How many messages it reads.

    Returns:
        How many rows there are.
    """
    project = supabase.create_client(stack.url, stack.secret_key)
    context = ssl.create_default_context(cafile=str(server.ca))
    imap = imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=context)
    imap.login(server.username, server.password)
    imap.select("INBOX", readonly=True)
    uidvalidity = int(imap.response("UIDVALIDITY")[1][0] or 0)  # type: ignore[arg-type]  # bytes
    uids = imap.uid("SEARCH", "ALL")[1][0].split()[:most]
    rows: list[dict[str, Any]] = []
    count = 0
    for start in range(0, len(uids), batch):
        wanted = b",".join(uids[start : start + batch]).decode()
        _, answer = imap.uid("FETCH", wanted, "(UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])")
        where = {"account_id": str(account), "folder": "INBOX", "uidvalidity": uidvalidity}
        rows += [where | _row(*part[:2]) for part in answer if isinstance(part, tuple)]
        if len(rows) >= _ROWS or start + batch >= len(uids):
            table = project.table("synced_emails")
            table.upsert(rows, on_conflict="account_id,folder,uidvalidity,uid").execute()
            count += len(rows)
            rows = []
    imap.logout()
    return count


def _row(envelope: bytes, source: bytes) -> dict[str, Any]:
    # The parser of today's default policy takes several times as long.
    message = message_from_bytes(source)
    when = imaplib.Internaldate2tuple(envelope)
    return {
        "uid": int(re.findall(rb"UID (\d+)", envelope)[0]),
        "message_id": message["Message-ID"],
        "in_reply_to": message["In-Reply-To"],
        "subject": _decoded(message["Subject"]),
        "from_addresses": _addresses(message["From"]),
        "to_addresses": _addresses(message["To"]),
        "cc_addresses": _addresses(message["Cc"]),
        "sent_at": parsedate_to_datetime(message["Date"]).isoformat(),
        "received_at": None if when is None else datetime(*when[:6], tzinfo=UTC).isoformat(),
        "size": len(source),
        "flags": [flag.decode() for flag in imaplib.ParseFlags(envelope)],
        "preview": _preview(message),
    }


def _preview(message: Message) -> str:
    for part in message.walk():
        if part.get_content_maintype() == "text":
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            return " ".join(content.decode(part.get_content_charset("utf-8"), "replace").split())[:200]
    return ""


def _decoded(header: str | None) -> str:
    return str(make_header(decode_header(header or "")))


def _addresses(header: str | None) -> list[dict[str, str]]:
    return [{"name": _decoded(name), "address": address} for name, address in getaddresses([header or ""])]
