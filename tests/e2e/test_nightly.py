"""The page about a nightly sync, as a whole: cron starts it, a worker does it, and somebody is told when it failed."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from supabase_chunks import Chunk, ChunksClient, PermanentFailure, Worker
from tests.documents import ALL
from tests.polling import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from supabase_chunks.local import LocalStack

KIND = "nightly-orders"
PAGE = [block for block in ALL if block.page == "nightly.md"]
UNDO = f"""
drop trigger if exists tell_of_failed_sync on sync_jobs;
drop function if exists tell_of_failed_sync();
delete from vault.secrets where name = 'notice_url';
delete from cron.job where jobname like '{KIND}%';
"""


class Chat(ThreadingHTTPServer):
    """The chat whose webhook is called."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hook)
        self.texts: list[str] = []


class Hook(BaseHTTPRequestHandler):
    """Takes a message."""

    server: Chat

    def do_POST(self) -> None:
        self.server.texts.append(json.loads(self.rfile.read(int(self.headers["content-length"])))["text"])
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def block(*words: str) -> str:
    """The one block of the page that has these words."""
    (found,) = [each.code for each in PAGE if all(word in each.code for word in words)]
    return found


@contextmanager
def every_second(database: psycopg.Connection[Any], schedule: str, times: str) -> Iterator[None]:
    """With a schedule of the page, at another time."""
    assert times in schedule
    database.execute(schedule.replace(times, "1 second").encode())
    name = schedule.split("'")[1]
    try:
        yield
    finally:
        database.execute("select cron.unschedule(%s)", (name,))


@pytest.fixture
def handler() -> Callable[[Chunk], object]:
    """The handler of the page."""
    names: dict[str, Any] = {}
    exec(block("def handler"), names)  # noqa: S102 - our own document
    made: Callable[[Chunk], object] = names["handler"]
    return made


@pytest.fixture
def chat(stack: LocalStack) -> Iterator[Chat]:
    """Somebody to tell, as the page sets it up."""
    with Chat() as server, psycopg.connect(stack.postgres_url, autocommit=True) as owner:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        with psycopg.connect(stack.db_url, autocommit=True) as superuser:
            superuser.execute(UNDO.encode())
        owner.execute(block("create trigger").replace("https://chat.example.com/hooks/…", url).encode())
        yield server
        with psycopg.connect(stack.db_url, autocommit=True) as superuser:
            superuser.execute(UNDO.encode())
        server.shutdown()


def test_a_night_that_goes_well_and_one_that_does_not(
    stack: LocalStack, chat: Chat, handler: Callable[[Chunk], object]
) -> None:
    def broken(chunk: Chunk) -> object:
        if chunk.payload.get("day") == 5:
            raise PermanentFailure("the shop has no day 5")
        return handler(chunk)

    with (
        ChunksClient(stack.url, stack.secret_key) as client,
        psycopg.connect(stack.postgres_url, autocommit=True) as owner,
    ):
        client.save_kind(KIND, max_concurrency=4)
        for work in (handler, broken):
            with every_second(owner, block("'15 2 "), "15 2 * * *"):
                until(lambda: client.jobs(kind=KIND, status="pending"), "cron has started the sync")
            Worker(client, work, kinds=[KIND]).run_until_idle()
        second, first = client.jobs(kind=KIND)
        assert (first.progress().status, first.progress().items_processed) == ("completed", 30)
        assert (second.progress().status, second.progress().completed_chunks) == ("failed", 3)
        assert client.sync_state(KIND, "shop") == {"day": 3}  # a failed night leaves where it began
        until(lambda: chat.texts)
        assert chat.texts == [f"{KIND} shop: 1 of 4 chunks failed, the first with: the shop has no day 5"]
        client.save_sync_state(KIND, "shop", None)
        while client.purge(older_than=timedelta()).more:
            pass


def test_a_notice_that_cannot_be_sent_keeps_no_job_from_ending(stack: LocalStack, chat: Chat) -> None:
    with ChunksClient(stack.url, stack.secret_key) as client:
        with psycopg.connect(stack.db_url, autocommit=True) as superuser:
            superuser.execute("delete from vault.secrets where name = 'notice_url'")
        job = client.trigger_sync("custom", chunks=[{}], max_retries=0)
        claim = client.queue.claim("night", kinds=["custom"], job_id=job.id)
        assert claim is not None
        assert client.queue.fail(claim, "no luck").job_status == "failed"
        assert job.progress().status == "failed"
    assert not chat.texts


def test_in_the_morning_it_is_told_that_no_night_was_completed(stack: LocalStack, chat: Chat) -> None:
    with (
        psycopg.connect(stack.postgres_url, autocommit=True) as owner,
        every_second(owner, block("nightly-orders-missing"), "0 7 * * *"),
    ):
        until(lambda: chat.texts)
    assert chat.texts[0] == f"{KIND}: no sync was completed last night"
