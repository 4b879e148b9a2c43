"""What the documents show is run as it stands, against a whole project."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from supabase_chunks import ChunksClient, PermanentFailure, Worker
from supabase_chunks.local import LocalStack
from supabase_chunks.local.deno import find_deno
from tests.documents import ALL, DOCS, ROOT, Block, run_blocks
from tests.e2e.handlers import copy_functions, write_documented
from tests.e2e.mail import certificate, pymap
from tests.e2e.syncing import letter
from tests.e2e.test_init import SUPABASE
from tests.polling import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from supabase_chunks import Chunk

# Its first run is half a minute away.
MAY_BE_EMPTY = "cron.job_run_details"
# One whose provider refuses to renew its tokens.
REFUSED_ACCOUNT = """
insert into email_accounts (name, host, tls, port, username, auth, reauth_required)
values ('refused', 'imap.example.com', 'implicit', 993, 'me', 'xoauth2', true)
"""
SAVE_ORDERS = """
create table orders (id int primary key, total numeric);
create function save_orders(orders jsonb) returns bigint language sql set search_path = '' as $$
  with saved as (
    insert into public.orders select o.id, o.total from jsonb_to_recordset($1) as o (id int, total numeric)
    on conflict (id) do update set total = excluded.total returning 1
  )
  select count(*) from saved
$$;
grant all on orders to service_role;
"""


class Shop(BaseHTTPRequestHandler):
    """The API of the page about handlers: two pages of orders."""

    def do_GET(self) -> None:
        page = int(parse_qs(urlsplit(self.path).query)["page"][0])
        answer = {"orders": [{"id": page, "total": 9.5}], "next": 2 if page == 1 else None}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A project with the documented handler beside our functions, and the API that it asks."""
    functions = copy_functions(tmp_path_factory.mktemp("docs"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as shop:
        threading.Thread(target=shop.serve_forever, daemon=True).start()
        for name in ("sync-orders", "sync-events"):
            write_documented(functions, name, f"http://127.0.0.1:{shop.server_port}")
        with LocalStack(functions=functions) as running:
            with psycopg.connect(running.postgres_url) as database:
                database.execute(SAVE_ORDERS)
                database.execute("notify pgrst, 'reload schema'")
            yield running
        shop.shutdown()


@pytest.fixture(scope="module")
def used(stack: LocalStack) -> Iterator[ChunksClient]:
    """A client of it, with a bit of everything in the queue, so that no query finds its tables empty."""
    with ChunksClient(stack.url, stack.secret_key) as client:
        client.save_kind("docs", max_concurrency=2, retry_delay_seconds=60)
        client.trigger_sync("docs", chunks=[{"page": page} for page in range(4)], job_key="other")
        failed = client.trigger_sync("docs", chunks=[{"page": 3}], job_key="failed")

        def handler(chunk: Chunk) -> dict[str, int]:
            if chunk.payload["page"] == 3:
                raise PermanentFailure("page 3 does not exist")
            if chunk.payload["page"] == 2 and chunk.attempt == 1:
                raise ValueError("once more, in a minute")
            return {"rows": 100}

        worker = Worker(client, handler, kinds=["docs"])
        thread = threading.Thread(target=worker.run)
        thread.start()
        until(lambda: failed.progress().status == "failed", "the worker has done its own")
        until(lambda: client.jobs(kind="docs")[1].progress().retrying_chunks == 1, "one waits for a retry")
        worker.stop()
        thread.join()
        client.save_kind("sync-orders", handler="sync-orders")
        client.save_kind("sync-events", handler="sync-events")
        synced = client.trigger_sync("sync-orders", chunks=[{"page": 1}], payload={"shop": "books"})
        assert synced.wait(timeout=30).completed_chunks == 2
        client.trigger_sync("docs", chunks=[{"page": page} for page in range(3)], job_key="under way")
        assert client.queue.claim("docs-1", kinds=["docs"]) is not None
        yield client


@pytest.fixture(scope="module")
def mailbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What stands for the mail server of the documents: arguments of `save_account`."""
    cert, key = certificate(tmp_path_factory.mktemp("mail"))
    with pymap(cert, key, tls=False) as server:
        server.deliver((letter(number) for number in range(3)), tls=False)
        login = f"username={server.username!r}, password={server.password!r}"
        yield f'host="127.0.0.1", port={server.port}, tls="none", {login}'


MAIL_SERVER = 'host="imap.example.com", username="me", password="…"'


@pytest.mark.parametrize("page", [path.stem for path in DOCS])
def test_the_python_blocks_of_a_page(
    page: str, used: ChunksClient, stack: LocalStack, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    found = [block for block in run_blocks("python") if block.page == f"{page}.md"]
    # One program a page, as a reader would type it; a mark tells what each block has printed.
    mark = f"---{uuid.uuid4()}"
    token = stack.user_token(str(uuid.uuid4()))
    program = "\n".join(
        [
            f"access_token = {token!r}",
            *(f"{block.code}\nprint({mark!r})" for block in found),
            "for name in [name for name in dir() if name.startswith('test_')]: globals()[name](client)",
        ]
    )
    if MAIL_SERVER in program:
        program = program.replace(MAIL_SERVER, request.getfixturevalue("mailbox"))
    (tmp_path / "page.py").write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env={**os.environ, **stack.environment(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for block, printed in zip(found, done.stdout.split(f"{mark}\n"), strict=False):
        if block.output is not None:
            assert printed == block.output, str(block)


@pytest.mark.parametrize("block", run_blocks("sql"), ids=str)
def test_the_statements_work_as_typed(block: Block, used: ChunksClient, stack: LocalStack) -> None:
    job = used.jobs(job_key="failed")[0].id
    with (
        psycopg.connect(stack.postgres_url) as other,
        psycopg.connect(stack.postgres_url) as database,
        # What a statement changes is for its test only.
        database.transaction(force_rollback=True),
    ):
        other.execute("select 'a transaction that stays open'")
        database.execute(REFUSED_ACCOUNT)
        for statement in re.sub(r"--.*", "", block.code).split(";"):
            if statement.strip():
                answer = database.execute(statement.replace("'…'", f"'{job}'").encode())
                if statement.strip().startswith("select") and MAY_BE_EMPTY not in statement:
                    assert answer.fetchall(), f"nothing was found by {statement}"


def test_the_numbers_are_those_of_the_database(used: ChunksClient, stack: LocalStack) -> None:
    texts = {path.stem: " ".join(path.read_text(encoding="utf-8").split()) for path in DOCS}
    with psycopg.connect(stack.postgres_url) as database:
        (settings,) = database.execute("select to_jsonb(s) from chunk_private.settings s").fetchone() or ({},)
        schedule = "select schedule from cron.job where jobname = 'supabase-chunks-watchdog'"
        assert database.execute(schedule.encode()).fetchone() == ("30 seconds",)
    security = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`user_.+?`) \| (.+?) \|", security, re.MULTILINE)
    limits = {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    assert limits.keys() == {name for name in settings if name.startswith("user_")}
    for name in ("user_max_chunks", "user_max_kept_chunks", "user_max_active_jobs", "user_max_webhooks"):
        assert limits[name] == f"{settings[name]:,}", name
    assert "a pass in the database every 30 seconds" in texts["concepts"]
    kind = used.save_kind("with-defaults")
    assert f"up to `max_retries` ({kind.max_retries}) more" in texts["concepts"]
    assert f"`retry_delay_seconds` ({kind.retry_delay_seconds})" in texts["concepts"]
    assert f"({kind.lease_seconds // 60} minutes unless the kind says otherwise" in texts["concepts"]


@pytest.mark.parametrize("block", run_blocks("sh"), ids=str)
def test_the_commands_work_as_typed(
    block: Block, used: ChunksClient, stack: LocalStack, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    command = programs / "supabase-chunks"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m supabase_chunks.cli "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    (tmp_path / "supabase").mkdir()
    (tmp_path / "supabase" / "config.toml").write_text('project_id = "docs"\n', encoding="utf-8")
    environment = {**os.environ, **stack.environment(), "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    if "supabase-chunks new" in block.code:
        subprocess.run([command, "init"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    done = subprocess.run(
        ["sh", "-eu", "-c", block.code],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["sync-orders", "sync-events"])
def test_the_handlers_have_the_right_types(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [find_deno(), "check", "--frozen", "index.ts"],
        cwd=write_documented(copy_functions(tmp_path), name, "https://api.example.com"),
        env={**os.environ, "NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(SUPABASE is None, reason="the Supabase CLI is not there: name it in SUPABASE_CLI")
def test_the_flags_of_the_supabase_cli_exist(tmp_path: Path) -> None:
    shown: dict[str, set[str]] = {}
    for block in ALL:
        if block.language == "sh" and "version 3" not in block.code:
            for line in re.findall(r"^supabase (.+)$", block.code, re.MULTILINE):
                (words,) = re.findall(r"^(?:db|functions|secrets) \w+|^\w+", line)
                shown.setdefault(words, set()).update(re.findall(r"--[a-z-]+", line))
    assert {"init", "link", "db push", "functions deploy", "secrets set"} == set(shown)
    quiet = {"SUPABASE_TELEMETRY_DISABLED": "1", "DO_NOT_TRACK": "1", "SUPABASE_NO_UPDATE_NOTIFIER": "1"}
    for words, flags in shown.items():
        if flags:
            done = subprocess.run(
                [str(SUPABASE), *words.split(), "--help"],
                env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **quiet},
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert all(flag in done.stdout for flag in flags), (words, flags)
