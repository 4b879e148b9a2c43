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
# A process takes half a second to start, and the locale is its own: so each does several commands, as if alone.
# Arguments come as the system gives them, with a semicolon between commands.
ONE_AFTER_THE_OTHER = """
import os, sys
from supabase_chunks.cli import main
given, number = sys.argv[1:], 0
while given:
    end = given.index(";")
    sys.argv, given = ["supabase-chunks", *given[:end]], given[end + 1:]
    os.dup2(os.open(f"written.{number}", os.O_WRONLY | os.O_CREAT), 1)
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, (sys.argv, ended.code)
    sys.stdout.flush()
    number += 1
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

    def run(*commands: tuple[str, ...]) -> list[bytes]:
        """What each of some commands has written."""
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                ONE_AFTER_THE_OTHER,
                *(word for command in commands for word in (*command, ";")),
            ],
            cwd=folder,
            env=environment,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return [(folder / f"written.{number}").read_bytes() for number in range(len(commands))]

    (folder / "für alle.json").write_text('{"für": "alle"}', encoding="utf-8")
    given = ("trigger", kind, "--chunks", "Stücke.jsonl", "--payload")
    _, said = run(
        (*given, "@für alle.json", "--owner", str(uuid4())), (*given, '{"für": "alle"}', "--key", "Zoë's")
    )
    job = said.decode().strip()
    encoding = "cp1252" if locale == "Windows" else "utf-8"
    _, listed, shown, as_text, as_json = (
        written.decode(encoding)
        for written in run(
            ("worker", "tasks:handler", "--kind", kind, "--until-idle"),
            ("chunks", job, "--json"),
            ("chunks", job),
            ("status", job),
            ("status", job, "--json"),
        )
    )
    assert [chunk["result"] for chunk in json.loads(listed)] == [{"grüß": name} for name in NAMES]
    assert shown.count("completed") == 3
    assert "3 of 3 completed" in as_text
    status = json.loads(as_json)
    assert (status["payload"], status["job_key"]) == ({"für": "alle"}, "Zoë's")
