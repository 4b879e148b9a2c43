"""A secret at a wrong place is in nothing that is printed, raised or logged, whatever is done then."""

from __future__ import annotations

import json
import logging
import os
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import supabase_chunks as sc
from supabase_chunks.cli import cli
from supabase_chunks.demo.imap import Address
from supabase_chunks.local.project import Project

MARK = "hunter2hunter2"
JOB = str(uuid.uuid4())
KEY = "sb_secret_for_the_tests"
SECRETS = {
    "a key": f"sb_secret_{MARK}",
    "a legacy key": f"eyJhbGciOi.eyJ{MARK}.{MARK}",
    "a database's URL": f"postgresql://postgres:{MARK}@db.abc.supabase.co:5432/postgres",
    "a URL with a password": f"https://user:{MARK}@abc.supabase.co",
    "a URL with a token": f"https://{MARK}@abc.supabase.co",
    "a URL with a key for a host": f"https://sb_secret_{MARK}.supabase.co",
    "a URL with a key in its query": f"https://abc.supabase.co/?apikey=sb_secret_{MARK}",
    "a URL with a token behind it": f"https://abc.supabase.co#access_token={MARK}",
    "a URL with a port that is none": f"https://user:{MARK}@abc.supabase.co:port",
    "a URL with half a bracket": f"https://user:{MARK}@[abc",
    "a loopback's URL with a password": f"http://user:{MARK}@127.0.0.1:9",
    "two lines": f"sb_secret_{MARK}\nsb_secret_{MARK}",
    "in quotes": f"'sb_secret_{MARK}'",
    "a certificate's key": f"-----BEGIN PRIVATE KEY-----{MARK}",
}
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
ONCE = sc.Retry(attempts=1)


def everything(error: BaseException) -> str:
    """An error as it is printed, with what it was raised from, and in every other form."""
    return "\n".join([*traceback.format_exception(error), repr(error), str(error), repr(vars(error))])


def heard(act: Callable[[], Any]) -> str:
    """Do something; return what of it could be seen by somebody."""
    try:
        return repr(act())
    except Exception as error:
        return everything(error)


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.DEBUG)
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Repeating(BaseHTTPRequestHandler):
    """A project that takes no key, and repeats what it was told."""

    def do_GET(self) -> None:
        body = json.dumps({"message": f"not for {self.headers}", "code": "PGRST301"}).encode()
        self.send_response(401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - as it is called

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Repeating)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def use(url: str, key: str, token: str | None = None) -> str:
    """Make a client, look at it, and ask something."""
    seen = []

    def act() -> Any:
        with sc.ChunksClient(url, key, access_token=token, retry=ONCE, timeout=2) as client:
            seen.append(repr([client, client._credentials, client.job(JOB), client.as_user("x.y.z")]))
            return client.jobs()

    return "".join([heard(act), *seen])


@pytest.mark.parametrize("secret", SECRETS)
def test_in_the_sdk(caplog: pytest.LogCaptureFixture, url: str, secret: str) -> None:
    value = SECRETS[secret]
    said = use(value, KEY) + use(url, value) + use(value, value) + use(url, KEY, value)
    client = sc.ChunksClient(url, KEY, retry=ONCE)
    said += heard(lambda: client.job(value)) + heard(lambda: client.configure(value, value))
    said += heard(lambda: client.email.save_account("work", host=value, username="me", password=value))
    assert MARK not in said + caplog.text


@pytest.mark.parametrize("variable", PROXIES)
@pytest.mark.parametrize("secret", [*SECRETS, "a proxy's URL", "a SOCKS proxy's", "a proxy without a scheme"])
def test_in_the_environment_of_the_network(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, variable: str, secret: str
) -> None:
    proxies = {
        "a proxy's URL": f"http://user:{MARK}@127.0.0.1:9",
        "a SOCKS proxy's": f"socks://user:{MARK}@127.0.0.1:9",
        "a proxy without a scheme": f"user:{MARK}@127.0.0.1:9",
    }
    monkeypatch.setenv(variable, (SECRETS | proxies)[secret])
    assert MARK not in use("https://127.0.0.2:9", KEY) + use("http://nobody.invalid", KEY) + caplog.text


# The commands that talk to a project, with what they need.
COMMANDS: dict[str, list[str]] = {
    "configure": [],
    "doctor": [],
    "trigger": ["custom"],
    "status": [],
    "watch": [JOB],
    "chunks": [JOB],
    "retry": [JOB],
    "cancel": [JOB],
    "pause": [JOB],
    "resume": [JOB],
    "kinds": [],
    "save-kind": ["custom"],
    "remove-kind": ["custom"],
    "limits": [],
    "save-limit": ["an-api"],
    "block-limit": ["an-api", "1m"],
    "state": ["custom", "key"],
    "worker": ["os:getcwd", "--kind", "custom"],
    "cleanup": [],
    "purge": [],
    "email": ["login", "google", "work", "--client-id", "id", "--no-browser", "--timeout", "0.1s"],
}
ON_THIS_MACHINE = {"demo", "local", "init", "new"}


def run(caplog: pytest.LogCaptureFixture, *arguments: str, **environment: str | None) -> str:
    """Run a command; return all that it said."""
    done = CliRunner().invoke(cli, arguments, env=environment)
    assert done.exit_code != 0, arguments
    raised = "" if done.exception is None else everything(done.exception)
    return done.output + done.stderr + raised + caplog.text


def test_every_command_is_here() -> None:
    assert {*COMMANDS, *ON_THIS_MACHINE} == set(cli.list_commands(click.Context(cli)))


@pytest.mark.parametrize("command", COMMANDS)
def test_in_the_environment_of_a_command(caplog: pytest.LogCaptureFixture, url: str, command: str) -> None:
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    takes_json = any(option.name == "json_" for option in found.params)
    arguments = [command, *COMMANDS[command]]
    for value in SECRETS.values():
        for wrong in ({"SUPABASE_URL": value}, {"SUPABASE_SECRET_KEY": value}):
            environment = {"SUPABASE_URL": url, "SUPABASE_SECRET_KEY": KEY, **wrong}
            said = run(caplog, *arguments, **environment)
            if takes_json:
                said += run(caplog, *arguments, "--json", **environment)
            assert MARK not in said


@pytest.mark.parametrize("secret", SECRETS)
def test_in_an_argument(caplog: pytest.LogCaptureFixture, url: str, secret: str) -> None:
    value = SECRETS[secret]
    environment = {"SUPABASE_URL": url, "SUPABASE_SECRET_KEY": KEY, "CHUNK_PROCESSOR_KEY": value}
    assert MARK not in run(caplog, "configure", "--project-url", value, **environment)
    for mailbox in (value, value.replace("https:", "imaps:"), f"imaps://me:{MARK}@[::1", f"imaps://{value}"):
        assert MARK not in heard(lambda url=mailbox: str(Address.parse(url)))
        assert MARK not in run(caplog, "demo", "--imap", mailbox, IMAP_PASSWORD=MARK)


@pytest.mark.parametrize("secret", SECRETS)
def test_in_a_projects_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    value = SECRETS[secret]
    monkeypatch.setenv("FROM_HERE", value)
    (tmp_path / "supabase").mkdir()
    for written in ("env(FROM_HERE)", value.replace("\n", " ")):
        (tmp_path / "supabase" / "config.toml").write_text(f'[api]\nmax_rows = "{written}"\n')
        said = heard(lambda: Project(tmp_path / "supabase").api)
        assert "api.max_rows must be of type int" in said
        assert MARK not in said
    assert os.environ["FROM_HERE"] == value
