"""Rows with JSON that Python cannot read: a text stands in its place, and the others are as they were."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from supabase_chunks import Unreadable
from supabase_chunks._unreadable import readable
from tests.unit.wire import JOB, outcomes, rpc, table

if TYPE_CHECKING:
    import respx

DEEP = '{"a":' * 990 + "1" + "}" * 990
POISON = {
    "objects": DEEP,
    "lists": "[" * 5000 + "]" * 5000,
    "mixed": '[{"a]": "}"},{"b":' * 200 + "{}" + "}]" * 200,
    "digits": '{"a": [1, ' + "7" * 4301 + "]}",
    "exponent": '{"a": -1' + "0" * 100_000 + ".5}",
}
# Not poison, though it looks like it to a fast look.
HARMLESS = {
    "brackets in texts": json.dumps({"a": "[[[" * 300, "b{": '\\"}]', "c": "\\"}),
    "digits in texts": json.dumps({"a": "7" * 5000, "7" * 400: 1}),
    "names in texts": json.dumps({"payload": {"result": {"payload": "payload"}}, "x": ["payload", "result"]}),
    "no value": "null",
    "180 deep": "[" * 180 + "]" * 180,
}


def rows(*payloads: str) -> bytes:
    """A page of chunks with these payloads."""
    chunk = (
        '{"id": %d, "parent_sync_job_id": "%s", "kind": "payload", "chunk_index": %d, "status": "pending",'
        ' "payload": %s, "result": null, "error": "result"}'
    )
    page = ",".join(chunk % (number, JOB, number, payload) for number, payload in enumerate(payloads))
    return f"[{page}]".encode()


@pytest.mark.parametrize("poison", POISON)
def test_a_value_is_replaced_and_all_else_is_as_it_was(poison: str) -> None:
    content = readable(rows('{"n": "[1"}', POISON[poison], *HARMLESS.values()))
    assert content is not None
    found = [row["payload"] for row in json.loads(content)]
    assert found[0] == {"n": "[1"}
    assert found[1].startswith(("\x00nested deeper than 190 levels", "\x00a number of "))
    assert found[2:] == [json.loads(text) for text in HARMLESS.values()]


@pytest.mark.parametrize("harmless", HARMLESS)
def test_what_can_be_read_stays(harmless: str) -> None:
    content = rows(HARMLESS[harmless])
    assert json.loads(readable(content) or content) == json.loads(content)


@pytest.mark.parametrize("poison", POISON)
async def test_lists_of_jobs_and_chunks_survive(respx_mock: respx.MockRouter, poison: str) -> None:
    table(respx_mock, "chunk_processing_queue").respond(
        content=rows('{"n": 1}', POISON[poison]), headers={"content-type": "application/json"}
    )
    for found in await outcomes(lambda client: client.job(JOB).chunks(limit=2)):
        assert found[0].payload == {"n": 1}
        assert isinstance(found[1].payload, Unreadable)
        assert "Unreadable('" in repr(found[1].payload)
        assert json.loads(found[1].model_dump_json())["payload"] == str(found[1].payload)
    about = {"id": JOB, "kind": "k", "status": "running"}
    progress = json.dumps(about)[:-1] + ', "payload": ' + POISON[poison] + "}"
    for route in (
        table(respx_mock, "chunk_processing_status"),
        rpc(respx_mock, "get_sync_job_progress_safe"),
    ):
        text = progress if "rpc" in str(route.pattern) else f"[{progress}]"
        route.respond(content=text.encode(), headers={"content-type": "application/json"})
    for jobs in await outcomes(lambda client: client.jobs(limit=1)):
        assert isinstance(jobs[0].snapshot.payload, Unreadable)
    for seen in await outcomes(lambda client: client.job(JOB).progress()):
        assert isinstance(seen.payload, Unreadable)


async def test_an_answer_that_is_all_unreadable_is_an_error_of_ours(respx_mock: respx.MockRouter) -> None:
    rpc(respx_mock, "chunk_system_health").respond(
        content=DEEP.encode(), headers={"content-type": "application/json"}
    )
    for error in await outcomes(lambda client: client.health()):
        assert "cannot be read as JSON (RecursionError)" in str(error)


async def test_a_number_too_long_to_be_read_is_not_sent() -> None:
    def start(client: Any) -> Any:
        return client.trigger_sync("k", payload={"a": [10**300]})

    for error in await outcomes(start):
        assert str(error) == "payload.a[0]: a number of more than 300 digits"
