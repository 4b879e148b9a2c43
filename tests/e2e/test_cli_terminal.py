"""What the commands look like: in a terminal of 80 columns, without colours, in a pipe, under nohup."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len

from supabase_chunks import ChunksClient, Job, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supabase_chunks.local import LocalStack

pytestmark = pytest.mark.skipif(os.name != "posix", reason="terminals and hangups are POSIX")
ROOT = Path(__file__).parents[2]
KIND = "nightly-import-of-all-orders"
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9]+)*m")


@pytest.fixture
def job(stack: LocalStack) -> Iterator[Job]:
    """A job with a long name and big numbers, not begun."""
    with ChunksClient(stack.url, stack.secret_key) as client:
        client.save_kind(KIND, max_concurrency=4, max_retries=0)
        job = client.trigger_sync(KIND, chunks=[{"n": number} for number in range(1500)])
        yield job
        job.cancel()


@pytest.fixture
def short(stack: LocalStack) -> Iterator[Job]:
    """A short one."""
    with ChunksClient(stack.url, stack.secret_key) as client:
        client.save_kind(KIND, max_concurrency=4, max_retries=0)
        yield client.trigger_sync(KIND, chunks=[{"n": number} for number in range(5)])


def start(
    stack: LocalStack, *command: str, out: int, errors: int = subprocess.STDOUT, **environment: str
) -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    kept |= {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **stack.environment(), **environment}
    return subprocess.Popen(
        [*command[:-1], sys.executable, "-m", "supabase_chunks.cli", *command[-1].split()],
        env=kept,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=errors,
    )


def in_terminal(stack: LocalStack, command: str, columns: int = 80, **environment: str) -> tuple[int, str]:
    """Run a command in a terminal; returns its exit code and all that it wrote there."""
    import fcntl
    import pty
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = start(stack, command, out=slave, **environment)
    os.close(slave)
    written = b""
    try:
        while piece := os.read(master, 65536):
            written += piece
    except OSError:  # how Linux says that nobody has the terminal any more
        pass
    finally:
        os.close(master)
    return process.wait(30), written.decode()


def lines_of(written: str) -> list[str]:
    """What was on the screen at any time, line by line."""
    return [ESCAPE.sub("", line).rstrip() for line in re.split(r"[\r\n]+", written)]


def work(stack: LocalStack) -> None:
    with ChunksClient(stack.url, stack.secret_key) as client:
        Worker(client, lambda chunk: chunk.payload["n"], kinds=[KIND]).run_until_idle()


@pytest.mark.parametrize("columns", [80, 120])
def test_the_list_of_jobs_keeps_all_its_columns(stack: LocalStack, job: Job, columns: int) -> None:
    code, written = in_terminal(stack, f"status --kind {KIND}", columns)
    assert code == 0
    header, row = lines_of(written)[:2]
    assert header.split() == ["JOB", "KIND", "STATUS", "CHUNKS", "DONE", "AGE"]
    assert str(job.id) in row
    assert re.search(r"  (pending|stalled) +0/1,500 +0%  +\d+ s$", row)
    assert (KIND in row) == (columns == 120)
    assert all(cell_len(line) <= columns for line in lines_of(written))


def test_what_a_job_is_like_fits_the_screen(stack: LocalStack, job: Job) -> None:
    for command in (f"status {job.id}", f"chunks {job.id} --limit 20"):
        code, written = in_terminal(stack, command)
        assert code == 0
        assert all(cell_len(line) <= 80 for line in lines_of(written)), written


def test_the_bar_stays_on_one_line(stack: LocalStack, short: Job) -> None:
    work(stack)
    code, written = in_terminal(stack, f"watch {short.id}")
    assert code == 0
    assert COLOUR.search(written)
    shown = [line for line in lines_of(written) if line]
    assert all(cell_len(line) <= 80 for line in shown), shown
    assert re.search(r"━ +100% 5/5 chunks", shown[-1])


def test_without_colour_there_is_none(stack: LocalStack, short: Job) -> None:
    work(stack)
    code, written = in_terminal(stack, f"watch {short.id}", NO_COLOR="1")
    assert code == 0
    assert "5/5 chunks" in written
    assert not COLOUR.search(written)


def test_a_terminal_that_knows_no_escapes_gets_none(stack: LocalStack, short: Job) -> None:
    work(stack)
    code, written = in_terminal(stack, f"watch {short.id}", TERM="dumb")
    assert code == 0
    assert "5/5 chunks" in written
    assert "\x1b" not in written


def test_a_pipe_gets_whole_lines(stack: LocalStack, short: Job) -> None:
    watching = start(stack, f"watch {short.id}", out=subprocess.PIPE)
    work(stack)
    written = watching.communicate(timeout=30)[0].decode()
    assert watching.returncode == 0
    assert "\x1b" not in written
    assert "\r" not in written
    lines = written.splitlines()
    assert lines[-1] == f"{KIND}: 100% · 5/5 chunks · completed" or lines[-1].startswith(
        f"{KIND}: 100% · 5/5 chunks · completed · "
    )
    listing = start(stack, f"status --kind {KIND}", out=subprocess.PIPE)
    # Not shortened: programs read it.
    assert f"{short.id}  {KIND}  completed" in listing.communicate(timeout=30)[0].decode()


@pytest.mark.skipif(shutil.which("nohup") is None, reason="nohup is not there")
def test_under_nohup_it_goes_on_when_the_terminal_is_gone(
    stack: LocalStack, short: Job, tmp_path: Path
) -> None:
    with (tmp_path / "nohup.out").open("wb") as out:
        watching = start(stack, "nohup", f"watch {short.id}", out=out.fileno())
    deadline = time.monotonic() + 20
    while KIND not in (tmp_path / "nohup.out").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    watching.send_signal(signal.SIGHUP)
    work(stack)
    assert watching.wait(30) == 0
    assert "100% · 5/5 chunks" in (tmp_path / "nohup.out").read_text()


def test_whoever_stops_reading_hears_no_more(stack: LocalStack, job: Job) -> None:
    for command, first in ((f"chunks {job.id} --json", b"[{"), (f"watch {job.id} --json", b'{"id"')):
        reader, writer = os.pipe()
        errors, writer_of_errors = os.pipe()
        # Unbuffered, Python takes a half written line for a whole one.
        process = start(stack, command, out=writer, errors=writer_of_errors, PYTHONUNBUFFERED="")
        os.close(writer)
        os.close(writer_of_errors)
        assert os.read(reader, len(first)) == first
        os.close(reader)
        if command.startswith("watch"):
            job.pause()  # there is something to write
        with os.fdopen(errors, "rb") as said:
            assert said.read() == b""
        assert process.wait(30) == 128 + signal.SIGPIPE


def test_where_characters_are_missing_good_and_bad_news_differ(stack: LocalStack) -> None:
    for key, words in ((stack.secret_key, "ok: database: "), ("sb_secret_wrong", "WRONG: key: ")):
        doctor = start(
            stack, "doctor", out=subprocess.PIPE, PYTHONIOENCODING="latin-1", SUPABASE_SECRET_KEY=key
        )
        assert doctor.communicate(timeout=60)[0].decode("latin-1").startswith(words)
