"""Odd input that is taken, and what PostgreSQL's own jsonb input refuses."""

from __future__ import annotations

import psycopg
import pytest

from tests.sql import invariants
from tests.sql.database import Session


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('[{"subject": "a\\u0000b"}]', "22P05"),
        ('[{"subject": "\\ud800"}]', "22P02"),
        ('[{"n": NaN}]', "22P02"),
        ('[{"n": 1}', "22P02"),
    ],
)
def test_what_jsonb_refuses_stays_its_own_error_and_writes_nothing(
    service: Session, text: str, code: str
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        service.connection.execute(
            "select public.start_sync_job('plain', chunks => %s::text::jsonb)", (text,)
        )
    assert caught.value.sqlstate == code
    assert service.value("select count(*) from public.sync_jobs") == 0


@pytest.mark.parametrize("text", ['{"subject": "a\\u0000b"}', '{"subject": "\\udc00"}'])
def test_a_report_that_jsonb_refuses_leaves_the_chunk_to_its_worker(service: Session, text: str) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job)
    with pytest.raises(psycopg.DataError):
        service.connection.execute(
            "select public.complete_chunk_job_safe(%s, %s, result => %s::text::jsonb)",
            (chunk["chunk_id"], chunk["claim_token"], text),
        )
    assert service.complete(chunk, result={"subject": "ab"})["outcome"] == "completed"
    invariants.check(service)


def test_a_megabyte_and_large_numbers_come_back_as_they_went_in(service: Session) -> None:
    payload = {"text": "ä" * 1_000_000, "big": 2**63 + 1, "bigger": 10**40, "exact": 9007199254740993}
    job = service.start(chunks=[payload], payload=payload)["id"]
    chunk = service.claimed(job)
    assert chunk["payload"] == chunk["job_payload"] == payload
    service.complete(chunk, result=payload)
    assert service.chunks(job)[0]["result"] == payload


@pytest.mark.parametrize("result", [None, 5, "text", [1, 2], {"a": None}, True])
def test_a_result_may_be_any_json(service: Session, result: object) -> None:
    job = service.start(chunks=[{}])["id"]
    chunk = service.claimed(job)
    service.connection.execute(
        "select public.complete_chunk_job_safe(%s, %s, result => %s)",
        (chunk["chunk_id"], chunk["claim_token"], psycopg.types.json.Jsonb(result)),
    )
    assert service.chunks(job)[0]["result"] == result


def test_a_hundred_thousand_chunks_are_one_call(service: Session) -> None:
    job = service.start(total_items=1_000_000, chunk_size=10, max_concurrency=1000)
    assert job["total_chunks"] == 100_000
    service.control("cancel_sync_job", job["id"])
    invariants.check(service)


def test_an_error_text_of_any_length_is_kept(service: Session) -> None:
    job = service.start(chunks=[{}], max_retries=0)["id"]
    service.fail(service.claimed(job), "x" * 100_000)
    assert len(service.chunks(job)[0]["error"]) == 100_000


@pytest.mark.parametrize("key", ["x" * 500, "with 'quotes' and \\ and \n", "日本語"])
def test_keys_of_any_letters(service: Session, key: str) -> None:
    first = service.start(chunks=[{}], job_key=key)
    assert first["job_key"] == key
    assert service.start(chunks=[{}], job_key=key)["id"] == first["id"]


def test_null_is_the_default_where_there_is_one(service: Session) -> None:
    job = service.start(chunks=[{}, {}], priority=None, sealed=None)["id"]
    assert service.fail(service.claimed(job), retryable=None)["outcome"] == "retrying"
    assert service.complete(service.claimed(job), claim_next=None)["next"] is None
    invariants.check(service)
