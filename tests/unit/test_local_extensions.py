"""What the document says of extensions is what the server finds."""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import jwt
import psycopg
import pytest

from supabase_chunks.local import extensions, platform
from supabase_chunks.local.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGE = Path(__file__).parents[2] / "docs" / "local.md"
_ROWS = dict(
    re.findall(
        r"^\| (real|stand-in, whole|stand-in, in part|name only|missing) \| (.+?) \|$",
        _PAGE.read_text("utf-8"),
        re.M,
    )
)
REAL, WHOLE, PART, NAMES, MISSING = (
    re.findall(r"[a-z][\w-]+", _ROWS[row].partition(":")[0])
    for row in ("real", "stand-in, whole", "stand-in, in part", "name only", "missing")
)


@pytest.fixture(scope="module")
def owner() -> Iterator[psycopg.Connection]:
    """The owner of a project, on a server of this package."""
    with PostgresServer() as server:
        platform.install(server.dsn)
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("set session authorization postgres")
            yield connection


def test_the_owner_can_create_what_is_real_or_stands_in(owner: psycopg.Connection) -> None:
    there = {
        name: comment.startswith("stand-in")
        for name, comment in owner.execute("select name, comment from pg_available_extensions").fetchall()
    }
    assert {name: there[name] for name in REAL} == dict.fromkeys(REAL, False)
    stand_ins = [*WHOLE, *PART, *NAMES]
    assert sorted(stand_ins) == sorted(name for name, is_ours in there.items() if is_ours)
    for name in [*REAL, *stand_ins]:
        owner.execute(f'create extension if not exists "{name}" cascade')


def test_what_is_missing_is_known_to_be(owner: psycopg.Connection) -> None:
    there = {name for (name,) in owner.execute("select name from pg_available_extensions").fetchall()}
    assert there.isdisjoint(MISSING)
    assert set(MISSING) <= extensions.MISSING
    listed = {
        name for name in extensions.MISSING - there if not re.match(r"(postgis|address|pgroonga)_", name)
    }
    assert listed - set(MISSING) <= {
        "orioledb",
        "pg_plan_filter",
        "pg_stat_monitor",
        "plcoffee",
        "plls",
        "supautils",
    }


@pytest.mark.parametrize(
    "call",
    [
        "extensions.pgp_sym_encrypt('a', 'b')",
        "extensions.encrypt('a', 'b', 'aes')",
        "extensions.crypt('a', '$2a$06$abcdefghijklmnopqrstuu')",
    ],
)
def test_what_a_stand_in_lacks_it_says(owner: psycopg.Connection, call: str) -> None:
    with pytest.raises(
        psycopg.errors.FeatureNotSupported, match=r"missing in the local stack\nHINT.*docs/local.md"
    ):
        owner.execute(f"select {call}")


@pytest.mark.parametrize("length", [0, 1, 55, 56, 63, 64, 65, 128, 1000])
@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"])
def test_digests_and_hmac_are_the_worlds(owner: psycopg.Connection, algorithm: str, length: int) -> None:
    data, key = bytes(n % 251 for n in range(length)), bytes(n % 7 for n in range(length))
    row = owner.execute(
        "select extensions.digest(%(data)s::bytea, %(algorithm)s),"
        " extensions.hmac(%(data)s::bytea, %(key)s::bytea, %(algorithm)s)",
        {"data": data, "key": key, "algorithm": algorithm},
    ).fetchone()
    assert row == (hashlib.new(algorithm, data).digest(), hmac.digest(key, data, algorithm))


def test_uuids_by_name_and_by_time(owner: psycopg.Connection) -> None:
    row = owner.execute(
        "select extensions.uuid_generate_v5(extensions.uuid_ns_dns(), 'python.org'),"
        " extensions.uuid_generate_v3(extensions.uuid_ns_url(), 'é'),"
        " extensions.uuid_generate_v1(), extensions.uuid_generate_v4()"
    ).fetchone()
    assert row is not None
    assert row[0] == uuid.uuid5(uuid.NAMESPACE_DNS, "python.org")
    assert row[1] == uuid.uuid3(uuid.NAMESPACE_URL, "é")
    assert (row[2].version, row[3].version) == (1, 4)
    assert abs(row[2].time - uuid.uuid1().time) < 10**9  # 100 s, in ticks of 100 ns


def test_jwt_are_read_by_others(owner: psycopg.Connection) -> None:
    secret = "s" * 64
    owner.execute("create extension if not exists pgjwt with schema extensions")
    owner.execute("set search_path to public, extensions")
    (made,) = owner.execute("select sign('{\"sub\": \"é\"}', %s, 'HS512')", (secret,)).fetchone() or ("",)
    assert jwt.decode(made, secret, algorithms=["HS512"]) == {"sub": "é"}
    read = "select payload ->> 'exp', valid from verify(%s, %s)"
    for expires, valid in ((1, False), (32503680000, True)):
        token = jwt.encode({"exp": expires}, secret)
        assert owner.execute(read, (token, secret)).fetchone() == (str(expires), valid)
        assert owner.execute(read, (token, "other")).fetchone() == (str(expires), False)
