"""What a payload may be: so many bytes, and nothing that a reader dies of."""

from __future__ import annotations

import json
import uuid
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql import invariants
from tests.sql.database import Database, Session, refused, reports

DEEPEST, LONGEST = 100, 300


def nested(depth: int) -> Any:
    """An object of so many levels, with a list at every other one."""
    return {"a": [nested(depth - 2)] if depth > 2 else {} if depth == 2 else 1}


# What must not get in, as text: psycopg would not write all of it. With what the error says beside the name.
POISON = {
    "deep": (json.dumps(nested(DEEPEST + 1)), " is nested deeper than 100 levels"),
    "very deep": ('{"a":' * 990 + "1" + "}" * 990, " is nested deeper than 100 levels"),
    "deep lists": ('{"a":' + "[" * 2000 + "]" * 2000 + "}", " is nested deeper than 100 levels"),
    "exponent": ('{"a": [1, {"b": 1e100000}]}', ".a[1].b is a number of more than 300 digits"),
    "negative": ('{"a": -1e300}', ".a is a number of more than 300 digits"),
    "digits": ('{"a": ' + "7" * 4301 + "}", ".a is a number of more than 300 digits"),
    "fraction": ('{"a": 0.' + "1" * 301 + "}", ".a is a number of more than 300 digits"),
}
HARMLESS = {
    "as deep as may be": json.dumps(nested(DEEPEST)),
    "as long as may be": '{"a": -' + "7" * LONGEST + "." + "5" * LONGEST + "}",
    "a text of digits": json.dumps({"a": "7" * 5000, "7" * 500: 1}),
}


def start_chunks(session: Session, text: str) -> None:
    session.execute(
        "select public.start_sync_job('plain', chunks => jsonb_build_array('{}'::jsonb, %s::jsonb))", text
    )


def start_payload(session: Session, text: str) -> None:
    session.execute("select public.start_sync_job('plain', payload => %s::jsonb)", text)


def append(session: Session, text: str) -> None:
    job = session.start(chunks=[{}], sealed=False)["id"]
    session.execute(
        "select public.append_sync_chunks(%s, jsonb_build_array('{}'::jsonb, %s::jsonb))", job, text
    )


def report(session: Session, text: str) -> None:
    chunk = session.claimed(session.start(chunks=[{}])["id"])
    session.execute(
        "select public.complete_chunk_job_safe(%s, %s, next_chunks => jsonb_build_array('{}'::jsonb, %s::jsonb))",
        chunk["chunk_id"],
        chunk["claim_token"],
        text,
    )


WAYS = {
    "chunks of a start": (start_chunks, "chunks", "chunks[1]"),
    "payload": (start_payload, "payload", "payload"),
    "append": (append, "chunks", "chunks[1]"),
    "next_chunks": (report, "next_chunks", "next_chunks[1]"),
}


@pytest.mark.parametrize("way", WAYS)
def test_poison_is_refused_by_its_place(service: Session, way: str) -> None:
    act, argument, place = WAYS[way]
    for text, flaw in POISON.values():
        with pytest.raises(psycopg.Error) as caught:
            act(service, text)
        assert caught.value.sqlstate == "SC003"
        assert caught.value.diag.message_primary == place + flaw
        assert caught.value.diag.message_detail == argument
    invariants.check(service)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_just_below_goes_in(service: Session, way: str) -> None:
    payloads = "select count(*) from {} where payload = %s::jsonb"
    for text in HARMLESS.values():
        WAYS[way][0](service, text)
        stored = [
            service.value(payloads.format(table), text)
            for table in ("public.sync_jobs", "public.chunk_processing_queue")
        ]
        assert stored == ([1, 0] if way == "payload" else [0, 1])


RESULTS = POISON | {
    "a list": ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), " is nested deeper than 100 levels"),
    "a number": ("1e100000", " is a number of more than 300 digits"),
}


def test_a_result_that_some_cannot_read_is_refused(service: Session) -> None:
    """The chunk stays its worker's, to report it failed."""
    for text, flaw in RESULTS.values():
        chunk = service.claimed(service.start(chunks=[{}])["id"])
        held = (chunk["chunk_id"], chunk["claim_token"])
        with pytest.raises(psycopg.Error) as caught:
            service.execute("select public.complete_chunk_job_safe(%s, %s, result => %s::jsonb)", *held, text)
        assert caught.value.sqlstate == "SC003"
        assert caught.value.diag.message_primary == "result" + flaw
        assert caught.value.diag.message_detail == "result"
        others = [service.claimed(service.start(chunks=[{}])["id"]) for _ in range(2)]
        answers = service.value(
            "select public.complete_chunk_jobs_safe(jsonb_set(%s, '{1,result}', %s::jsonb))",
            Jsonb(reports([others[0], chunk, others[1]])),
            text,
        )
        assert [answer["outcome"] for answer in answers] == ["completed", "error", "completed"]
        assert (answers[1]["code"], answers[1]["message"]) == ("SC003", "result" + flaw)
        assert service.fail(chunk, retryable=False)["outcome"] == "failed"
    invariants.check(service)


@pytest.mark.parametrize(
    "harmless", [*HARMLESS.values(), "[" * DEEPEST + "]" * DEEPEST, "7" * LONGEST, "null"]
)
def test_a_result_just_below_is_kept(service: Session, harmless: str) -> None:
    chunk = service.claimed(service.start(chunks=[{}])["id"])
    service.execute(
        "select public.complete_chunk_job_safe(%s, %s, result => %s::jsonb)",
        chunk["chunk_id"],
        chunk["claim_token"],
        harmless,
    )
    stored = "select count(*) from public.chunk_processing_queue where id = %s and result = %s::jsonb"
    assert service.value(stored, chunk["chunk_id"], harmless) == 1


def test_in_a_bulk_report_it_is_that_items_error(service: Session) -> None:
    job = service.start(chunks=[{}] * 3 * len(POISON))["id"]
    for text, flaw in POISON.values():
        chunks = [service.claimed(job) for _ in range(3)]
        answers = service.value(
            "select public.complete_chunk_jobs_safe(jsonb_set(%s, '{1,next_chunks}', jsonb_build_array(%s::jsonb)))",
            Jsonb(reports(chunks)),
            text,
        )
        assert [answer["outcome"] for answer in answers] == ["completed", "error", "completed"]
        assert (answers[1]["code"], answers[1]["message"]) == ("SC003", f"next_chunks[0]{flaw}")
    invariants.check(service)


def test_checkpoints_and_states(service: Session) -> None:
    """A claim gives them out."""
    chunk = service.claimed(service.start(chunks=[{}])["id"])
    held = (chunk["chunk_id"], chunk["claim_token"])
    for poison, _ in POISON.values():
        text = poison.replace("1e100000", "1e5000")  # not for its bytes
        with refused("SC003", "checkpoint"):
            service.execute("select public.extend_chunk_lease(%s, %s, checkpoint => %s::jsonb)", *held, text)
        with refused("SC003", "next_state"):
            service.execute(
                "select public.complete_chunk_job_safe(%s, %s, next_state => %s::jsonb)", *held, text
            )
        with refused("SC003", "state"):
            service.execute("select public.save_sync_state('plain', 'k', %s::jsonb)", text)


BIG = '{"text": "' + "x" * 2000 + '"}'


@pytest.mark.parametrize("way", WAYS)
def test_bytes_of_the_service(service: Session, way: str) -> None:
    act, argument, place = WAYS[way]
    service.call("save_chunk_settings", settings={"max_payload_bytes": 2000})
    with pytest.raises(psycopg.Error) as caught:
        act(service, BIG)
    assert caught.value.sqlstate == "SC004"
    assert caught.value.diag.message_primary == f"{place} has 2012 bytes of JSON; it may have 2000"
    assert caught.value.diag.message_detail == argument


def test_bytes_of_a_result(service: Session) -> None:
    service.call("save_chunk_settings", settings={"max_payload_bytes": 2000})
    chunk = service.claimed(service.start(chunks=[{}])["id"])
    with refused("SC004", "result"):
        service.complete(chunk, result="x" * 1999)
    assert service.complete(chunk, result="x" * 1998)["outcome"] == "completed"


def test_bytes_of_a_user(db: Database, service: Session) -> None:
    service.call(
        "save_chunk_settings", settings={"user_max_payload_bytes": 2011, "user_max_chunk_bytes": 1000}
    )
    anna = db.connect("authenticated", user=str(uuid.uuid4()))
    with refused("SC004", "payload"):
        start_payload(anna, BIG)
    for way, text in (("chunks of a start", BIG), ("append", BIG)):
        with refused("SC004", "chunks"):
            WAYS[way][0](anna, text)
    service.call(
        "save_chunk_settings", settings={"user_max_payload_bytes": 2012, "user_max_chunk_bytes": None}
    )
    start_payload(anna, BIG)
    append(anna, BIG)


def test_a_compressed_payload_counts_as_it_reads(db: Database, service: Session) -> None:
    anna = db.connect("authenticated", user=str(uuid.uuid4()))
    with refused("SC004", "payload"):
        anna.execute(
            "select public.start_sync_job('plain', payload => jsonb_build_object('a', repeat('x', 2000000)))"
        )
