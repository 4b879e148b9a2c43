"""Other processes: forked ones, and what is sent to them by copy or pickle."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import multiprocessing
import os
import pickle
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

import supabase_chunks as sc
from supabase_chunks._claim_life import Holder
from tests.unit.test_worker_reports import claim

KEY = "sb_secret_FOR-TESTS-ONLY"
NOW = datetime(2026, 1, 2, tzinfo=UTC)
CHILDREN = 4
CALLS = 25


class _Progress(BaseHTTPRequestHandler):
    """Answers for the job that was asked for, on connections that stay open."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(0.002)
        body = json.dumps({"id": asked["parent_sync_job_id"], "kind": "k", "status": "running"}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server's."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Progress)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def in_children(work: Callable[[int], str]) -> list[str]:
    """Fork some processes at once; return what each says."""
    said = []
    for number in range(CHILDREN):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                answer = work(number)
            except BaseException as error:
                answer = repr(error)
            os.write(writing, answer.encode()[:4000])
            os._exit(0)
        os.close(writing)
        said.append((child, reading))
    answers = []
    for child, reading in said:
        with os.fdopen(reading) as pipe:
            answers.append(pipe.read())
        os.waitpid(child, 0)
    return answers


def job_ids(number: int) -> list[uuid.UUID]:
    """Jobs that only one child asks for."""
    return [uuid.UUID(int=1000 * (number + 1) + call) for call in range(CALLS)]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("as_user", [False, True])
def test_a_client_that_was_used_before_a_fork_gives_each_child_its_own_answers(
    url: str, as_user: bool
) -> None:
    client: sc.ChunksClient = sc.ChunksClient(url, KEY)
    client.job(uuid.uuid4()).progress()
    if as_user:
        client = client.as_user("eyJ.a.token")

    def work(number: int) -> str:
        wrong = [job_id for job_id in job_ids(number) if client.job(job_id).progress().id != job_id]
        return f"{len(wrong)} wrong"

    assert in_children(work) == ["0 wrong"] * CHILDREN
    assert client.job(job_ids(9)[0]).progress().id == job_ids(9)[0], "the parent's goes on"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_an_async_client_does_too(url: str) -> None:
    client = sc.AsyncChunksClient(url, KEY)

    async def ask(jobs: list[uuid.UUID]) -> str:
        found = await asyncio.gather(*(client.job(job_id).progress() for job_id in jobs))
        return f"{sum(progress.id != job_id for progress, job_id in zip(found, jobs, strict=True))} wrong"

    # On one loop, which the children inherit with its connections.
    with asyncio.Runner() as runner:
        runner.run(ask(job_ids(9)))
        assert in_children(lambda number: asyncio.run(ask(job_ids(number)))) == ["0 wrong"] * CHILDREN
        assert runner.run(ask(job_ids(9))) == "0 wrong"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_request_finds_no_lock_held(url: str) -> None:
    client = sc.ChunksClient(url, KEY)
    client._pool._lock.acquire()
    try:
        assert (
            in_children(lambda number: str(client.job(job_ids(number)[0]).progress().status))
            == ["running"] * CHILDREN
        )
    finally:
        client._pool._lock.release()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_an_http_client_of_yours_that_was_used_before_is_refused_in_a_child(url: str) -> None:
    with httpx.Client() as http:
        client = sc.ChunksClient(url, KEY, http_client=http)

        def work(number: int) -> str:
            return str(client.job(job_ids(number)[0]).progress().status)

        assert in_children(work) == ["running"] * CHILDREN, "it was not used yet"
        assert work(0) == "running"
        for answer in in_children(work):
            assert "ConfigurationError" in answer
            assert "give each process a client of its own" in answer


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_is_random_differs_from_child_to_child(url: str) -> None:
    client = sc.ChunksClient(url, KEY)
    worker = sc.Worker(client, print, kinds=["k"])
    named = sc.Worker(client, print, kinds=["k"], worker_id="mine")

    def work(number: int) -> str:
        for each in (worker, named):
            each._options.name_in_this_process()
        delay = sc.Retry(first_delay=1000, max_delay=1000).delay(1, sc.ConnectionFailed())
        return f"{worker.worker_id} {delay} {named.worker_id}"

    names, delays, given = zip(*(answer.split() for answer in in_children(work)), strict=True)
    assert len(set(names)) == len(set(delays)) == CHILDREN
    assert worker.worker_id not in names
    assert set(given) == {"mine"}


def use(what: sc.ChunksClient | sc.Job, job_id: uuid.UUID) -> tuple[bool, sc.Progress]:
    """What a process of a pool does with a client or a job that it was sent."""
    job = what if isinstance(what, sc.Job) else what.job(job_id)
    return job.progress().id == job.id, job.progress()


def test_a_client_and_a_job_go_to_a_spawned_process(url: str) -> None:
    client = sc.ChunksClient(url, KEY)
    job = client.job(job_ids(0)[0])
    job.progress()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for what in (client, client.as_user("eyJ.a.token"), job):
            right, progress = pool.submit(use, what, job_ids(0)[1]).result()
            assert right
            assert isinstance(progress, sc.Progress)


COPIES: list[Callable[[Any], Any]] = [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]  # noqa: S301 - our own


@pytest.mark.parametrize("copied", COPIES, ids=["deepcopy", "pickle"])
def test_a_copy_of_a_client_has_connections_of_its_own(url: str, copied: Callable[[Any], Any]) -> None:
    original = sc.ChunksClient(url, KEY, timeout=5, retry=sc.Retry(attempts=2))
    original.job(job_ids(0)[0]).progress()
    twin = copied(original)
    original.close()
    assert use(twin, job_ids(1)[0])[0]
    assert (twin._pool.timeout, twin._driver.retry.attempts) == (5, 2)
    assert twin.queue._driver is twin.email._driver is twin._driver
    assert KEY not in repr(twin)
    twin.close()

    async def ask() -> uuid.UUID:
        async with sc.AsyncChunksClient(url, KEY) as client:
            job = client.job(job_ids(2)[0])
            await job.progress()
            return (await copied(job).progress()).id

    assert asyncio.run(ask()) == job_ids(2)[0]


def test_a_client_that_cannot_go_to_another_process_says_so(url: str) -> None:
    with httpx.Client() as http:
        client = sc.ChunksClient(url, KEY, http_client=http)
        with pytest.raises(TypeError, match="http_client of yours cannot be sent to another process"):
            pickle.dumps(client)
        assert copy.deepcopy(client)._pool.given is http
    supabase = pytest.importorskip("supabase")
    of_supabase = sc.ChunksClient.from_supabase(supabase.create_client(url, KEY))
    with pytest.raises(TypeError, match=r"from_supabase\(\) cannot be sent to another process"):
        pickle.dumps(of_supabase.job(uuid.uuid4()))
    assert copy.deepcopy(of_supabase)._credentials is of_supabase._credentials


# Values of all public names

RECORD = {
    **{"id": 1, "parent_sync_job_id": uuid.UUID(int=1), "kind": "k", "chunk_index": 0, "status": "completed"},
    **{"payload": {"a": [1]}, "attempts": 1, "max_retries": 3, "created_at": NOW, "updated_at": NOW},
    **{"started_at": NOW, "completed_at": NOW, "items_processed": 3},
}
MODELS: dict[str, dict[str, Any]] = {
    "Attempt": {
        **{"id": 1, "chunk_id": 1, "chunk_index": 0, "attempt": 1, "outcome": "lost"},
        **{"started_at": NOW, "ended_at": NOW},
    },
    "ChunkRecord": RECORD,
    "Completion": {"chunk_id": 1, "outcome": "completed"},
    "EmailAccount": {
        **{"id": uuid.UUID(int=1), "name": "a", "host": "h", "port": 993, "tls": "implicit", "username": "u"},
        **{"created_at": NOW, "updated_at": NOW},
    },
    "EmailFolder": {"account_id": uuid.UUID(int=1), "folder": "INBOX"},
    "Kind": {
        **{
            "kind": "k",
            "max_concurrency": 1,
            "max_retries": 3,
            "lease_seconds": 600,
            "retry_delay_seconds": 10,
        },
        **{"user_startable": False},
    },
    "Lease": {"chunk_id": 1, "ok": True, "cancel_requested": False, "locked_until": NOW},
    "Health": {"version": "0.1.0", "postgres": "17.6", "webhooks_waiting": 2},
    "Purged": {"jobs": 1, "chunks": 40, "more": False},
    "Limit": {"key": "an-api", "rate": 10, "per_seconds": 1},
    "WaitingFor": {"key": "an-api", "until": NOW},
    "Progress": {"id": uuid.UUID(int=1), "kind": "k", "status": "running"},
}
# What no other process can use: they work in this one.
STAY = {"Worker", "AsyncWorker"}


def example(name: str) -> Any:
    """A value of a public class."""
    cls = getattr(sc, name)
    if name in MODELS:
        return cls.model_validate(MODELS[name])
    if issubclass(cls, sc.JobFailed):
        return cls("2 failed", progress=example("Progress"), errors=[example("ChunkRecord")])
    if issubclass(cls, sc.JobError):
        return cls("ended", progress=example("Progress"))
    if issubclass(cls, sc.ResponseError):
        return cls("no", status=400, code="SC003", details="kind", hint="h", retry_after=1.5, body="{}")
    if issubclass(cls, sc.PayloadError):
        return cls("is a set", path="chunks[1]")
    if issubclass(cls, sc.RetryLater | sc.Throttled):
        return cls(2.5, "the API asks for a pause")
    if issubclass(cls, Exception):
        return cls("words")
    if issubclass(cls, sc.Unreadable):
        return cls("nested deeper than 190 levels")
    if issubclass(cls, str):  # a state
        return next(iter(cls))
    url, key = "https://abc.supabase.co", KEY
    made: dict[str, Callable[[], Any]] = {
        "AsyncChunk": lambda: sc.AsyncChunk(claim(1), Holder(), sc.AsyncChunksClient(url, key)._driver),
        "AsyncChunksClient": lambda: sc.AsyncChunksClient(url, key),
        "AsyncJob": lambda: sc.AsyncChunksClient(url, key).job(uuid.UUID(int=1)),
        "Chunk": lambda: sc.Chunk(claim(1), Holder(), sc.ChunksClient(url, key)._driver),
        "ChunksClient": lambda: sc.ChunksClient(url, key),
        "Claim": lambda: claim(1),
        "Continue": lambda: sc.Continue({"page": 2}, items=3),
        "Job": lambda: sc.ChunksClient(url, key).job(uuid.UUID(int=1)),
        "Result": lambda: sc.Result({"a": 1}, next_chunks=[{"b": 2}], items_processed=1),
        "Retry": lambda: sc.Retry(attempts=3),
        "Throughput": lambda: sc.Throughput([example("ChunkRecord")]),
        "Timeline": lambda: sc.Timeline.of([example("ChunkRecord")]),
    }
    return made[name]()


def content(value: Any) -> Any:
    """What a value says, for comparison; of what sends calls only that it is there."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, list | tuple):
        return [content(item) for item in value]
    ours = type(value).__module__.startswith("supabase_chunks") and not isinstance(value, str)
    if not ours or type(value).__name__ in ("Driver", "AsyncDriver", "Pool", "AsyncPool"):
        return value if not ours else type(value)
    fields = {name: content(field) for name, field in getattr(value, "__dict__", {}).items()}
    return (
        type(value),
        getattr(value, "args", ()),
        str(value) if isinstance(value, Exception) else "",
        fields,
    )


@pytest.mark.parametrize("copied", [copy.copy, *COPIES], ids=["copy", "deepcopy", "pickle"])
@pytest.mark.parametrize("name", [name for name in sc.__all__ if name not in STAY])
def test_all_that_is_public_comes_back_from_a_copy_as_it_was(name: str, copied: Callable[[Any], Any]) -> None:
    value = example(name)
    if isinstance(value, Exception):
        value.add_note("while testing")
    assert content(copied(value)) == content(value)


def test_no_public_class_is_without_an_example() -> None:
    assert all(inspect.isclass(getattr(sc, name)) for name in sc.__all__)


def test_instructions_of_a_handler_keep_what_a_subclass_has_added() -> None:
    error = Busy("quota")
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(twin), twin.seconds, twin.what, str(twin)) == (Busy, 60.0, "quota", "quota is used up")


class Busy(sc.RetryLater):
    """A user's own, with arguments of its own."""

    def __init__(self, what: str) -> None:
        super().__init__(60, f"{what} is used up")
        self.what = what


def crunch(payload: dict[str, int]) -> dict[str, int]:
    """What a CPU-bound handler lets a pool do."""
    if payload["page"] == 2:
        raise sc.RetryLater(7, "the API asks for a pause")
    if payload["page"] == 3:
        raise sc.PermanentFailure("there is no such page")
    return payload


def test_a_process_pool_survives_what_its_functions_raise() -> None:
    with ProcessPoolExecutor(1) as pool:
        futures = [pool.submit(crunch, {"page": page}) for page in range(1, 5)]
        assert [future.result() for future in (futures[0], futures[3])] == [{"page": 1}, {"page": 4}]
        with pytest.raises(sc.RetryLater, match="asks for a pause") as caught:
            futures[1].result()
        assert caught.value.seconds == 7
        with pytest.raises(sc.PermanentFailure, match="no such page"):
            futures[2].result()


def test_models_are_among_those_that_are_tried() -> None:
    public = {name for name in sc.__all__ if issubclass(getattr(sc, name), BaseModel)}
    assert public == {*MODELS, "Claim"}
