"""Which folders are Edge Functions, and what they get to see."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from supabase_chunks.local import LocalStackError, functions
from supabase_chunks.local.keys import Keys

if TYPE_CHECKING:
    from pathlib import Path


def test_functions_are_the_folders_with_an_index_and_no_underscore(tmp_path: Path) -> None:
    for name in ("hello", "_shared", ".hidden", "empty", "world"):
        (tmp_path / name).mkdir()
        if name != "empty":
            (tmp_path / name / "index.ts").touch()
    (tmp_path / "index.ts").touch()
    (tmp_path / "hello" / "deno.json").touch()
    (tmp_path / "import_map.json").touch()
    assert [(found.name, found.import_map) for found in functions.find_functions(tmp_path)] == [
        ("hello", tmp_path / "hello" / "deno.json"),
        ("world", tmp_path / "import_map.json"),
    ]


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LocalStackError, match="There is no folder"):
        functions.find_functions(tmp_path / "nowhere")


def test_environment_is_the_platforms_and_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET_OF_MINE", "x")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid")
    keys = Keys()
    seen = functions.environment(keys, url="http://here", database_url="postgresql://", extra={"MINE": "1"})
    assert json.loads(seen["SUPABASE_SECRET_KEYS"]) == {"default": keys.secret}
    assert json.loads(seen["SUPABASE_PUBLISHABLE_KEYS"]) == {"default": keys.publishable}
    assert seen["SUPABASE_URL"] == "http://here"
    assert seen["MINE"] == "1"
    assert "SOME_SECRET_OF_MINE" not in seen
    assert "HTTP_PROXY" not in seen
