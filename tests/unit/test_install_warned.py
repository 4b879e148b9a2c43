"""What `init` and `new` warn of in a project's configuration, and which project they find."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from supabase_chunks import assets
from supabase_chunks.cli import cli
from tests.unit.projects import contents, init, make_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a history, on a path that not everything copes with."""
    return make_project(tmp_path)


def new(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["new", *map(str, arguments)])
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("settings", "setting", "remedy"),
    [
        ('[edge_runtime]\npolicy = "oneshot"', '[edge_runtime]: policy = "oneshot"', 'policy = "per_worker"'),
        ("[edge_runtime]\nenabled = false", "[edge_runtime]: enabled = false", "Set enabled = true"),
        ("edge_runtime = { enabled = false }", "[edge_runtime]: enabled = false", "Set enabled = true"),
        (
            "[functions.sync-emails]\nenabled = false\nverify_jwt = false",
            "[functions.sync-emails]: enabled = false",
            "Remove that line",
        ),
        ("[functions.sync-emails]", "[functions.sync-emails]: set verify_jwt = false", "401"),
        (
            '[db.migrations]\nschema_paths = ["./schemas/*.sql"]',
            "[db.migrations]: schema_paths",
            'Add "./migrations/*_chunks_*.sql" to them',
        ),
        ("[db.migrations]\nenabled = false", "[db.migrations]: enabled = false", "Set enabled = true"),
        ("[db]\nmajor_version = 14", "[db]: major_version = 14", "Upgrade the project's database"),
        ('[api]\nschemas = ["api"]', '[api]: schemas lacks "public"', "add it"),
        (
            "[remotes.staging.functions.sync-emails]\nverify_jwt = true",
            "[remotes.staging.functions.sync-emails]: set verify_jwt = false",
            "401",
        ),
        ("[remotes.live.db]\nmajor_version = 13", "[remotes.live.db]: major_version = 13", "PostgreSQL 15"),
    ],
)
def test_a_setting_that_keeps_a_sync_from_working_is_named_with_what_to_do(
    project: Path, settings: str, setting: str, remedy: str
) -> None:
    (project / "supabase" / "config.toml").write_text(f'project_id = "shop"\n{settings}\n')
    for arguments in ([project, "--dry-run"], [project], [project]):
        code, text = init(*arguments)
        assert code == 0, text
        (warning,) = [line for line in text.splitlines() if line.startswith("! ")]
        assert warning.startswith(f"! config.toml, {setting}")
        assert remedy in warning


def test_a_configuration_as_it_should_be_is_no_reason_to_warn(project: Path) -> None:
    settings = """
[api]
schemas = ["public", "graphql_public"]
[db]
major_version = 17
[db.migrations]
enabled = true
schema_paths = []
[edge_runtime]
enabled = true
policy = "per_worker"
[remotes.live.functions.sync-emails]
import_map = "./functions/sync-emails/deno.json"
"""
    (project / "supabase" / "config.toml").write_text(settings)
    assert "! " not in init(project)[1]
    assert "! " not in new("sync-orders", project)[1]


def test_a_new_kind_is_warned_of_what_would_keep_it_from_working(project: Path) -> None:
    init(project)
    config = project / "supabase" / "config.toml"
    config.write_text(
        config.read_text() + '[edge_runtime]\npolicy = "oneshot"\n[functions.sync-orders]\nenabled = false\n'
    )
    code, text = new("sync-orders", project)
    assert code == 0
    assert '! config.toml, [edge_runtime]: policy = "oneshot"' in text
    assert "! config.toml, [functions.sync-orders]: enabled = false" in text
    assert "! config.toml, [functions.sync-orders]: set verify_jwt = false" in text


@pytest.mark.parametrize(
    "settings",
    [
        "[functions]\nbackground-sync-processor = true",
        '[functions]\nsync-emails = "on"',
        "functions = true",
        "functions = []",
        "[[functions]]\nname = 'sync-emails'",
    ],
)
def test_something_else_in_the_place_of_a_block_is_named(project: Path, settings: str) -> None:
    (project / "supabase" / "config.toml").write_text(settings)
    before = contents(project)
    code, text = init(project)
    assert code == 1
    assert "must be a" in text
    assert "[functions." in text
    assert "Nothing was changed" in text
    assert contents(project) == before


@pytest.mark.parametrize(
    "settings",
    [
        "[functions]\nhello = true",
        "edge_runtime = 1\ndb = []\napi = true\nremotes = 'none'",
        "[db]\nmigrations = 5\n[api]\nschemas = 'public'\n[remotes]\nlive = 3",
    ],
)
def test_what_is_not_ours_is_left_to_the_supabase_cli(project: Path, settings: str) -> None:
    (project / "supabase" / "config.toml").write_text(settings)
    code, text = init(project)
    assert code == 0, text
    assert "! " not in text


class TestWhichProject:
    """As the Supabase CLI finds it; both of its versions were asked."""

    @pytest.mark.parametrize("below", ["", "src/deep", "supabase", "supabase/functions/_shared"])
    def test_the_one_around_the_present_folder(
        self, project: Path, monkeypatch: pytest.MonkeyPatch, below: str
    ) -> None:
        (project / below).mkdir(parents=True, exist_ok=True)
        # A configuration of something else on the way up.
        (project / "src").mkdir(exist_ok=True)
        (project / "src" / "config.toml").write_text('title = "a blog"')
        monkeypatch.chdir(project / below)
        monkeypatch.delenv("SUPABASE_WORKDIR", raising=False)
        code, text = init()
        assert code == 0, text
        assert (project / "supabase" / "functions" / "sync-emails").is_dir()
        assert (f"cd '{project}'" in text) == bool(below)
        assert new("sync-orders", ".")[0] == 0
        assert (project / "supabase" / "functions" / "sync-orders").is_dir()

    def test_the_one_that_the_environment_or_the_option_names(
        self, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        monkeypatch.setenv("SUPABASE_WORKDIR", os.path.relpath(project))
        assert init()[0] == 0
        assert (project / "supabase" / "functions" / "sync-emails").is_dir()
        monkeypatch.setenv("SUPABASE_WORKDIR", "nowhere")
        assert init("--workdir", str(project))[0] == 0
        assert init(str(project))[0] == 0
        code, text = init()
        assert code == 1
        assert str(tmp_path / "elsewhere" / "nowhere") in text
        code, text = init(str(project), "--workdir", str(project))
        assert code == 2
        assert "leave one out" in text

    def test_a_folder_that_is_named_is_taken_at_its_word(self, project: Path) -> None:
        (project / "src").mkdir()
        before = contents(project)
        code, text = init(project / "src")
        assert code == 1
        assert f"it lies in {project}, which is one; name that folder" in text
        assert contents(project) == before


def test_one_timestamp_is_in_the_name_of_a_migration(project: Path) -> None:
    init(project)
    names = sorted(path.name for path in (project / "supabase" / "migrations").glob("*_chunks_*.sql"))
    assert [name.partition("_")[2] for name in names] == [
        path.name.partition("_")[2] for path in assets.migrations()
    ]
    assert all(name[:14].isdigit() and not name[15].isdigit() for name in names)
