"""A small OAuth provider on loopback: consent, tokens that are renewed, rotated and revoked, and introspection."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"


@dataclass
class Provider:
    """A running provider.

    Attributes:
        url: Where it is; `/authorize`, `/token` and `/introspect` are below.
        username: Whose tokens it gives.
        refresh_tokens: Those it takes; each once, if it rotates.
        rotates: Whether each renewal brings another refresh token.
        lifetime: Seconds that its access tokens last.
        delay: Seconds that `/token` takes.
        offline: Whether consent brings a refresh token.
        refusal: Answered at `/token` instead: a status and an error; None: nothing is refused.
        denial: The error that consent ends with; None: it is given.
        renewals: How many renewals were asked for.
        asked: The forms that came to `/token`.
        consents: What consent was asked for with.
        given: All tokens that it ever gave.
    """

    url: str
    username: str = "dove"
    refresh_tokens: set[str] = field(default_factory=lambda: {"refresh-0"})
    rotates: bool = True
    lifetime: int = 3600
    delay: float = 0.0
    refusal: tuple[int, str] | None = None
    denial: str | None = None
    offline: bool = True
    renewals: int = 0
    asked: list[dict[str, str]] = field(default_factory=list)
    consents: list[dict[str, str]] = field(default_factory=list)
    given: set[str] = field(default_factory=lambda: {"refresh-0"})
    _access: dict[str, float] = field(default_factory=dict)
    _codes: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def revoke(self) -> None:
        """End all access tokens before their time."""
        self._access.clear()

    def authorize(self, query: dict[str, str]) -> str:
        """Consent at once; where the browser goes."""
        self.consents.append(query)
        assert query["code_challenge_method"] == "S256"
        if self.denial is not None:
            return f"{query['redirect_uri']}?{urlencode({'error': self.denial, 'state': query['state']})}"
        code = secrets.token_urlsafe()
        self._codes[code] = query["code_challenge"]
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def token(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Answer at the token endpoint."""
        time.sleep(self.delay)
        with self._lock:
            self.asked.append(form)
            if self.refusal is not None:
                self.renewals += form["grant_type"] == "refresh_token"
                return self.refusal[0], {"error": self.refusal[1]}
            if form["grant_type"] == "authorization_code":
                digest = hashlib.sha256(form["code_verifier"].encode()).digest()
                challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
                if self._codes.pop(form["code"], None) != challenge:
                    return 400, {"error": "invalid_grant"}
            else:
                self.renewals += 1
                if form["refresh_token"] not in self.refresh_tokens:
                    return 400, {"error": "invalid_grant"}
                if self.rotates:
                    self.refresh_tokens.remove(form["refresh_token"])
            answer: dict[str, Any] = {"access_token": secrets.token_urlsafe(), "expires_in": self.lifetime}
            self._access[answer["access_token"]] = time.monotonic() + self.lifetime
            if self.offline if form["grant_type"] == "authorization_code" else self.rotates:
                answer["refresh_token"] = secrets.token_urlsafe()
                self.refresh_tokens.add(answer["refresh_token"])
            self.given |= {answer["access_token"], answer.get("refresh_token", "refresh-0")}
            return 200, answer

    def introspect(self, form: dict[str, str]) -> dict[str, Any]:
        """Say whether an access token is valid."""
        if self._access.get(form["token"], 0.0) > time.monotonic():
            return {"active": True, "username": self.username}
        return {"active": False}


@contextmanager
def provider() -> Iterator[Provider]:
    """A provider."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
            self.send_response(302)
            self.send_header("location", running.authorize(query))
            self.end_headers()

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["content-length"])).decode()
            form = {key: values[0] for key, values in parse_qs(text).items()}
            status, answer = running.token(form) if self.path == "/token" else (200, running.introspect(form))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    running = Provider(f"http://{HOST}:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
