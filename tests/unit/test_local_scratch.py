"""Folders of stacks: held by one owner, removed when their owner was killed."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import pytest

from supabase_chunks.local import LocalStackError, scratch

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="folders are not held on Windows")


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of our own for temporary folders."""
    monkeypatch.setattr(scratch, "memory_dir", lambda: tmp_path)
    return tmp_path


def _age(folder: Path) -> None:
    past = time.time() - 3600
    os.utime(folder / "owner.lock", (past, past))


def test_abandoned_folder_is_removed_by_the_next_start() -> None:
    abandoned = scratch.make_temporary()
    scratch.let_go(scratch.hold(abandoned))
    (abandoned / "deep").mkdir()
    _age(abandoned)
    scratch.make_temporary()
    assert not abandoned.exists()


def test_folder_in_use_stays() -> None:
    used = scratch.make_temporary()
    held = scratch.hold(used)
    _age(used)
    scratch.make_temporary()
    assert used.exists()
    scratch.let_go(held)


def test_folder_made_a_moment_ago_stays() -> None:
    fresh = scratch.make_temporary()
    scratch.let_go(scratch.hold(fresh))
    scratch.make_temporary()
    assert fresh.exists()


def test_second_owner_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_WAIT_SECONDS", 0.1)
    held = scratch.hold(tmp_path)
    with pytest.raises(LocalStackError, match="in use by another local stack"):
        scratch.hold(tmp_path)
    scratch.let_go(held)
    scratch.let_go(scratch.hold(tmp_path))
