"""`supabase-chunks init` where it cannot do its work: it says why, and leaves everything as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from supabase_chunks.install import InstallError, Plan, Project
from tests.unit.projects import contents, init, make_project

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a history, on a path that not everything copes with."""
    return make_project(tmp_path)


def test_files_of_the_users_in_the_way_are_named_before_anything_is_written(project: Path) -> None:
    shared = project / "supabase" / "functions" / "_shared"
    shared.mkdir(parents=True)
    # Supabase's own guide recommends this folder, so that people have files there.
    (shared / "auth.ts").write_text("// not yours")
    (shared / "cors.ts").write_text("// no matter")
    before = contents(project)
    code, text = init(project)
    assert code == 1
    assert "already: functions/_shared/auth.ts. Give yours other names" in text
    assert contents(project) == before
    (shared / "auth.ts").rename(shared / "login.ts")
    assert init(project)[0] == 0
    assert (shared / "login.ts").read_text() == "// not yours"
    assert (shared / "cors.ts").read_text() == "// no matter"


def test_an_error_in_the_middle_leaves_no_half_installation(project: Path) -> None:
    before = contents(project)
    plan = Plan.for_project(Project(project), email=True, version="0.1.0")
    in_the_way = project / "supabase" / "functions"
    in_the_way.write_text("a file where a folder must be")
    with pytest.raises(InstallError, match=r"cannot be written .*Nothing was changed"):
        plan.apply()
    in_the_way.unlink()
    assert contents(project) == before
    assert sorted(path.name for path in (project / "supabase").iterdir()) == ["config.toml", "migrations"]


@pytest.mark.skipif(os.name != "posix", reason="renames over a folder fail in other ways elsewhere")
def test_an_error_at_the_last_file_takes_the_first_ones_back(project: Path) -> None:
    before = contents(project)
    plan = Plan.for_project(Project(project), email=True, version="0.1.0")
    last = list(plan.writes)[-1]
    last.mkdir(parents=True)
    (last / "full").write_text("")
    with pytest.raises(InstallError, match="Nothing was changed"):
        plan.apply()
    shutil.rmtree(last)
    assert contents(project) == before


def without_privileges(*arguments: str | Path) -> tuple[int, str]:
    """Run `init` in a process that permissions hold for; root goes past them otherwise."""
    command = [sys.executable, "-m", "supabase_chunks.cli", "init", *map(str, arguments)]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="how root gives up its rights is Linux' own")
@pytest.mark.parametrize(
    ("closed", "words"),
    [
        (["supabase", "supabase/migrations"], "cannot be written (Permission denied). Nothing was changed."),
        # The migrations could be written, and are taken back.
        (["supabase/functions"], "cannot be written (Permission denied). Nothing was changed."),
        (["supabase/migrations"], "cannot be written (Permission denied). Nothing was changed."),
    ],
    ids=["all", "functions", "migrations"],
)
def test_a_folder_that_is_read_only_is_named_and_nothing_is_half_copied(
    project: Path, closed: list[str], words: str
) -> None:
    (project / "supabase" / "functions").mkdir()
    before = contents(project)
    for name in closed:
        (project / name).chmod(0o555)
    code, text = without_privileges(project)
    assert code == 1
    assert text.startswith(f"Error: {project / closed[-1]}")
    assert words in text
    assert len(text.splitlines()) == 1
    for name in closed:
        (project / name).chmod(0o755)
    assert contents(project) == before
    assert without_privileges(project)[0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="as above")
def test_a_configuration_that_may_not_be_read_is_named(project: Path) -> None:
    path = project / "supabase" / "config.toml"
    path.chmod(0)
    code, text = without_privileges(project)
    assert (code, text) == (1, f"Error: {path} cannot be read: Permission denied.\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[api\nport = 1", "cannot be read"),
        (b'project_id = "\xff"', "cannot be read"),
        (b"functions = { hello = { verify_jwt = false } }\n", "No block can be added"),
    ],
)
def test_a_configuration_that_cannot_be_extended_is_left_alone(
    project: Path, content: bytes, words: str
) -> None:
    (project / "supabase" / "config.toml").write_bytes(content)
    before = contents(project)
    code, text = init(project)
    assert code == 1
    assert words in text
    assert "Nothing was changed" in text
    assert contents(project) == before


def test_a_folder_that_is_no_project_is_one_sentence(tmp_path: Path) -> None:
    code, text = init(tmp_path)
    assert code == 1
    assert text.startswith("Error: ")
    assert "run supabase init there first" in text
    assert list(tmp_path.iterdir()) == []
