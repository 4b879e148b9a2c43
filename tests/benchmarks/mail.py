"""The email sync beside a script with imaplib: in turns, on the same server and project, the same messages."""

from __future__ import annotations

import itertools
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from supabase_chunks import ChunksClient
from supabase_chunks.demo.messages import made_up
from supabase_chunks.local import LocalStack
from tests.benchmarks.delay import far_away
from tests.benchmarks.ground import Report, median_ratio
from tests.benchmarks.imap_script import read_and_upsert
from tests.e2e.mail import DOVECOT, HOST, MailServer, certificate, dovecot

# So many that logging in, planning and the first webhook, a second together from far away, do not decide.
MESSAGES = 18_000
DIFFERENT = 1000
ROUNDS = 2
# As many as a script reads that asks for them one by one, from near and from far away: each takes it as long.
MOST_ONE_BY_ONE, MOST_ONE_BY_ONE_FAR = 3_000, 300
FAR = 0.040
LOCATIONS = {"Maildir": "maildir:~/Maildir", "mdbox": "mdbox:~/mdbox"}
# Delivering waits for no disk, and a login in the clear is allowed.
_QUICK = "mail_fsync = never\ndisable_plaintext_auth = no"
FOLDERS = 20
IN_FOLDER = 1000
# A hundred mails of what is dear to read: empty lines, and texts of a megabyte.
HOSTILE = (b"\n" * 130_000, b"word " * 200_000)


def mail(report: Report) -> None:
    """Both scripts, local and far away, Maildir and mdbox; then the memory of the function."""
    if DOVECOT is None:
        raise SystemExit("Debian's dovecot-imapd is not installed")
    with tempfile.TemporaryDirectory() as folder:
        pem = certificate(Path(folder) / "pem")
        with (
            LocalStack(functions_env={"IMAP_EXTRA_CA": pem[0].read_text()}) as stack,
            ChunksClient(stack.url, stack.secret_key) as client,
        ):
            client.save_kind("email", handler="sync-emails", max_concurrency=4)
            letters = list(made_up(DIFFERENT)) * (MESSAGES // DIFFERENT)
            for name, location in LOCATIONS.items():
                with dovecot(*pem, location=location, settings=_QUICK) as server:
                    server.deliver(letters, tls=False)
                    _beside_a_script(report, stack, client, server, name)
            with dovecot(*pem, location=LOCATIONS["mdbox"], settings=_QUICK) as server:
                _memory(report, stack, client, server, letters[:IN_FOLDER])


def _beside_a_script(
    report: Report, stack: LocalStack, client: ChunksClient, server: MailServer, name: str
) -> None:
    assert server.tls_port is not None
    with far_away(server.tls_port, FAR) as far:
        # The script that one writes asks for one message at a time, as imaplib's documentation shows. One that asks
        # for a hundred at a time has found out what costs time; from far away the goal is that of a local server.
        for where, port, goals in (
            ("local", server.tls_port, {1: 1.5, 100: 1.5}),
            (f"{1000 * FAR:.0f} ms away", far, {1: 3.0, 100: 1.5}),
        ):
            ours: list[float] = []
            theirs: dict[int, list[float]] = {1: [], 100: []}
            for _ in range(ROUNDS):
                for batch, rates in theirs.items():
                    one_by_one = MOST_ONE_BY_ONE_FAR if port == far else MOST_ONE_BY_ONE
                    most = one_by_one if batch == 1 else MESSAGES
                    with _account(client, server, port) as (_, account):
                        begun = time.monotonic()
                        read = read_and_upsert(stack, server, port, account, batch=batch, most=most)
                        rates.append(read / (time.monotonic() - begun))
                        assert read == most
                with _account(client, server, port) as (called, _):
                    ours.append(MESSAGES / _sync(client, called))
            for batch, rates in theirs.items():
                report.add(
                    f"email, {name}, {where}, beside a script with {batch} a command, messages/s",
                    f"{max(ours):.0f} / {max(rates):.0f}",
                    ratio=median_ratio(ours, rates),
                    at_least=goals[batch],
                )


def _memory(
    report: Report, stack: LocalStack, client: ChunksClient, server: MailServer, letters: list[bytes]
) -> None:
    folders = [f"Folder {number}" for number in range(FOLDERS)]
    for folder in folders:
        server.deliver(letters, folder=folder, tls=False)
    with _account(client, server, server.port, tls="starttls") as (called, _):
        seconds = _sync(client, called, folders=folders)
        count = FOLDERS * IN_FOLDER
        report.add(f"email, {count:,} in {FOLDERS} folders, messages/s", f"{count / seconds:.0f}")
        _report_memory(report, stack, f"{count:,} messages in {FOLDERS} folders")
        seconds = _sync(client, called, folders=folders)
        report.add(
            f"email, again, {FOLDERS} folders without a change, ms a folder",
            f"{1000 * seconds / FOLDERS:.0f}",
        )
    for number, text in enumerate(HOSTILE):
        letter = b"Subject: hostile\nContent-Type: text/plain\n\n" + text
        server.deliver(itertools.repeat(letter, 100), folder=f"Hostile {number}", tls=False)
        with _account(client, server, server.port, tls="starttls") as (called, _):
            _sync(client, called, folder=f"Hostile {number}", body=True)
    _report_memory(report, stack, "hostile messages, with bodies")


def _report_memory(report: Report, stack: LocalStack, after: str) -> None:
    peak, program = _memory_mb(stack, "VmHWM"), _memory_mb(stack, "RssFile")
    report.add(
        f"email, most memory of the function after {after}, MB",
        f"{peak:.0f}, Deno's file {program:.0f}",
        ratio=peak,
        at_most=150,
    )


def _sync(client: ChunksClient, called: str, **payload: object) -> float:
    """Seconds that a sync takes, from the call that starts it."""
    begun = time.monotonic()
    job = client.trigger_sync("email", payload={"account": called, **payload})
    job.wait(timeout=600, interval=0.05)
    return time.monotonic() - begun


@contextmanager
def _account(
    client: ChunksClient, server: MailServer, port: int, tls: str = "implicit"
) -> Iterator[tuple[str, uuid.UUID]]:
    called = f"bench-{uuid.uuid4().hex[:8]}"
    login = {"host": HOST, "username": server.username, "password": server.password}
    account = client.email.save_account(called, port=port, tls=tls, **login)  # type: ignore[arg-type]  # one of them
    yield called, account
    client.email.remove_account(called)


def _memory_mb(stack: LocalStack, kind: str) -> float:
    """Memory of the process of sync-emails: VmHWM, the most it ever had; RssFile, what of it is a program's file."""
    status = Path(f"/proc/{stack.pids()['sync-emails']}/status").read_text(encoding="utf-8")
    (kilobytes,) = [line.split()[1] for line in status.splitlines() if line.startswith(kind)]
    return int(kilobytes) / 1024
