"""Runs Deno's own tools over the functions: format, lint, types, and their tests."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from supabase_chunks.local.deno import find_deno

pytestmark = pytest.mark.xdist_group("functions")

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS = ROOT / "supabase" / "functions"
TESTS = ROOT / "tests" / "functions"
EXAMPLE = ROOT / "examples" / "custom_handler"
NAMES = sorted(path.parent.name for path in FUNCTIONS.glob("*/index.ts"))


# What Supabase's hosted Edge Runtime is compatible with.
HOSTED = "2.1.4"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "supabase-chunks-tests"


def deno(*arguments: str, cwd: Path, program: Path | None = None) -> None:
    """Run Deno; its output is the failure's text."""
    environment = {
        **os.environ,
        "NO_COLOR": "1",
        "DENO_NO_UPDATE_CHECK": "1",
        "DENO_TLS_CA_STORE": "system,mozilla",
    }
    done = subprocess.run(
        [program or find_deno(), *arguments],
        cwd=cwd,
        env=environment,
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]


@pytest.mark.parametrize("tool", [["fmt", "--check"], ["lint"]], ids=["fmt", "lint"])
def test_functions_and_tests_are_in_form(tool: list[str]) -> None:
    config = str(TESTS / "deno.json")
    deno(*tool, "--config", config, str(FUNCTIONS), str(TESTS), str(EXAMPLE / "sync-items"), cwd=ROOT)


@pytest.mark.parametrize("name", NAMES)
def test_each_function_has_the_right_types_with_what_its_lock_file_pins(name: str) -> None:
    deno("check", "--frozen", "index.ts", cwd=FUNCTIONS / name)


@pytest.mark.parametrize("name", NAMES)
def test_lock_files_are_in_the_form_that_older_edge_runtimes_read(name: str) -> None:
    # Edge Runtime reads version 5 since March 2026 only, and an older self-hosted one would not start.
    for folder in (FUNCTIONS / name, TESTS):
        assert json.loads((folder / "deno.lock").read_text())["version"] == "4"


def test_each_function_is_in_the_configuration() -> None:
    text = (ROOT / "supabase" / "config.toml").read_text()
    for name in NAMES:
        assert f"[functions.{name}]\nverify_jwt = false\n" in text


def test_the_version_is_that_of_the_package() -> None:
    version = f'export const VERSION = "{_package_version()}";'
    assert version in (FUNCTIONS / "_shared" / "version.ts").read_text()


@pytest.fixture(scope="session")
def hosted() -> Path:
    """Deno as the hosted Edge Runtime has it, from npm, installed once."""
    folder = CACHE / f"deno-{HOSTED}"
    program = folder / "node_modules" / "@deno" / "linux-x64-glibc" / "deno"
    if not program.exists():
        npm = shutil.which("npm")
        if npm is None or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            pytest.skip("npm is missing, or this is no 64-bit Linux")
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--silent", "--no-audit", "--no-fund", "--prefix", str(folder)]
        package = f"@deno/linux-x64-glibc@{HOSTED}"
        done = subprocess.run(
            [npm, "install", *options, package], capture_output=True, text=True, check=False, timeout=300
        )
        if done.returncode != 0:
            pytest.skip(f"npm could not install {package}: {done.stderr[-300:]}")
    program.chmod(0o755)
    return program


# Most of their time they wait, and each file has servers of its own.
_TEST = (
    "test",
    "--parallel",
    "--frozen",
    "--allow-net",
    "--allow-env",
    "--allow-sys=hostname",
    "--v8-flags=--expose-gc",
)


def test_the_functions_pass_their_tests() -> None:
    deno(*_TEST, ".", cwd=TESTS)


def test_the_functions_pass_their_tests_on_the_hosted_version(hosted: Path) -> None:
    # Types are checked by the newest; the old one would want more in the lock file for it.
    deno(*_TEST, "--no-check", ".", cwd=TESTS, program=hosted)


@pytest.mark.parametrize("name", NAMES)
def test_the_hosted_version_takes_each_function_with_its_lock_file(name: str, hosted: Path) -> None:
    deno("cache", "--frozen", "--no-check", "index.ts", cwd=FUNCTIONS / name, program=hosted)


def test_the_example_passes_its_tests_in_a_project(tmp_path: Path) -> None:
    project = tmp_path / "functions"
    shutil.copytree(FUNCTIONS, project)
    shutil.copytree(EXAMPLE / "sync-items", project / "sync-items")
    deno("check", "--frozen", "index.ts", cwd=project / "sync-items")
    deno("test", "--frozen", "--allow-net", cwd=project / "sync-items")


def _package_version() -> str:
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return version
