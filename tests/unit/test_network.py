"""Proxies and certificates of the environment: what cannot be used is named, and loopback goes past them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from supabase_chunks import AsyncChunksClient, ChunksClient, ConfigurationError, ConnectionFailed, Retry
from supabase_chunks._network import is_loopback

ONCE = Retry(attempts=1)
VARIABLES = {"all_proxy", "http_proxy", "https_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir"}


@pytest.fixture(autouse=True)
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of what the machine has set."""
    for name in list(os.environ):
        if name.lower() in VARIABLES:
            monkeypatch.delenv(name)


class Answering(BaseHTTPRequestHandler):
    """Answers every request with an empty list, and counts."""

    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
        pass


@pytest.fixture
def servers() -> Iterator[list[tuple[int, list[str]]]]:
    """A project and a proxy: their ports and what was asked of them."""
    running = []
    for _ in range(2):
        handler = type("Handler", (Answering,), {"seen": []})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        running.append((server, handler))
    yield [(server.server_address[1], handler.seen) for server, handler in running]
    for server, _ in running:
        server.shutdown()
        server.server_close()


UNUSABLE = [
    ("ALL_PROXY", "socks://me:hunter2@proxy.example:1080", "its scheme is 'socks'"),
    ("all_proxy", "socks://proxy.example:1080", "socks5://"),
    ("HTTPS_PROXY", "socks5://me:hunter2@proxy.example:1080", r"pip install 'httpx\[socks\]'"),
    ("https_proxy", "ftp://proxy.example", "its scheme is 'ftp'"),
    ("HTTP_PROXY", "http://[::1", "must be a URL, such as"),
    ("NO_PROXY", "[::1]", "names and addresses, without brackets"),
    ("no_proxy", "example.com,fd00::/8", r"\(fd00::/8\)"),
    ("SSL_CERT_FILE", "/nowhere/ca.pem", "'/nowhere/ca.pem'.*No such file"),
    ("SSL_CERT_FILE", __file__, "no certificates can be read there"),
    ("SSL_CERT_FILE", os.path.dirname(__file__), "no certificates can be read there"),
    ("SSL_CERT_DIR", "/nowhere", "'/nowhere'.*no such folder"),
]


@pytest.mark.parametrize(("variable", "value", "words"), UNUSABLE)
async def test_what_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(variable, value)
    client = ChunksClient("https://abc.supabase.co", "sb_secret_example", retry=ONCE)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=words) as error:
            client.jobs()
        assert str(error.value).startswith(f"{variable} ")
        assert "hunter2" not in str(error.value)
        assert error.value.__cause__ is None
    with pytest.raises(ConfigurationError, match=words):
        await AsyncChunksClient("https://abc.supabase.co", "sb_secret_example", retry=ONCE).jobs()


def test_what_can_be_used_is_used(
    servers: list[tuple[int, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (port, asked) = servers
    monkeypatch.setenv("NO_PROXY", "::1,localhost,10.0.0.0/8,.internal")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
    assert ChunksClient("http://project.example", "sb_secret_example", retry=ONCE).jobs() == []
    assert asked[0].startswith("http://project.example/rest/v1/")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
async def test_loopback_goes_through_no_proxy(
    servers: list[tuple[int, list[str]]], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    (port, asked), (proxy, asked_of_proxy) = servers
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy}")
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:1")
    url = f"http://{host}:{port}"
    if host == "127.0.0.2":  # nobody is there
        with pytest.raises(ConnectionFailed):
            ChunksClient(url, "sb_secret_example", retry=ONCE).jobs()
    else:
        assert ChunksClient(url, "sb_secret_example", retry=ONCE).jobs() == []
        assert await AsyncChunksClient(url, "sb_secret_example", retry=ONCE).jobs() == []
        assert len(asked) == 2
    assert asked_of_proxy == []


def test_a_certificate_counts_for_loopback_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
        ChunksClient("https://127.0.0.1:9", "sb_secret_example", retry=ONCE).jobs()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:54321", True),
        ("http://127.9.9.9", True),
        ("http://LocalHost:8000", True),
        ("http://api.localhost", True),
        ("http://[::1]:54321", True),
        ("http://[::ffff:127.0.0.1]", True),
        ("http://0.0.0.0:54321", True),
        ("http://10.0.0.1", False),
        ("http://kong:8000", False),
        ("http://localhost.example.com", False),
        ("https://abc.supabase.co", False),
    ],
)
def test_what_loopback_is(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected
