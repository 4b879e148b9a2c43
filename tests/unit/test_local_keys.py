"""The keys of a local project."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import jwt
import pytest

from supabase_chunks.local.keys import Keys

if TYPE_CHECKING:
    from pathlib import Path


def test_each_key_stands_for_its_role_and_nothing_else_does() -> None:
    keys = Keys()
    assert keys.role_of(keys.publishable) == "anon"
    assert keys.role_of(keys.secret) == "service_role"
    assert keys.role_of(keys.legacy_key("anon")) == "anon"
    assert keys.role_of(keys.legacy_key("service_role")) == "service_role"
    assert keys.role_of(Keys().secret) is None
    assert keys.role_of(keys.user_token("someone")) is None
    assert keys.role_of("") is None


def test_keys_look_like_the_platforms() -> None:
    keys = Keys()
    assert keys.secret.startswith("sb_secret_")
    assert keys.publishable.startswith("sb_publishable_")


def test_user_token_carries_the_user_and_expires() -> None:
    keys = Keys()
    claims = jwt.decode(
        keys.user_token("u1"), keys.jwt_secret, algorithms=["HS256"], audience="authenticated"
    )
    assert (claims["sub"], claims["role"]) == ("u1", "authenticated")
    with pytest.raises(jwt.ExpiredSignatureError):
        jwt.decode(
            keys.user_token("u1", expires_in=-60),
            keys.jwt_secret,
            algorithms=["HS256"],
            audience="authenticated",
        )


def test_kept_keys_stay_the_same_and_are_private(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    first = Keys.kept_in(path)
    assert Keys.kept_in(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_repr_shows_no_key() -> None:
    keys = Keys()
    assert keys.secret not in repr(keys)
    assert keys.jwt_secret not in repr(keys)
