"""docs/api is what the docstrings give, and has every public name."""

from __future__ import annotations

import re

import pytest

import supabase_chunks

pytest.importorskip("griffe")

from tools import build_api_reference

PAGES = build_api_reference.build()


def test_what_is_checked_in_is_what_the_docstrings_give() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in build_api_reference.FOLDER.glob("*.md")}
    changed = [name for name in {*found, *PAGES} if found.get(name) != PAGES.get(name)]
    assert changed == [], "run `make reference`"


def test_every_public_name_is_there_once() -> None:
    headings = re.findall(r"^## (\w+)$", "\n".join(PAGES.values()), re.MULTILINE)
    assert len(headings) == len(set(headings))
    assert set(supabase_chunks.__all__) - set(headings) == set()


def test_every_public_method_is_there_with_its_arguments() -> None:
    page = PAGES["clients.md"]
    section = page.partition("### ChunksClient.trigger_sync\n")[2].partition("\n###")[0]
    assert "    job_key: str | None = None," in section
    assert "- `job_key`: With it there is at most one running job" in section
    assert "- `UnknownKind`: There is no such kind." in section
    assert "```pycon\n>>> job = client.trigger_sync(" in section
