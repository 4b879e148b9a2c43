"""The way back from the browser: a server on this machine that waits for one redirect (RFC 8252)."""

from __future__ import annotations

import hmac
import queue
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from .failures import TIMEOUT, Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

_HOST = "127.0.0.1"
# An interrupt is heard between two of them, on Windows too.
_TURN = 0.5
_DONE = "This is done. You can close this page, and go on in the terminal."
_STRANGER = "Nobody waits for this."


@dataclass(frozen=True)
class Redirect:
    """A server that is waiting.

    Attributes:
        port: Where it listens.
    """

    port: int
    _answers: queue.SimpleQueue[dict[str, str]]

    def wait(self, seconds: float) -> str:
        """Return the code that the provider sends.

        Raises:
            Failure: It sends an error, or nothing in that time.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                answer = self._answers.get(timeout=min(left, _TURN))
            except queue.Empty:
                continue
            if "code" in answer:
                return answer["code"]
            raise Failure(f"Access was not given: the provider says {_word(answer.get('error', ''))}.")
        raise Failure(f"Nobody gave access within {seconds:.0f} s.", TIMEOUT)


@contextmanager
def redirect(state: str, port: int = 0) -> Iterator[Redirect]:
    """Wait on loopback for as long as the block.

    Args:
        state: What the redirect must carry: others may send requests to this port too.
        port: Where to listen; 0: anywhere.

    Raises:
        Failure: Somebody else listens there.
    """
    answers: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()

    class Handler(BaseHTTPRequestHandler):
        # A browser connects ahead of what it asks.
        timeout = 10

        def do_GET(self) -> None:
            fields = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            ours = hmac.compare_digest(fields.get("state", "").encode(), state.encode())
            self._answer(*((200, _DONE) if ours else (404, _STRANGER)))
            if ours and fields.keys() & {"code", "error"}:
                answers.put(fields)

        def _answer(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("content-type", "text/plain; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            # The code is in this page's address.
            self.send_header("referrer-policy", "no-referrer")
            self.send_header("cache-control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as it is called
            """Say nothing: the path has the code."""

    try:
        server = ThreadingHTTPServer((_HOST, port), Handler)
    except OSError as error:
        raise Failure(f"Port {port} cannot be listened to: {error.strerror}.") from None
    server.daemon_threads = True
    server.block_on_close = False
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Redirect(server.server_port, answers)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _word(error: str) -> str:
    """Return an error's name (RFC 6749), and nothing that is none: anybody may have written it."""
    known = error.isascii() and error.replace("_", "").isalnum() and len(error) <= 60
    return error if known else "no"
