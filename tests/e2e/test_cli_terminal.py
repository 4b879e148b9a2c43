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

from supabase_chunks import Chunk, ChunksClient, Job, PermanentFailure, Worker
from tests.e2e import forked

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


def surroundings(stack: LocalStack, **environment: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    return kept | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **stack.environment(), **environment}


def start(
    stack: LocalStack, *command: str, out: int, errors: int = subprocess.STDOUT, **environment: str
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*command[:-1], sys.executable, "-m", "supabase_chunks.cli", *command[-1].split()],
        env=surroundings(stack, **environment),
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
    process = forked.start(command.split(), surroundings(stack, **environment), slave)
    written = b""
    try:
        while piece := os.read(master, 65536):
            written += piece
    except OSError:  # how Linux says that nobody has the terminal any more
        pass
    finally:
        os.close(master)
    process.join(30)
    assert process.exitcode is not None
    return process.exitcode, written.decode()


def lines_of(written: str) -> list[str]:
    """What was on the screen at any time, line by line."""
    return [ESCAPE.sub("", line).rstrip() for line in re.split(r"[\r\n]+", written)]


def work(stack: LocalStack) -> None:
    with ChunksClient(stack.url, stack.secret_key) as client:
        Worker(client, lambda chunk: chunk.payload["n"], kinds=[KIND]).run_until_idle()


def test_a_list_fits_every_screen_and_has_its_colours(stack: LocalStack) -> None:
    kind = "weekly-import-of-all-invoices"
    with ChunksClient(stack.url, stack.secret_key) as client:
        client.save_kind(kind, max_concurrency=4, max_retries=0)
        short = client.trigger_sync(kind, chunks=[{"n": number} for number in range(5)])

        def fail(chunk: Chunk) -> None:
            raise PermanentFailure("there is no such page")

        Worker(client, fail, kinds=[kind]).run_until_idle()
        client.trigger_sync(kind, chunks=[{}], job_key="every-night-at-three").cancel()
    for columns in (60, 80, 200):
        code, written = in_terminal(stack, f"status --kind {kind} --limit 2", columns)
        assert code == 0
        lines = lines_of(written)
        assert all(cell_len(line) <= columns for line in lines), written
        assert str(short.id)[:8] in lines[2]
        assert (str(short.id) in lines[2]) == (columns == 200)
        assert ("every-night-at-three" in lines[1]) == (columns == 200)
        assert re.search(r"failed +0/5 +5 +0%", lines[2])
        red, grey = (COLOUR.findall(line) for line in written.splitlines()[2:0:-1])
        assert red[0] == "\x1b[38;5;167m"  # and none of them green
        assert red != grey
        for command in ("kinds", f"chunks {short.id}", f"chunks {short.id} --timeline"):
            code, written = in_terminal(stack, command, columns)
            assert code == 0
            assert all(cell_len(line) <= columns for line in lines_of(written)), written
            assert command == "kinds" or "\x1b[38;5;167m" in written
    assert "0 s" in lines_of(written)[-2]  # the axis
    for quiet in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        for command in ("status", f"chunks {short.id}", f"chunks {short.id} --timeline"):
            assert "\x1b" not in in_terminal(stack, command, **quiet)[1]
    piped = start(stack, f"chunks {short.id} --timeline", out=subprocess.PIPE)
    assert b"\x1b" not in piped.communicate(timeout=30)[0]


def test_after_ctrl_c_there_is_one_bar(stack: LocalStack, job: Job) -> None:
    """Its last picture, and below it how to come back."""
    import pty

    master, slave = pty.openpty()
    watching = start(stack, f"watch {job.id}", out=slave)
    os.close(slave)
    written, interrupted = b"", False
    try:
        while piece := os.read(master, 65536):
            written += piece
            if b"0/1,500 chunks" in written and not interrupted:
                interrupted = True
                watching.send_signal(signal.SIGINT)
    except OSError:
        pass
    finally:
        os.close(master)
    assert watching.wait(30) == 130
    last = [line for line in ESCAPE.sub("", written.decode()).split("\n") if line.strip()]
    assert [("0/1,500" in line) for line in last] == [True, False]  # what was overwritten is within the first
    assert last[1].startswith(f"The sync goes on. Come back with supabase-chunks watch {job.id}")


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
