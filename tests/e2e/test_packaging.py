"""The wheel: what is in it, and that it works where there is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "dist", "tests")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which somebody has worked: with files that belong to nobody else."""
    copy = tmp_path_factory.mktemp("checkout") / "supabase-chunks"
    shutil.copytree(ROOT, copy, ignore=_LEFT_OUT)
    for private in (
        "supabase/.env",
        "supabase/functions/.env",
        "supabase/.temp/project-ref",
        "supabase/migrations/notes.txt",
        "supabase/functions/sync-emails/node_modules/x/index.ts",
        "supabase_chunks/.env",
    ):
        (copy / private).parent.mkdir(parents=True, exist_ok=True)
        (copy / private).write_text("SECRET=1")
    return copy


def _build(source: Path, target: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    return _build(source, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel, and of the rest only what it depends on."""
    folder = tmp_path_factory.mktemp("environment") / "mit Leerzeichen"
    venv.create(folder, with_pip=False, symlinks=True)
    bin_dir = folder / "bin"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(bin_dir / "python"),
        "install",
        "-qq",
        "--no-user",
    ]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True)
    # The dependencies of this environment, without what its own .pth files add: the checkout.
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return bin_dir / "python"


def _run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # Of a dependency its modules were lent above, its programs (Deno) are found here.
    environment["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), environment["PATH"]])
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _shipped(root: Path) -> set[str]:
    """What the CLI deploys, and with it only what is meant to be."""
    patterns = ("config.toml", "migrations/*.sql", "functions/**/*.ts", "functions/**/deno.json")
    found = {path for pattern in (*patterns, "functions/**/deno.lock") for path in root.glob(pattern)}
    return {path.relative_to(root).as_posix() for path in found if "node_modules" not in path.parts}


def test_the_wheel_holds_the_migrations_and_functions_and_nothing_private(source: Path, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    bundle = "supabase_chunks/_bundle/"
    assert {name.removeprefix(bundle) for name in names if name.startswith(bundle)} == _shipped(
        ROOT / "supabase"
    )
    assert "supabase_chunks/py.typed" in names
    assert any(name.endswith("net.sql") for name in names)
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"supabase_chunks", "supabase_chunks-0.1.0.dist-info"}
    assert not [name for name in names if ".env" in name or ".temp" in name or "node_modules" in name]


def test_the_source_package_builds_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    archive = _build(source, "sdist", tmp_path / "sdist")
    shutil.unpack_archive(archive, tmp_path / "source")
    (unpacked,) = (tmp_path / "source").iterdir()
    again = _build(unpacked, "wheel", tmp_path / "again")
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_the_installed_package_finds_its_own_files_from_anywhere(python: Path, tmp_path: Path) -> None:
    # A user's project has folders of these names too.
    (tmp_path / "supabase" / "migrations").mkdir(parents=True)
    (tmp_path / "supabase" / "migrations" / "20260101000000_theirs.sql").write_text("select 1;")
    program = (
        "from supabase_chunks import assets; print(assets.bundle_dir()); print(*assets.function_names())"
    )
    folder, names = _run(python, "-c", program, cwd=tmp_path).splitlines()
    assert Path(folder).is_relative_to(python.parents[1])
    assert _shipped(Path(folder)) == _shipped(ROOT / "supabase")
    assert names.split() == ["background-sync-processor", "sync-emails"]


def test_the_installed_command_runs_the_demo(python: Path, tmp_path: Path) -> None:
    command = python.parent / "supabase-chunks"
    assert "0.1.0" in _run(command, "--version", cwd=tmp_path)
    assert "Every message arrived." in _run(command, "demo", "--messages", "5", cwd=tmp_path)
