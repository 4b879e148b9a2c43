"""Where PostgREST comes from, system by system."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from supabase_chunks.local import LocalStackError, postgrest


def find() -> Path:
    return asyncio.run(postgrest.find_postgrest(Path("deno"), lambda _: None))


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A system without PostgREST; the folder is its PATH."""
    monkeypatch.delenv("POSTGREST", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "machine", "words"),
    [
        ("darwin", "arm64", "run `brew install postgrest`."),
        ("win32", "AMD64", "run `scoop install postgrest` or `choco install postgrest`"),
        (
            "linux",
            "aarch64",
            "the file for your processor from https://github.com/PostgREST/postgrest/releases",
        ),
        ("freebsd14", "amd64", "get it from https://github.com/PostgREST/postgrest/releases"),
    ],
)
def test_where_it_cannot_be_fetched_the_message_says_how_to_get_it(
    system: Path, monkeypatch: pytest.MonkeyPatch, name: str, machine: str, words: str
) -> None:
    monkeypatch.setattr(postgrest, "sys", SimpleNamespace(platform=name))
    monkeypatch.setattr(postgrest, "platform", SimpleNamespace(machine=lambda: machine))
    with pytest.raises(LocalStackError) as raised:
        find()
    assert words in str(raised.value)
    assert f"({name}, {machine})" in str(raised.value)
    assert "POSTGREST" in str(raised.value)


def test_a_named_one_comes_before_one_on_the_path(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (system, system / "mine"):
        folder.mkdir(exist_ok=True)
        (folder / "postgrest").write_text("#!/bin/sh\n")
        (folder / "postgrest").chmod(0o755)
    assert find() == system / "postgrest"
    monkeypatch.setenv("POSTGREST", str(system / "mine" / "postgrest"))
    assert find() == system / "mine" / "postgrest"
    monkeypatch.setenv("POSTGREST", str(system / "gone"))
    with pytest.raises(LocalStackError, match=r"POSTGREST names .*gone, which is no file"):
        find()
