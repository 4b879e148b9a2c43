"""`supabase-chunks configure`: whether the caller's loopback is the database's too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from click.testing import CliRunner

from supabase_chunks.cli import cli
from tests.unit.projects import init, make_project

HEALTH: dict[str, Any] = {"version": "0.1.0", "postgres": "18.1", "watchdog": {"schedule": "30 seconds"}}


def configure(url: str, health: dict[str, Any], *arguments: str) -> tuple[int, str, str | None]:
    """Run it against a project with this health; returns the URL that was written, too."""
    environment = {"SUPABASE_URL": url, "SUPABASE_SECRET_KEY": "sb_secret_example"}
    with respx.mock(base_url=f"{url}/rest/v1/rpc", assert_all_called=False) as routes:
        routes.post("/chunk_system_health").mock(httpx.Response(200, json=health))
        written = routes.post("/configure_chunk_processing").mock(httpx.Response(200, json=health))
        done = CliRunner().invoke(cli, ["configure", *arguments], env=environment)
        url_written = json.loads(written.calls[0].request.content)["project_url"] if written.called else None
    return done.exit_code, done.output, url_written


@pytest.mark.parametrize("url", ["http://127.0.0.1:64321", "http://localhost:8000", "http://[::1]:54321"])
@pytest.mark.parametrize("health", [{**HEALTH, "server_address": "172.18.0.2"}, HEALTH])
def test_a_database_in_a_container_is_not_given_the_callers_loopback(
    url: str, health: dict[str, Any]
) -> None:
    code, text, written = configure(url, health)
    assert code == 2
    assert written is None
    assert "configure --docker" in text
    assert "--project-url" in text


@pytest.mark.parametrize("address", [None, "127.0.0.1", "::1"])
@pytest.mark.parametrize("port", [54321, 55321])
def test_a_database_on_this_very_machine_is_given_it(address: str | None, port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    code, text, written = configure(url, {**HEALTH, "server_address": address})
    assert (code, written) == (0, url), text
    assert "! " not in text


def test_whoever_names_loopback_gets_it_with_a_warning() -> None:
    named = ("--project-url", "http://127.0.0.1:8000")
    code, text, written = configure(
        "https://abc.supabase.co", {**HEALTH, "server_address": "10.0.0.5"}, *named
    )
    assert (code, written) == (0, "http://127.0.0.1:8000"), text
    assert "! http://127.0.0.1:8000 is this machine" in text


def test_other_urls_are_written_without_a_question() -> None:
    for url, arguments, expected in (
        ("https://abc.supabase.co", (), "https://abc.supabase.co"),
        ("http://127.0.0.1:54321", ("--docker",), "http://api.supabase.internal:8000"),
        ("http://127.0.0.1:8000", ("--project-url", "http://kong:8000"), "http://kong:8000"),
    ):
        assert configure(url, {**HEALTH, "server_address": "172.18.0.2"}, *arguments)[::2] == (0, expected)


def test_what_keeps_functions_from_working_on_this_machine_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path)
    (project / "supabase" / "config.toml").write_text('[edge_runtime]\npolicy = "oneshot"\n')
    monkeypatch.chdir(project / "supabase")
    docker = ("http://127.0.0.1:54321", HEALTH, "--docker")
    assert "oneshot" not in configure(*docker)[1], "nothing of ours is there yet"
    init(project)
    assert '! config.toml, [edge_runtime]: policy = "oneshot"' in configure(*docker)[1]
    assert "oneshot" not in configure("https://abc.supabase.co", HEALTH)[1]
