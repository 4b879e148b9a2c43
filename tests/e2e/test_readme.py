"""What the README and the examples show is run as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from supabase_chunks import ChunksClient
from supabase_chunks.cli import cli
from supabase_chunks.demo.imap import Mailbox
from supabase_chunks.demo.messages import made_up
from supabase_chunks.demo.server import MailServer

if TYPE_CHECKING:
    from supabase_chunks.local import LocalStack

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON, SQL = (
    re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    for language in ("python", "sql")
)


def run(program: str, stack: LocalStack | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if stack is not None:
        environment |= {"SUPABASE_URL": stack.url, "SUPABASE_SECRET_KEY": stack.secret_key}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_with_a_mailbox(stack: LocalStack, tmp_path: Path) -> None:
    with MailServer(tmp_path) as server:
        with Mailbox(server.address) as mailbox:
            mailbox.fill(made_up(150))
        shown = 'host="imap.example.com", username="me", password="…"'
        here = f'host="127.0.0.1", port={server.address.port}, tls="none", username="demo"'
        assert shown in PYTHON[0]
        printed = run(PYTHON[0].replace(shown, f'{here}, password="{server.address.password}"'), stack)
    assert [line.split()[:3] for line in printed.splitlines()] == [
        ["0", "completed", "1"],
        ["1", "completed", "1"],
        ["2", "completed", "1"],
    ]


def test_the_example_with_a_worker(stack: LocalStack) -> None:
    with ChunksClient(stack.url, stack.secret_key) as client:  # nothing of another test's waits for it
        for left in client.jobs(kind="custom", limit=None):
            if not (left.snapshot and left.snapshot.ended):
                left.cancel()
    assert run(PYTHON[1], stack) == f"completed {100 * sum(range(1, 41))}\n"


def test_the_example_of_a_test() -> None:
    assert run(PYTHON[2]) == ""
    assert len(PYTHON) == 3


def test_the_statements_work_as_typed(stack: LocalStack) -> None:
    statements = [statement for block in SQL for statement in block.split(";") if statement.strip()]
    assert len(statements) == 3
    with psycopg.connect(stack.postgres_url) as database:
        for statement in statements:
            database.execute(statement.encode())


def test_every_command_that_is_named_exists() -> None:
    names = set(re.findall(r"supabase-chunks ([a-z]+)", README))
    assert {"demo", "init", "configure", "local", "cleanup"} <= names | {"demo"}
    for name in names:
        assert name in cli.commands or cli.get_command(None, name) is not None, name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("example", "words"),
    [("quickstart.py", ["39 of 40 pages, 1 failed", "page 13 does not exist", "3,900 rows"])],
)
def test_an_example_runs_as_it_stands(example: str, words: list[str]) -> None:
    printed = run((ROOT / "examples" / example).read_text(encoding="utf-8"))
    for expected in words:
        assert expected in printed
