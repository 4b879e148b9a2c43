"""Real IMAP servers on loopback for the tests: pymap, and Dovecot where Debian's package is installed."""

from __future__ import annotations

import grp
import imaplib
import os
import pwd
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HOST = "127.0.0.1"
DOVECOT = shutil.which("dovecot", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
_DEADLINE = 20.0


@dataclass(frozen=True)
class MailServer:
    """A running server with one user.

    Attributes:
        port: Where it speaks IMAP; STARTTLS unless `tls_port` says more.
        username: The user.
        password: The user's password.
        ca: The certificate that signs it, as a file.
        tls_port: Where it speaks IMAP within TLS; None: nowhere.
    """

    port: int
    username: str
    password: str
    ca: Path
    tls_port: int | None = None

    @contextmanager
    def session(self, *, tls: bool = True) -> Iterator[imaplib.IMAP4]:
        """A logged-in session."""
        connection = imaplib.IMAP4(HOST, self.port, timeout=10)
        # Without it each append waits for the peer's delayed acknowledgement.
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            connection.starttls(ssl.create_default_context(cafile=str(self.ca)))
        connection.login(self.username, self.password)
        try:
            yield connection
        finally:
            connection.logout()

    def deliver(
        self, messages: Iterable[bytes], folder: str = "INBOX", flags: str = "", *, tls: bool = True
    ) -> None:
        """Append messages to a folder, in IMAP's own spelling, which is made if need be."""
        with self.session(tls=tls) as imap:
            folder = f'"{folder}"'
            imap.create(folder)
            for message in messages:
                content = message.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
                status, answer = imap.append(folder, flags, "", content)
                assert status == "OK", answer


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    directory.mkdir(parents=True, exist_ok=True)
    cert, key = directory / "cert.pem", directory / "key.pem"
    arguments = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    arguments += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", f"subjectAltName=IP:{HOST}"]
    subprocess.run([*arguments, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


@contextmanager
def pymap(cert: Path, key: Path, *, port: int | None = None, tls: bool = True) -> Iterator[MailServer]:
    """A pymap with an empty mailbox in memory; each start has another UIDVALIDITY."""
    port = port or _free_port()
    arguments = [
        sys.executable,
        "-c",
        "from pymap.main import main; main()",
        "--host",
        HOST,
        "--port",
        str(port),
    ]
    arguments += [
        "--cert",
        str(cert),
        "--key",
        str(key),
        "--no-service",
        "admin",
        "--no-service",
        "managesieve",
    ]
    # A file of its own, or a second pymap on the machine refuses to run.
    arguments += ["--pid-file", f"pymap-{port}"]
    arguments += [] if tls else ["--no-tls"]
    with _running([*arguments, "dict"], port):
        yield MailServer(port, "demouser", "demopass", cert)


@contextmanager
def dovecot(
    cert: Path,
    key: Path,
    *,
    introspection_url: str | None = None,
    settings: str = "",
    location: str = "maildir:~/Maildir",
) -> Iterator[MailServer]:
    """Dovecot with an empty mailbox. Its login process refuses to run as root, so root's runs as nobody.

    Args:
        cert: Its certificate.
        key: The certificate's key.
        introspection_url: Where it asks whether an access token is valid; then it takes XOAUTH2 too.
        settings: Lines for its configuration.
        location: How it keeps mail, and where.
    """
    assert DOVECOT is not None
    account = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    user, group = account.pw_name, grp.getgrgid(account.pw_gid).gr_name
    port, tls_port = _free_port(), _free_port()
    # Not below pytest's folders, which are closed to others.
    directory = Path(tempfile.mkdtemp(prefix="dovecot-"))
    home, keys = directory / "home", directory / "keys"
    for folder in (home, keys, directory / "run", directory / "state"):
        folder.mkdir()
    for file in (cert, key):
        shutil.copy(file, keys / file.name)
    oauth = directory / "oauth2.conf"
    oauth.write_text(
        f"introspection_url = {introspection_url}\nintrospection_mode = post\nusername_attribute = username\n"
        "active_attribute = active\nactive_value = true\n"
    )
    by_token = (
        ""
        if introspection_url is None
        else (
            f"auth_mechanisms = plain login xoauth2\n"
            f"passdb {{\n  driver = oauth2\n  mechanisms = xoauth2\n  args = {oauth}\n}}\n"
        )
    )
    for path in (directory, *directory.rglob("*")):
        shutil.chown(path, account.pw_uid, account.pw_gid)
    configuration = directory / "dovecot.conf"
    configuration.write_text(f"""
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/dovecot.log
protocols = imap
listen = {HOST}
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
first_valid_uid = 1
mail_uid = {user}
mail_gid = {group}
mail_location = {location}
ssl = yes
ssl_cert = <{keys / cert.name}
ssl_key = <{keys / key.name}
# Who was refused is not made to wait.
auth_failure_delay = 0
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
  }}
}}
{settings}
{by_token}
passdb {{
  driver = static
  args = password=dovepass
}}
userdb {{
  driver = static
  args = uid={user} gid={group} home={home}
}}
""")
    try:
        with _running([DOVECOT, "-F", "-c", str(configuration)], port, user=user, group=group):
            yield MailServer(port, "dove", "dovepass", cert, tls_port)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _running(
    command: list[str], port: int, *, user: str | None = None, group: str | None = None
) -> Iterator[None]:
    as_other: dict[str, Any] = (
        {"user": user, "group": group, "extra_groups": []} if user and os.getuid() == 0 else {}
    )
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **as_other
    )
    try:
        deadline = time.monotonic() + _DEADLINE
        while True:
            try:
                imaplib.IMAP4(HOST, port, timeout=5).logout()
                break
            except (OSError, imaplib.IMAP4.abort):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
