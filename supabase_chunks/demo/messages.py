"""The messages of the demo: made up with the standard library, or read from an mbox file."""

from __future__ import annotations

import mailbox
import random
from datetime import UTC, datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import TYPE_CHECKING

from supabase_chunks.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SEED = 20_261_125
_PEOPLE = (
    ("Ada Lovelace", "ada"),
    ("Grace Hopper", "grace"),
    ("Łukasz Żółkiewski", "lukasz"),
    ("山田 花子", "hanako"),
    ("Ольга Ладыженская", "olga"),
    ("محمد بن موسى", "musa"),
    ("Zoë Müller", "zoe"),
)
_SUBJECTS = (
    "Minutes of the Tuesday meeting",
    "Re: your invoice {number}",
    "Rechnung {number} für März — bitte prüfen",
    "議事録 {number}: 四半期の計画",
    "Счёт № {number} оплачен",
    "تقرير رقم {number}",
    "Αναφορά {number}",
    "Order {number} has shipped 📦",
    "Ein langer Betreff, der gefaltet werden muss, weil er über die Zeile hinausgeht, für Vorgang {number}",
)
_SENTENCES = (
    "The build is green again.",
    "Could you look at the numbers for March?",
    "Die Lieferung kommt am Donnerstag.",
    "会議は三時からです。",
    "Встречаемся в пятницу.",
    "Please find the details below.",
    "Thanks — that is exactly what we needed.",
)


def made_up(count: int) -> Iterator[bytes]:
    """Yield varied messages, the same at each run: plain, HTML, with attachments, in many scripts."""
    chance = random.Random(_SEED)  # noqa: S311 - no secret
    sent = datetime(2026, 1, 5, 8, 30, tzinfo=UTC)
    for number in range(1, count + 1):
        sent += timedelta(minutes=chance.randint(1, 240))
        yield _message(number, sent, chance).as_bytes()


def _message(number: int, sent: datetime, chance: random.Random) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    sender, *recipients = chance.sample(_PEOPLE, chance.randint(2, 4))
    message["From"] = _address(sender)
    message["To"] = [_address(person) for person in recipients]
    message["Subject"] = chance.choice(_SUBJECTS).format(number=number)
    message["Date"] = format_datetime(sent)
    message["Message-ID"] = f"<demo-{number}@example.com>"
    if number > 1 and chance.random() < 0.3:
        message["In-Reply-To"] = f"<demo-{chance.randint(1, number - 1)}@example.com>"
    text = "\n\n".join(" ".join(chance.choices(_SENTENCES, k=5)) for _ in range(chance.randint(1, 6)))
    message.set_content(text)
    if chance.random() < 0.5:
        paragraphs = "".join(f"<p>{paragraph}</p>" for paragraph in text.split("\n\n"))
        message.add_alternative(f"<html><body>{paragraphs}</body></html>", subtype="html")
    if chance.random() < 0.2:
        data = chance.randbytes(chance.randint(1_000, 20_000))
        message.add_attachment(data, maintype="application", subtype="pdf", filename=f"Beleg-№{number}.pdf")
    for depth, part in enumerate(message.walk()):
        if part.is_multipart():
            part.set_boundary(f"=_demo_{number}_{depth}")  # else a random one
    return message


def _address(person: tuple[str, str]) -> Address:
    name, user = person
    return Address(name, user, "example.com")


def from_mbox(path: Path) -> list[bytes]:
    """Read the messages of an mbox file, as they are.

    Raises:
        DemoError: The file is missing, cannot be read, or has no messages.
    """
    try:
        with path.open("rb") as file:
            file.read(1)
        box = mailbox.mbox(path, create=False)
        try:
            messages = [box.get_bytes(key) for key in box.iterkeys()]
        finally:
            box.close()
    except (OSError, mailbox.Error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DemoError(f"The file {path} cannot be read: {why}.") from error
    if not messages:
        raise DemoError(f"There are no messages in {path}: an mbox file has a line 'From …' before each.")
    return messages
