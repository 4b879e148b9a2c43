"""What the local project's front door lets in, and as whom."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from supabase_chunks.local import LocalStack

USER = "2f1d3a0e-6f3f-4a44-9a57-c7f1f6a8a8aa"


def _whoami(stack: LocalStack, **headers: str) -> httpx.Response:
    return httpx.post(f"{stack.url}/rest/v1/rpc/whoami", headers=headers, json={})


@pytest.mark.parametrize(
    ("key", "bearer", "role", "timeout"),
    [
        ("publishable_key", None, "anon", "3s"),
        ("publishable_key", "publishable_key", "anon", "3s"),
        ("publishable_key", "user", "authenticated", "8s"),
        ("secret_key", None, "service_role", "8s"),
        ("secret_key", "secret_key", "service_role", "8s"),
        ("secret_key", "user", "authenticated", "8s"),
        ("anon_key", None, "anon", "3s"),
        ("anon_key", "anon_key", "anon", "3s"),
        ("service_role_key", "service_role_key", "service_role", "8s"),
    ],
)
def test_keys_become_roles(plain: LocalStack, key: str, bearer: str | None, role: str, timeout: str) -> None:
    headers = {"apikey": getattr(plain, key)}
    if bearer is not None:
        token = plain.user_token(USER) if bearer == "user" else getattr(plain, bearer)
        headers["Authorization"] = f"Bearer {token}"
    seen = _whoami(plain, **headers).json()
    assert seen == {
        "role": role,
        "uid": USER if bearer == "user" else None,
        "statement_timeout": timeout,
    }


def test_request_without_a_key_is_refused(plain: LocalStack) -> None:
    answer = _whoami(plain, Authorization=f"Bearer {plain.user_token(USER)}")
    assert answer.status_code == 401
    assert answer.json()["message"] == "No API key found in request"


@pytest.mark.parametrize("key", ["sb_secret_of_another_project", "nonsense", "eyJhbGciOiJIUzI1NiJ9.e30.x"])
def test_unknown_key_is_refused(plain: LocalStack, key: str) -> None:
    answer = _whoami(plain, apikey=key)
    assert answer.status_code == 401
    assert answer.json()["message"] == "Invalid API key"


def test_expired_user_token_is_refused(plain: LocalStack) -> None:
    token = plain.user_token(USER, expires_in=-60)
    answer = _whoami(plain, apikey=plain.publishable_key, Authorization=f"Bearer {token}")
    assert answer.status_code == 401
    assert "JWT expired" in answer.text


def test_rest_reads_writes_and_caps_rows_like_the_platform(plain: LocalStack) -> None:
    headers = {"apikey": plain.secret_key}
    read = httpx.get(f"{plain.url}/rest/v1/notes?select=id&id=lte.1200", headers=headers)
    assert len(read.json()) == 1000
    assert read.headers["content-range"] == "0-999/*"
    written = httpx.post(f"{plain.url}/rest/v1/notes", headers=headers, json={"id": 9000, "text": "ü ☃"})
    assert written.status_code == 201
    back = httpx.get(f"{plain.url}/rest/v1/notes?id=eq.9000&text=eq.ü%20☃", headers=headers)
    assert back.json() == [{"id": 9000, "text": "ü ☃"}]
    assert httpx.head(f"{plain.url}/rest/v1/notes", headers=headers).status_code == 200


def test_long_filter_is_an_address_like_any_other(plain: LocalStack) -> None:
    ids = ",".join(str(number) for number in range(1, 5001))
    url = f"{plain.url}/rest/v1/notes?select=id&id=in.({ids})&limit=1"
    assert len(url) > 20_000
    assert httpx.get(url, headers={"apikey": plain.secret_key}).json() == [{"id": 1}]


def test_tables_without_grants_are_closed(plain: LocalStack) -> None:
    answer = httpx.get(f"{plain.url}/rest/v1/runs", headers={"apikey": plain.secret_key})
    assert (answer.status_code, answer.json()["code"]) == (403, "42501")


def test_browser_preflight_needs_no_key(plain: LocalStack) -> None:
    headers = {"Origin": "http://app", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{plain.url}/rest/v1/notes", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] in {"*", "http://app"}


def test_function_gets_the_request_as_it_came(plain: LocalStack) -> None:
    answer = httpx.put(
        f"{plain.url}/functions/v1/hello/a%20b?q=%2F",
        headers={"apikey": "any", "Authorization": "Bearer sb_x"},
        content=b"body",
    )
    assert (answer.status_code, answer.headers["x-answer"]) == (201, "yes")
    assert answer.json() == {
        "method": "PUT",
        "path": "/hello/a%20b?q=%2F",
        "apikey": "any",
        "authorization": "Bearer sb_x",
        "body": "body",
        "mine": "1",
        "keys": json.dumps({"default": plain.secret_key}),
    }


def test_large_bodies_pass_both_ways(plain: LocalStack) -> None:
    body = os.urandom(5_000_000)
    assert httpx.post(f"{plain.url}/functions/v1/hello/echo", content=body).content == body
    # Without a length, in pieces.
    pieces = (body[start : start + 100_000] for start in range(0, len(body), 100_000))
    assert httpx.post(f"{plain.url}/functions/v1/hello/echo", content=pieces).content == body


def test_answer_is_streamed(plain: LocalStack) -> None:
    started = time.monotonic()
    with httpx.stream("GET", f"{plain.url}/functions/v1/hello/drip") as answer:
        assert next(answer.iter_text()) == "first\n"
        assert time.monotonic() - started < 2


def test_what_is_not_there(plain: LocalStack) -> None:
    unknown = httpx.get(f"{plain.url}/functions/v1/nobody")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "NOT_FOUND")
    assert httpx.get(f"{plain.url}/elsewhere").status_code == 404
