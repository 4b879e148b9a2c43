"""Networks and servers that fail, as sockets do it, and what both clients make of them."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import supabase_chunks as sc
from supabase_chunks.local import LocalStack
from tests.contract.conftest import both, done
from tests.e2e.mail import certificate

BOTH = pytest.mark.parametrize("which", ["sync", "async"])
ONCE = sc.Retry(attempts=1)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"


@contextmanager
def server(serve: Callable[[socket.socket], None], *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that does something to each connection and closes it."""

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=run, args=(connection,), daemon=True).start()

    def run(connection: socket.socket) -> None:
        with (
            suppress(OSError),
            tls.wrap_socket(connection, server_side=True) if tls else connection as wrapped,
        ):
            serve(wrapped)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
        # Closing alone does not end an accept() that waits.
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def say_nothing(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def drip(connection: socket.socket) -> None:
    """Answer with a byte now and then: no single read ever takes long."""
    connection.recv(65536)
    connection.sendall(HEAD)
    while True:
        connection.sendall(b" ")
        time.sleep(0.02)


def reset(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hang_up(connection: socket.socket) -> None:
    connection.recv(65536)


def cut_short(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(HEAD + b'{"ok": tr')


def speak_no_http(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"220 mail.example.com ESMTP\r\n")


@BOTH
@pytest.mark.parametrize("serve", [say_nothing, drip])
async def test_the_timeout_is_kept(which: str, serve: Callable[[socket.socket], None]) -> None:
    with server(serve) as url:
        async with both(which, url, "sb_secret_x", timeout=0.5) as client:
            start = time.monotonic()
            with pytest.raises(sc.RequestTimeout):
                await done(client.health())
            assert 0.5 <= time.monotonic() - start < 0.7


@BOTH
@pytest.mark.parametrize("serve", [say_nothing, drip])
async def test_waitings_timeout_is_kept_though_the_server_never_answers(
    which: str, serve: Callable[[socket.socket], None]
) -> None:
    with server(serve) as url:
        async with both(which, url, "sb_secret_x") as client:
            start = time.monotonic()
            with pytest.raises(sc.WaitTimeout):
                await done(client.job(uuid.uuid4()).wait(timeout=0.5))
            assert 0.5 <= time.monotonic() - start < 0.7


@BOTH
@pytest.mark.parametrize("serve", [reset, hang_up, cut_short, speak_no_http])
async def test_a_connection_that_breaks_is_a_failed_connection(
    which: str, serve: Callable[[socket.socket], None]
) -> None:
    with server(serve) as url:
        async with both(which, url, "sb_secret_x", retry=ONCE) as client:
            with pytest.raises(sc.ConnectionFailed):
                await done(client.health())


@BOTH
async def test_a_server_that_is_not_there_is_a_failed_connection(which: str) -> None:
    with server(say_nothing) as url:
        pass
    for target in (url, "http://no-such-host.invalid"):
        async with both(which, target, "sb_secret_x", retry=ONCE) as client:
            with pytest.raises(sc.ConnectionFailed):
                await done(client.health())


@BOTH
async def test_plain_http_on_a_tls_url_is_a_failed_connection(stack: LocalStack, which: str) -> None:
    url = stack.url.replace("http://", "https://")
    async with both(which, url, "sb_secret_x", retry=ONCE) as client:
        with pytest.raises(sc.ConnectionFailed, match=r"(?i)ssl"):
            await done(client.health())


@BOTH
async def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(which: str, tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate(tmp_path))
    with server(say_nothing, tls=tls) as url:
        async with both(which, url, "sb_secret_x", retry=sc.Retry(first_delay=60)) as client:
            with pytest.raises(sc.ConnectionFailed, match="CERTIFICATE_VERIFY_FAILED"):
                await done(client.health())
