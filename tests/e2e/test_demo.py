"""`supabase-chunks demo` as a person runs it: a subprocess, with a terminal's signals."""

from __future__ import annotations

import mailbox
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from supabase_chunks import ChunksClient, JobStatus
from supabase_chunks.demo.imap import Mailbox
from supabase_chunks.demo.messages import made_up
from supabase_chunks.demo.server import MailServer
from supabase_chunks.local import LocalStack

from .processes import Traces

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


class Run:
    """A running command; its output is read as it comes."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.began = time.monotonic()
        self.lines: list[tuple[float, str]] = []
        self.traces = Traces()
        self._gather_at = 0.0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "supabase_chunks.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic() - self.began, line.rstrip()))

    def _gather(self) -> None:
        """Note what there is of it; not always, as that is some work."""
        if time.monotonic() >= self._gather_at:
            self.traces.gather(self.process.pid)
            self._gather_at = time.monotonic() + 0.2

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def when(self, words: str, *, within: float) -> float:
        """Seconds until a line with these words came."""
        while True:
            self._gather()
            for at, line in list(self.lines):
                if words in line:
                    return at
            if self.process.poll() is not None or time.monotonic() - self.began > within:
                pytest.fail(f"no {words!r} in:\n{self.text}")
            time.sleep(0.05)

    def end(self, *, within: float) -> int:
        """The exit code."""
        while self.process.poll() is None:
            assert time.monotonic() - self.began < within, self.text
            self._gather()
            time.sleep(0.05)
        self._reader.join(5)
        return self.process.returncode


@contextmanager
def demo(*arguments: str, **environment: str) -> Iterator[Run]:
    run = Run("demo", *arguments, **environment)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.terminate()
            run.process.wait(20)


def figure(run: Run, name: str) -> float:
    found = re.search(rf"^ *{re.escape(name)} +([\d,.]+)$", run.text, re.MULTILINE)
    assert found, run.text
    return float(found[1].replace(",", ""))


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    """An IMAP server with an empty mailbox."""
    with MailServer(tmp_path_factory.mktemp("mail")) as server:
        yield server


def url(server: MailServer) -> str:
    return f"imap://{server.address.username}@{server.address}/INBOX"


def test_500_messages_arrive_within_a_minute_and_again_adds_nothing() -> None:
    with demo("--again") as run:
        assert run.end(within=60) == 0, run.text
        assert figure(run, "messages in the mailbox (IMAP)") == 500
        assert figure(run, "rows in synced_emails (SQL)") == 500
        assert figure(run, "chunks") == figure(run, "attempts") == 6
        assert "The same sync again: 0 messages added, 1 chunk" in run.text
        assert "Every message arrived." in run.text
        assert run.traces.ports
        assert run.traces.folders
        assert run.traces.left_after(5) == []


@pytest.mark.parametrize(
    ("moment", "messages", "number"),
    [("Starting", 5, signal.SIGTERM), ("Ready after", 5, signal.SIGINT), ("/6 chunks", 500, signal.SIGTERM)],
)
def test_stopping_it_leaves_nothing_behind(moment: str, messages: int, number: signal.Signals) -> None:
    with demo("--messages", str(messages)) as run:
        run.when(moment, within=30)
        run.process.send_signal(number)
        run.process.send_signal(number)  # as make and the terminal both send it
        assert run.end(within=60) == 128 + number
        assert "nothing is left running" in run.text
        assert "Traceback" not in run.text
        assert "The sync goes on" not in run.text
        assert run.traces.left_after(5) == []


def test_a_killed_demo_leaves_no_process_behind() -> None:
    with demo("--messages", "5") as run:
        run.when("Ready after", within=30)
        run.process.kill()
        run.end(within=60)
        assert run.traces.left_after(10) == []


def test_messages_of_an_mbox_file_arrive(tmp_path: Path) -> None:
    box = mailbox.mbox(tmp_path / "Mein Ärchiv 2026.mbox")
    for message in made_up(7):
        box.add(message)
    box.close()
    with demo("--mbox", str(tmp_path / "Mein Ärchiv 2026.mbox")) as run:
        assert run.end(within=60) == 0, run.text
        assert figure(run, "rows in synced_emails (SQL)") == 7


def test_a_kept_database_can_be_started_again() -> None:
    with demo("--keep", "--messages", "5") as run:
        assert run.end(within=60) == 0, run.text
        found = re.search(r"supabase-chunks local --data-dir (\S+)", run.text)
        assert found
        folder = Path(found[1])
        run.traces.folders.clear()
        assert run.traces.left_after(5) == []
    try:
        with LocalStack(folder) as again, psycopg.connect(again.db_url) as database:
            assert database.execute("select count(*) from synced_emails").fetchone() == (5,)
    finally:
        shutil.rmtree(folder)


def test_a_demo_that_fails_keeps_nothing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with demo("--keep", "--port", str(taken.getsockname()[1])) as run:
            assert run.end(within=30) == 1
            assert run.traces.left_after(5) == []


def test_messages_that_come_meanwhile_are_not_counted(mail: MailServer) -> None:
    with Mailbox(mail.address) as mailbox:
        mailbox.fill(made_up(3))
        before = mailbox.select()
        below = mailbox.next_uid()
        assert mailbox.count(below=below) == before
        mailbox.fill(made_up(2))
        assert mailbox.count(below=below) == before
        assert mailbox.count(below=mailbox.next_uid()) == before + 2


def test_a_mailbox_of_ones_own_is_synced(mail: MailServer) -> None:
    with Mailbox(mail.address) as mailbox:
        mailbox.fill(made_up(25))
        total = mailbox.select()
    with demo("--imap", url(mail), IMAP_PASSWORD=mail.address.password) as run:
        assert run.end(within=60) == 0, run.text
        assert figure(run, "messages in the mailbox (IMAP)") == total
        assert mail.address.password not in run.text


def test_a_refused_login_is_one_sentence(mail: MailServer) -> None:
    with demo("--imap", url(mail), IMAP_PASSWORD="wrong") as run:
        assert run.end(within=30) == 1
        assert re.search(r"^Error: The IMAP server .* refused the login of 'demo' .*check the name", run.text)
        assert len(run.lines) == 1
        assert run.traces.left_after(5) == []


def test_a_missing_folder_is_one_sentence(mail: MailServer) -> None:
    with demo("--imap", f"{url(mail)}/Nirgendwo/ü", IMAP_PASSWORD=mail.address.password) as run:
        assert run.end(within=30) == 1
        assert re.search(r"^Error: The folder 'INBOX/Nirgendwo/ü' of .* cannot be opened", run.text)


def test_a_taken_port_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with demo("--port", str(port)) as run:
            assert run.end(within=30) == 1
            assert re.search(rf"^Error: Port {port} .* is taken", run.text, re.MULTILINE)
            assert run.traces.left_after(5) == []


def test_without_a_network_the_first_start_says_what_it_needs(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9/"
    environment = {"XDG_CACHE_HOME": str(tmp_path), "DENO_DIR": str(tmp_path / "deno"), "POSTGREST": ""}
    with demo(**environment, NPM_CONFIG_REGISTRY=nowhere) as run:
        assert run.end(within=120) == 1
        assert re.search(r"^Error: .*could not be downloaded; the first start needs the npm", run.text, re.M)
        assert "Traceback" not in run.text
        assert run.traces.left_after(5) == []


def test_on_another_platform_it_says_what_to_bring(tmp_path: Path) -> None:
    # A machine of another kind, as far as Python can tell.
    (tmp_path / "sitecustomize.py").write_text("import platform\nplatform.machine = lambda: 'riscv64'\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    with demo(PYTHONPATH=path, XDG_CACHE_HOME=str(tmp_path), POSTGREST="") as run:
        assert run.end(within=60) == 1
        assert re.search(
            r"^Error: PostgREST cannot be downloaded for this system .*riscv64.*PATH", run.text, re.M
        )
        assert run.traces.left_after(5) == []


@pytest.fixture
def hurried(stack: LocalStack) -> Iterator[None]:
    """The stack's cron runs the watchdog each second instead of each half minute."""
    with psycopg.connect(stack.postgres_url, autocommit=True) as owner:
        owner.execute(
            "select cron.schedule(jobname, '1 second', command) from cron.job where jobname like '%-watchdog'"
        )
        yield
        owner.execute("select chunk_private.schedule_watchdog()")


@pytest.mark.parametrize("part", ["background-sync-processor", "sync-emails"])
def test_a_killed_function_loses_no_message(
    part: str, stack: LocalStack, mail: MailServer, hurried: None
) -> None:
    client = ChunksClient(stack.url, stack.secret_key)
    kind = next(kind for kind in client.kinds() if kind.kind == "email")
    # What a chunk waits for when its worker is gone, and before a retry.
    client.save_kind(**kind.model_dump() | {"lease_seconds": 4, "retry_delay_seconds": 1})
    with Mailbox(mail.address) as mailbox:
        mailbox.fill(made_up(300))
        mailbox.select()
        total = mailbox.count(below=mailbox.next_uid())
    address = mail.address
    account = client.email.save_account(
        part,
        host=address.host,
        port=address.port,
        tls="none",
        username=address.username,
        password=address.password,
    )
    job = client.trigger_sync("email", payload={"account": part, "batch_size": 20})
    for progress in job.watch(timeout=60):
        if progress.completed_chunks >= 3:
            stack.kill(part)
            break
    assert not job.progress().ended
    done = job.wait(timeout=120)

    assert done.status is JobStatus.COMPLETED
    with psycopg.connect(stack.db_url) as database:
        (rows,) = database.execute(  # type: ignore[misc]
            "select count(*) from synced_emails where account_id = %s", (account,)
        ).fetchone()
        (again,) = database.execute(  # type: ignore[misc]
            "select count(*) from chunk_processing_queue where parent_sync_job_id = %s and attempts > 1",
            (job.id,),
        ).fetchone()
    assert rows == total
    assert again >= 1

    second = client.trigger_sync("email", payload={"account": part, "batch_size": 20})
    assert second.wait(timeout=60).total_chunks == 1
    with psycopg.connect(stack.db_url) as database:
        (after,) = database.execute(  # type: ignore[misc]
            "select count(*) from synced_emails where account_id = %s", (account,)
        ).fetchone()
    assert after == rows
    client.save_kind(**kind.model_dump())
