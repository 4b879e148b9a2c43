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
from tests.documents import ALL, DOCS, ROOT, Block, functions_on_the_wall

TEXTS = {path.name: path.read_text(encoding="utf-8") for path in DOCS}
# What else people read.
PAGES = [
    *DOCS,
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "supabase/schemas/README.md")),
    *(ROOT / "examples").rglob("README.md"),
]
REFERENCE = sorted((ROOT / "docs" / "api").glob("*.md"))
FUNCTIONS = ROOT / "supabase" / "functions"


def _options(command: click.Command) -> set[str]:
    """The options of a command; of a group those of its commands."""
    if isinstance(command, click.Group):
        return set().union(*(_options(each) for each in command.commands.values()))
    given = {option for parameter in command.params for option in parameter.opts}
    return {option for option in given if option.startswith("--")} - {"--help"}


COMMANDS = {
    name: _options(command)
    for name in cli.list_commands(click.Context(cli))
    if (command := cli.get_command(click.Context(cli), name))
}
OF_THE_SYSTEM = {"HOME", "LOCALAPPDATA", "PATH", "PORT", "SYSTEMROOT", "XDG_CACHE_HOME"}
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


@pytest.mark.parametrize("page", [*PAGES, *REFERENCE], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https:)([^)]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        linked = (page.parent / name) if name else page
        assert linked.exists(), target
        assert not anchor or anchor in headings(linked), target


def headings(page: Path) -> list[str]:
    """The anchors of a page."""
    return [
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("#")
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_are_there(page: Path) -> None:
    named = re.findall(
        r"`((?:examples|tests|supabase_chunks|supabase/schemas)/[\w/.]+)`", page.read_text(encoding="utf-8")
    )
    for path in named:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_their_options_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for command, rest in re.findall(r"(?<![/\w])supabase-chunks ([a-z]+(?:-[a-z]+)*)\b([^`\n#]*)", text):
        assert command in COMMANDS, command
        assert set(re.findall(r"--[a-z-]+", rest)) <= COMMANDS[command], (command, rest)


def test_every_command_is_explained_with_every_option() -> None:
    page = TEXTS["commands.md"]
    (without_json,) = re.findall(r"all commands but (.+?) have it", page)
    assert set(re.findall(r"`(\w+)`", without_json)) == {
        name for name, options in COMMANDS.items() if "--json" not in options
    }
    explained = {}
    for heading, section in re.findall(r"^### `(.+?)`\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL):
        explained[heading.split()[0]] = set(re.findall(r"^\| `(--[a-z-]+)` \|", section, re.MULTILINE))
    assert explained == {name: options - {"--json"} for name, options in COMMANDS.items()}


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
    sources = [path.read_text(encoding="utf-8") for path in FUNCTIONS.glob("*/*.ts")]
    reading = "\n".join(text for text in sources if re.search(r"\benv\b", text))
    read = set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+)"', reading))
    section = TEXTS["deploying.md"].partition("## Settings of the functions")[2].partition("\n## ")[0]
    assert read == set(re.findall(r"^\| `([A-Z_]+)` \|", section, re.MULTILINE))


def test_the_environment_that_the_package_reads_is_documented() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "supabase_chunks").rglob("*.py"))
    read = set(re.findall(r"""os\.environ(?:\.get\(|\[)"([A-Z_]+)\b""", sources))
    texts = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
    assert {name for name in read - OF_THE_SYSTEM if f"`{name}`" not in texts} == set()


@pytest.mark.parametrize("name", ["architecture.md", "words.md"])
def test_names_of_what_is_inside_are_those_of_the_sources(name: str) -> None:
    folders = ("supabase/schemas", "supabase/functions", "supabase_chunks", "tests")
    kinds = {".sql", ".ts", ".py"}
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in kinds]
    sources = "\n".join(
        path.read_text(encoding="utf-8") for path in files if "node_modules" not in path.parts
    )
    written = set(re.findall(r"\w+", sources)) | {path.name for path in files}
    named = set(re.findall(r"`(?:\w+\.)?([a-z]\w*_\w+)(?:\(.*?\)|<\w+>)?`", TEXTS[name]))
    assert named
    assert {item for item in named if item not in written and not item.endswith("_")} == set()


def test_a_word_has_one_line_in_the_list() -> None:
    words = re.findall(r"^\| ([a-z][a-z -]*) \|", TEXTS["words.md"], re.MULTILINE)[1:]
    assert len(words) == len(set(words)) > 40


def test_what_has_another_name_now_is_not_called_by_the_old_one() -> None:
    gone = re.compile(
        r"\bshards?\b|\breleased? (?:chunk|slot)s\b|\breleases? (?:no more|the next|next)\b", re.IGNORECASE
    )
    texts = [
        *PAGES,
        *(ROOT / "supabase" / "schemas").glob("*.sql"),
        *(ROOT / "supabase_chunks").rglob("*.py"),
    ]
    texts += FUNCTIONS.glob("*/*.ts")
    found = {str(path): gone.findall(path.read_text(encoding="utf-8")) for path in texts}
    assert {path: words for path, words in found.items() if words} == {}


def test_every_rpc_is_on_the_wall_under_its_file() -> None:
    shown = {row.name.partition(",")[0]: row.file for row in functions_on_the_wall()}
    public = {
        name: path.stem
        for path in sorted((ROOT / "supabase" / "schemas").glob("*.sql"))
        for name in re.findall(
            r"^create or replace function public\.(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    assert shown == public


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
