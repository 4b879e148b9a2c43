"""A mailbox on an IMAP server, as the demo uses it: log in, fill, count."""

from __future__ import annotations

import imaplib
import re
import socket
import ssl
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from supabase_chunks.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Iterable

Tls = Literal["implicit", "starttls", "none"]
_SECONDS = 30.0


@dataclass(frozen=True)
class Address:
    """Where a mailbox is, and who reads it; the password is beside it."""

    host: str
    port: int
    username: str
    folder: str
    tls: Tls
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read `imaps://user@host[:port]/FOLDER`, or `imap://…` for STARTTLS (on this machine in the clear).

        Raises:
            DemoError: It is no such URL, or it has a password in it, where others could see it.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            # From None: the error's own text may have the password.
            raise DemoError("The mailbox's address is not a URL; write imaps://user@host/FOLDER.") from None
        if parts.password is not None:
            raise DemoError(
                "Leave the password out of the URL, where every process of this machine can read it:"
                " put it into the environment variable IMAP_PASSWORD, or type it when asked."
            )
        if parts.scheme not in {"imap", "imaps"} or not parts.hostname or not parts.username:
            raise DemoError(
                "The URL does not name a mailbox: write imaps://user@host/FOLDER (a user's @ as %40)."
            )
        secure = parts.scheme == "imaps"
        return cls(
            host=parts.hostname,
            port=port or (993 if secure else 143),
            username=unquote(parts.username),
            folder=unquote(parts.path.lstrip("/")) or "INBOX",
            tls="implicit" if secure else "none" if _is_here(parts.hostname) else "starttls",
        )

    def __str__(self) -> str:
        """The server, as in `imap.example.com:993`."""
        return f"{self.host}:{self.port}"


class Mailbox:
    """A session in a folder."""

    def __init__(self, address: Address) -> None:
        """Connect and log in.

        Raises:
            DemoError: The server cannot be reached, or refuses the login or the folder.
        """
        self.address = address
        self._imap = _connect(address)
        # Else each APPEND waits for the acknowledgement of its first packet: 40 ms.
        self._imap.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._imap.login(address.username, address.password)
        except imaplib.IMAP4.error as error:
            self.close()
            raise DemoError(
                f"The IMAP server {address} refused the login of {address.username!r} ({_words(error)}):"
                " check the name and the password; many providers want an app password here."
            ) from error

    def fill(self, messages: Iterable[bytes]) -> int:
        """Append messages to the folder; return how many.

        Raises:
            DemoError: The server refused one.
        """
        count = 0
        for count, message in enumerate(messages, 1):
            status, answer = self._imap.append(_quoted(self.address.folder), None, None, message)
            if status != "OK":
                raise DemoError(f"The IMAP server {self.address} refused message {count}: {answer!r}.")
        return count

    def select(self) -> int:
        """Open the folder, for reading only, and return how many messages are in it.

        Raises:
            DemoError: There is no such folder.
        """
        try:
            status, answer = self._imap.select(_quoted(self.address.folder), readonly=True)
        except imaplib.IMAP4.error as error:
            status, answer = "NO", [str(error).encode()]
        if status != "OK":
            words = b" ".join(part for part in answer if isinstance(part, bytes)).decode(errors="replace")
            raise DemoError(
                f"The folder {self.address.folder!r} of {self.address} cannot be opened: {words}."
            )
        return int(answer[0] or 0)

    def uid_validity(self) -> int:
        """The generation of the selected folder's UIDs."""
        return self._number("UIDVALIDITY")

    def next_uid(self) -> int:
        """The UID that the next message to arrive will get at least."""
        _, answer = self._imap.status(_quoted(self.address.folder), "(UIDNEXT)")
        found = re.search(rb"UIDNEXT (\d+)", b" ".join(part for part in answer if isinstance(part, bytes)))
        if found is None:
            raise DemoError(f"The IMAP server {self.address} does not say the next UID.")
        return int(found[1])

    def count(self, *, below: int) -> int:
        """How many messages with a UID below that the server counts in the folder now."""
        messages = self.select()
        # Asked for the few that came since, not for the many that were there: a line has its limit.
        _, answer = self._imap.uid("SEARCH", f"UID {below}:*")
        since = sum(1 for part in answer if part for uid in part.split() if int(uid) >= below)
        return messages - since

    def close(self) -> None:
        """Log out."""
        try:
            self._imap.logout()
        except (OSError, imaplib.IMAP4.error):
            return

    def __enter__(self) -> Mailbox:
        """Return the mailbox."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Log out."""
        self.close()

    def _number(self, name: str) -> int:
        _, answer = self._imap.response(name)
        if not answer or answer[0] is None:
            raise DemoError(f"The IMAP server {self.address} does not say {name}.")
        return int(answer[0])


def _connect(address: Address) -> imaplib.IMAP4:
    context = ssl.create_default_context()
    try:
        if address.tls == "implicit":
            return imaplib.IMAP4_SSL(address.host, address.port, ssl_context=context, timeout=_SECONDS)
        imap = imaplib.IMAP4(address.host, address.port, timeout=_SECONDS)
        if address.tls == "starttls":
            imap.starttls(context)
    except (OSError, imaplib.IMAP4.error) as error:
        raise DemoError(f"The IMAP server {address} cannot be reached: {_words(error)}.") from error
    return imap


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    first = error.args[0] if error.args else error
    return first.decode(errors="replace") if isinstance(first, bytes) else str(first)


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _quoted(folder: str) -> str:
    """A folder's name as IMAP writes it: in its own UTF-7, in quotation marks."""
    text = re.sub(r"&|[^\x20-\x7e]+", _shifted, folder)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _shifted(match: re.Match[str]) -> str:
    if match[0] == "&":
        return "&-"
    base64 = match[0].encode("utf-7")[1:].rstrip(b"-").decode()
    return "&" + base64.replace("/", ",") + "-"
