"""The commands where the locale is not UTF-8, on paths with spaces and letters beyond ASCII."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from supabase_chunks import ChunksClient

if TYPE_CHECKING:
    from supabase_chunks.local import LocalStack

ROOT = Path(__file__).parents[2]
NAMES = ["Zoë", "日本", "🙂"]
HANDLER = """
def handler(chunk):
    return {"grüß": chunk.payload["näme"]}
"""
# Python makes the best of the first; the others are what an old system or Windows has.
LOCALES = {
    "C": {"LC_ALL": "C", "LANG": "C"},
    "C, taken at its word": {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "Windows": {"PYTHONUTF8": "0", "PYTHONIOENCODING": "cp1252"},
}


@pytest.mark.parametrize("locale", LOCALES)
def test_a_job_from_files_with_any_letters(stack: LocalStack, tmp_path: Path, locale: str) -> None:
    folder = tmp_path / "Aufträge von heute"
    folder.mkdir()
    (folder / "tasks.py").write_text(HANDLER, encoding="utf-8")
    lines = "".join(f"{json.dumps({'näme': name}, ensure_ascii=False)}\n" for name in NAMES)
    (folder / "Stücke.jsonl").write_text(lines, encoding="utf-8")
    kind = f"locale-{list(LOCALES).index(locale)}"
    ChunksClient(stack.url, stack.secret_key).save_kind(kind, max_retries=0)
    unset = {"PYTHONUTF8", "PYTHONIOENCODING", "LC_CTYPE"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"PYTHONPATH": str(ROOT), **stack.environment(), **LOCALES[locale]}

    def run(*arguments: str) -> bytes:
        command = [sys.executable, "-m", "supabase_chunks.cli", *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (folder / "für alle.json").write_text('{"für": "alle"}', encoding="utf-8")
    run("trigger", kind, "--chunks", "Stücke.jsonl", "--payload", "@für alle.json", "--owner", str(uuid4()))
    about = ("--payload", '{"für": "alle"}', "--key", "Zoë's")
    job = run("trigger", kind, "--chunks", "Stücke.jsonl", *about).decode().strip()
    run("worker", "tasks:handler", "--kind", kind, "--until-idle")
    encoding = "cp1252" if locale == "Windows" else "utf-8"
    chunks = json.loads(run("chunks", job, "--json").decode(encoding))
    assert [chunk["result"] for chunk in chunks] == [{"grüß": name} for name in NAMES]
    assert run("chunks", job).decode(encoding).count("completed") == 3
    assert "3 of 3 completed" in run("status", job).decode(encoding)
    status = json.loads(run("status", job, "--json").decode(encoding))
    assert (status["payload"], status["job_key"]) == ({"für": "alle"}, "Zoë's")
