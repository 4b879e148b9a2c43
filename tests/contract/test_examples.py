"""Every example in the docstrings runs, on the real stack and with a worker that does two kinds."""

from __future__ import annotations

import doctest
import importlib
import inspect
import threading
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import supabase
from pydantic import BaseModel

import supabase_chunks as sc
from supabase_chunks.email import Email
from supabase_chunks.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supabase_chunks.local import LocalStack

MODULES = [
    "supabase_chunks",
    *(
        f"supabase_chunks.{name}"
        for name in (
            "_encode",
            "_flow",
            "chunk",
            "client",
            "email",
            "jobs",
            "models",
            "queue",
            "throughput",
            "timeline",
            "worker",
        )
    ),
]
FOUND = [
    test
    for module in MODULES
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module))
    if test.examples and "await " not in (test.docstring or "")
]


def public_methods() -> list[tuple[str, Any]]:
    """Return the public methods of the sync classes; the async ones refer to them."""
    return [
        (f"{cls.__name__}.{name}", member)
        for cls in (sc.ChunksClient, sc.Job, Queue, Email, sc.Worker)
        for name, member in inspect.getmembers(cls, callable)
        if not name.startswith("_")
    ]


@pytest.fixture(scope="module")
def working(stack: LocalStack) -> Iterator[sc.ChunksClient]:
    """A client, while somebody works on the kinds custom and email."""
    with sc.ChunksClient(stack.url, stack.secret_key) as client:
        worker = sc.Worker(client, lambda chunk: {"rows": 12}, kinds=["custom", "email"])
        thread = threading.Thread(target=worker.run)
        thread.start()
        yield client
        worker.stop()
        thread.join()


@pytest.mark.parametrize("example", FOUND, ids=[test.name for test in FOUND])
def test_the_example_runs(
    example: doctest.DocTest, working: sc.ChunksClient, stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pandas")
    monkeypatch.setenv("SUPABASE_URL", stack.url)
    monkeypatch.setenv("SUPABASE_SECRET_KEY", stack.secret_key)
    working.save_kind("reports", max_concurrency=8, user_startable=True)
    for job in working.jobs(kind="reports", limit=None):
        if not (job.snapshot and job.snapshot.ended):
            job.cancel()
    working.cleanup_stuck_chunks()  # what the workers of other tests lost
    for account in working.email.accounts():
        working.email.remove_account(account.name)
    names = {name: getattr(sc, name) for name in sc.__all__}
    example.globs = {
        **example.globs,
        **names,
        "client": working,
        "job": working.trigger_sync("reports", chunks=[{"page": 1}, {"page": 2}]),
        "request_token": stack.user_token(str(uuid.uuid4())),
        "url": stack.url,
        "key": stack.secret_key,
        "timedelta": timedelta,
        "threading": threading,
        "supabase": supabase,
        "BaseModel": BaseModel,
    }
    output: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    runner.run(example, out=output.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(output)


@pytest.mark.parametrize(("name", "method"), public_methods())
def test_every_public_method_has_an_example(name: str, method: Any) -> None:
    assert ">>>" in (inspect.getdoc(method) or ""), f"{name} has none"
