"""The documents name what there is: pages, commands, options, errors, settings."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import click
import pytest

from supabase_chunks import errors
from supabase_chunks.cli import cli
from supabase_chunks.errors import ResponseError
from tests.documents import ALL, DOCS, ROOT, Block

TEXTS = {path.name: path.read_text(encoding="utf-8") for path in DOCS}
RUN_ELSEWHERE = {"python", "sql", "sh", "ts"}  # by tests/e2e/test_docs.py


@pytest.mark.parametrize("block", ALL, ids=str)
def test_each_block_is_run_or_says_why_not(block: Block) -> None:
    if block.reason is not None:
        named = re.findall(r"tests/\S+\.py", block.reason)
        assert all((ROOT / name).is_file() for name in named)
    elif block.language == "toml":
        ours = tomllib.loads((ROOT / "supabase" / "config.toml").read_text())
        for name, settings in tomllib.loads(block.code)["functions"].items():
            assert settings.items() <= ours["functions"][name].items()
    elif block.language == "json":
        json.loads(block.code)
    else:
        assert block.language in RUN_ELSEWHERE or block.language == "text"


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXTS[name]):
        page, _, anchor = target.partition("#")
        text = TEXTS[page] if page else TEXTS[name]
        headings = [
            re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
            for line in text.splitlines()
            if line.startswith("#")
        ]
        assert not anchor or anchor in headings, target


@pytest.mark.parametrize("name", TEXTS)
def test_files_that_are_named_are_there(name: str) -> None:
    for path in re.findall(r"`((?:examples|tests)/[\w/.]+)`", TEXTS[name]):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", TEXTS)
def test_commands_and_their_options_exist(name: str) -> None:
    context = click.Context(cli)
    for command, rest in re.findall(r"supabase-chunks ([a-z]+)\b([^`\n#]*)", TEXTS[name]):
        found = cli.get_command(context, command)
        assert found is not None, command
        options = {option for parameter in found.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= options, (command, rest)


def test_every_error_is_explained_under_its_code() -> None:
    rows = re.findall(r"^\| ([^|]+) \| `(\w+)` \|", TEXTS["errors.md"], re.MULTILINE)
    explained = {code.strip(): cls for codes, cls in rows for code in codes.split(",")}
    by_code = {code: cls.__name__ for code, cls in ResponseError.by_code.items()}
    by_status = {str(status): cls.__name__ for status, cls in ResponseError.by_status.items()}
    code_or_status = re.compile(r"SC\d{3}|PGRST\d{3}|[0-9A-Z]{5}|[45]\d\d")
    assert by_code | by_status == {
        code: cls for code, cls in explained.items() if code_or_status.fullmatch(code)
    }


def test_the_errors_that_are_named_are_those_of_the_package() -> None:
    general = {"ChunksError", "JobError", "TransportError", "ResponseError"}  # their subclasses are raised
    rows = re.findall(r"^\|.*\|$", TEXTS["errors.md"], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"\| `([A-Z][A-Za-z]+)` \|", row)}
    assert named == set(errors.__all__) - general


def test_the_settings_of_the_functions_are_all_there() -> None:
    settings = ROOT / "supabase" / "functions" / "background-sync-processor" / "settings.ts"
    read = set(re.findall(r'positive\(env, "([A-Z_]+)"\)', settings.read_text(encoding="utf-8")))
    assert read == set(re.findall(r"^\| `([A-Z_]+)` \|", TEXTS["deploying.md"], re.MULTILINE))


def test_the_texts_of_errors_are_those_that_are_written() -> None:
    sources = [
        *(ROOT / "supabase" / "migrations").glob("*.sql"),
        *(ROOT / "supabase" / "functions").rglob("*.ts"),
    ]
    written = "\n".join(Path(path).read_text(encoding="utf-8") for path in sources)
    shown = re.findall(r"^\| `([^`]+)` \|", TEXTS["errors.md"].partition("In `chunk.error`")[2], re.MULTILINE)
    shown += re.findall(r"`((?:no worker has|lost workers|waiting for more)[^`]*)`", TEXTS["operating.md"])
    assert len(shown) == 8
    for text in shown:
        for part in re.split(r"…|422", text):
            assert part.strip(" :") in written, part
