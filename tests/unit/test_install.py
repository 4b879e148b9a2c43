"""`supabase-chunks init`: what it writes into a project, and what it leaves alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from supabase_chunks import assets
from supabase_chunks.install import Project
from tests.unit.projects import CONFIG, contents, init, make_project

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a history, on a path that not everything copes with."""
    return make_project(tmp_path)


def test_everything_is_there_and_nothing_else_is_touched(project: Path) -> None:
    before = contents(project)
    code, text = init(project)
    assert code == 0, text
    after = contents(project)
    migrations = [name for name in after if name.startswith("supabase/migrations/")]
    ours = [path.name.partition("_")[2] for path in assets.migrations()]
    theirs = [f"supabase/migrations/2026010100000{number}_theirs.sql" for number in range(5)]
    assert migrations[:5] == theirs
    assert [re.sub(r"^supabase/migrations/\d{14}_", "", name) for name in migrations[5:]] == ours
    for path in assets.function_files():
        name = f"supabase/functions/{path.as_posix()}"
        assert after[name] == (assets.functions_dir() / path).read_bytes()
    assert "supabase db push" in text
    assert "supabase functions deploy --use-api" in text
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"supabase/config.toml"}


def test_the_configuration_keeps_its_comments_and_has_a_backup(project: Path) -> None:
    said = init(project)[1]
    text = (project / "supabase" / "config.toml").read_text(encoding="utf-8")
    assert text.startswith(CONFIG)
    functions = tomllib.loads(text)["functions"]
    assert functions["hello"] == {"verify_jwt": True}
    for name in assets.function_names():
        assert functions[name]["verify_jwt"] is False
        for key in ("entrypoint", "import_map"):
            assert (project / "supabase" / functions[name][key]).is_file()
    backup = project / "supabase" / "config.toml.before-supabase-chunks"
    assert backup.read_text(encoding="utf-8") == CONFIG
    assert "+ config.toml.before-supabase-chunks  (config.toml as it was" in said


@pytest.mark.parametrize(
    "content",
    [b"", b'project_id = "x"', b'project_id = "x"\r\n', b'\xef\xbb\xbfproject_id = "x"\n'],
    ids=["empty", "no line end", "windows", "byte order mark"],
)
def test_a_configuration_stays_as_its_editor_wrote_it(project: Path, content: bytes) -> None:
    path = project / "supabase" / "config.toml"
    path.write_bytes(content)
    assert init(project)[0] == 0
    written = path.read_bytes()
    assert written.startswith(content)
    if b"\r\n" in content:
        assert written.count(b"\n") == written.count(b"\r\n")
    functions = tomllib.loads(written.removeprefix(b"\xef\xbb\xbf").decode())["functions"]
    assert set(functions) == set(assets.function_names())


def test_again_it_changes_nothing(project: Path) -> None:
    init(project)
    before = contents(project)
    code, text = init(project / "supabase")
    assert code == 0
    assert "nothing was changed" in text
    assert contents(project) == before


def test_a_dry_run_only_says_what_it_would_do(project: Path) -> None:
    before = contents(project)
    code, text = init(project, "--dry-run")
    assert code == 0
    assert contents(project) == before
    assert text.count("_chunks_") == len(assets.migrations())
    assert "+ config.toml [functions.sync-emails]" in text


def test_the_email_sync_can_be_left_out_and_added_later(project: Path) -> None:
    init(project, "--no-email")
    assert not (project / "supabase" / "functions" / "sync-emails").exists()
    assert not [name for name in contents(project) if name.endswith("_email.sql")]
    first = {name for name in contents(project) if name.startswith("supabase/migrations/")}
    code, text = init(project)
    assert code == 0, text
    second = sorted(name for name in contents(project) if name.startswith("supabase/migrations/"))
    assert second[-1].endswith("_email.sql")
    assert set(second) - first == {second[-1]}


def test_new_migrations_come_after_the_newest_one_even_if_that_is_of_the_future(project: Path) -> None:
    for newest in ("20991231235959_future.sql", "99999999990000_no_time.sql"):
        (project / "supabase" / "migrations" / newest).write_text("select 1;")
        stamps = Project(project).next_timestamps(3)
        assert stamps == sorted(stamps)
        assert all(stamp > newest[:14] and len(stamp) == 14 for stamp in stamps)
    assert Project(project).next_timestamps(1) == ["99999999990001"]


def test_migrations_are_known_by_whatever_timestamp_but_not_by_their_name_alone(project: Path) -> None:
    migrations = project / "supabase" / "migrations"
    topic = assets.migrations()[0].name.partition("_")[2]
    (migrations / f"20260202000000_{topic}").write_text("create table pieces (id int);")
    init(project)
    files = sorted(path.name for path in migrations.glob("*_chunks_*.sql"))
    assert len(files) == len(assets.migrations()) + 1, "a file of the user's has the same name"
    (migrations / files[-1]).rename(migrations / f"20990101000000_{files[-1].partition('_')[2]}")
    before = contents(project)
    assert init(project)[0] == 0
    assert contents(project) == before
    # Copied by hand, and nothing is known about it.
    (project / "supabase" / "supabase-chunks.json").unlink()
    (project / "supabase" / "config.toml").write_text("")
    assert init(project)[0] == 0
    assert len(list(migrations.glob("*_chunks_*.sql"))) == len(files)


def test_after_a_squash_the_migrations_come_again(project: Path) -> None:
    """They can be run again, and put back the data that a squash drops (tests/sql/install/test_squashed.py)."""
    init(project)
    migrations = project / "supabase" / "migrations"
    *others, last = sorted(migrations.iterdir())
    last.write_text('CREATE SCHEMA IF NOT EXISTS "chunk_private";\n')
    for file in others:
        file.unlink()
    assert init(project)[0] == 0
    first, *again = sorted(migrations.iterdir())
    assert first == last
    topics = [path.name.partition("_")[2] for path in assets.migrations()]
    assert [path.name.partition("_")[2] for path in again] == topics
    before = contents(project)
    assert init(project)[0] == 0
    assert contents(project) == before


def test_an_upgrade_adds_what_is_new_and_keeps_what_the_user_changed(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init(project)
    functions = project / "supabase" / "functions"
    mine = functions / "sync-emails" / "handler.ts"
    mine.write_text("// mine\n")
    newer = tmp_path / "newer"
    shutil.copytree(assets.bundle_dir(), newer, ignore=shutil.ignore_patterns("node_modules"))
    (newer / "migrations" / "20270101000000_chunks_more.sql").write_text("select 2;")
    (newer / "functions" / "sync-emails" / "handler.ts").write_text("// theirs\n")
    (newer / "functions" / "sync-emails" / "extra.ts").write_text("// new\n")
    (newer / "functions" / "background-sync-processor" / "handler.ts").write_text("// newer\n")
    monkeypatch.setattr(assets, "bundle_dir", lambda: newer)
    before = contents(project)
    code, text = init(project)
    assert code == 0, text
    after = contents(project)
    added = {name.rpartition("/")[2] for name in after.keys() - before.keys()}
    assert {re.sub(r"^\d{14}_", "", name) for name in added} == {"chunks_more.sql", "extra.ts"}
    assert mine.read_text() == "// mine\n"
    assert "= functions/sync-emails/handler.ts  (kept: you changed it)" in text
    assert "~ functions/background-sync-processor/handler.ts" in text
    assert (functions / "background-sync-processor" / "handler.ts").read_text() == "// newer\n"
    assert init(project)[0] == 0
    assert contents(project) == after


@pytest.mark.skipif(os.name != "posix", reason="links and permissions are POSIX")
def test_a_configuration_keeps_its_permissions_and_stays_a_link(project: Path, tmp_path: Path) -> None:
    path, shared = project / "supabase" / "config.toml", tmp_path / "shared.toml"
    path.rename(shared)
    shared.chmod(0o600)
    path.symlink_to(shared)
    assert init(project)[0] == 0
    assert path.is_symlink()
    assert shared.stat().st_mode & 0o777 == 0o600
    assert "[functions.sync-emails]" in shared.read_text(encoding="utf-8")


def test_a_block_that_would_refuse_webhooks_is_pointed_out(project: Path) -> None:
    path = project / "supabase" / "config.toml"
    path.write_text("[functions.background-sync-processor]\nenabled = true\n")
    code, text = init(project)
    assert code == 0
    assert "! config.toml, [functions.background-sync-processor]: set verify_jwt = false" in text


def test_it_works_under_a_locale_without_unicode(project: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "supabase_chunks.cli", "init", str(project)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (project / "supabase" / "config.toml").read_text(encoding="utf-8").startswith(CONFIG)


def test_json_says_the_same_to_programs(project: Path) -> None:
    code, text = init(project, "--json")
    assert code == 0
    answer = json.loads(text)
    assert len(answer["added"]) == len(assets.migrations()) + len(assets.function_files()) + 2
    assert answer["backup"] == "config.toml.before-supabase-chunks"
    assert answer["updated"] == answer["kept"] == answer["warnings"] == []
