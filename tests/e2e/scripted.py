"""A small IMAP server that answers some commands as a script says, and the others as any server would."""

from __future__ import annotations

import re
import socketserver
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
WHEN = '"03-Nov-2026 08:00:00 +0000"'

# Given a command without its tag, the answer's lines with `TAG` in the tag's place; None: the usual answer.
Script = Callable[[str], "list[str] | None"]


@dataclass
class ScriptedServer:
    """A running server.

    Attributes:
        port: Where it listens.
        uids: The messages of its only folder.
        commands: What it was told, without tags.
    """

    script: Script
    uids: list[int]
    port: int = 0
    commands: list[str] = field(default_factory=list)

    def answer(self, command: str) -> list[str]:
        """The lines of an answer."""
        name = command.upper().split(" ")[0]
        scripted = self.script(command)
        if scripted is not None:
            return scripted
        if name == "EXAMINE":
            return [f"* {len(self.uids)} EXISTS", "* OK [UIDVALIDITY 7] valid", "TAG OK [READ-ONLY] open"]
        if command.upper().startswith("UID SEARCH"):
            asked = re.search(r"UID ([\d:,*]+)", command)
            found = within(self.uids, asked[1] if asked else "1:*")
            return ["* SEARCH " + " ".join(map(str, found)), "TAG OK done"]
        if command.upper().startswith("UID FETCH"):
            return [
                *(message(uid, command) for uid in within(self.uids, command.split(" ")[2])),
                "TAG OK done",
            ]
        if name == "CAPABILITY":
            return ["* CAPABILITY IMAP4rev1", "TAG OK done"]
        return ["TAG OK done"]


def message(uid: int, command: str) -> str:
    """The line that brings what a FETCH asks of a message."""
    header = f"Subject: Letter {uid}\r\nMessage-ID: <{uid}@example.com>\r\n\r\n"
    text = f"Hello {uid}\r\n"
    line = f"* {uid} FETCH (UID {uid} FLAGS () INTERNALDATE {WHEN} RFC822.SIZE {len(header + text)}"
    for section, first in re.findall(r"BODY\.PEEK\[(\w+)\]<(\d+)", command):
        content = header if section == "HEADER" else text
        line += f" BODY[{section}]<{first}> {{{len(content)}}}\r\n{content}"
    return line + ")"


def within(uids: list[int], asked: str) -> list[int]:
    """Those of the UIDs that a set names."""
    found = []
    for part in asked.split(","):
        first, _, last = part.partition(":")
        most = max(uids) if (last or first) == "*" else int(last or first)
        found += [uid for uid in uids if int(first) <= uid <= most]
    return found


@contextmanager
def scripted(script: Script, uids: list[int]) -> Iterator[ScriptedServer]:
    """A server with such messages."""
    state = ScriptedServer(script, uids)

    class Session(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"* OK ready\r\n")
            for line in self.rfile:
                tag, _, command = line.decode().strip().partition(" ")
                state.commands.append(command)
                answer = "\r\n".join(state.answer(command)) + "\r\n"
                self.wfile.write(re.sub(r"(?m)^TAG ", f"{tag} ", answer).encode())

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server((HOST, 0), Session) as server:
        state.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield state
        server.shutdown()
