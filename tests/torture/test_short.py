"""The short form of `make torture`: one seed finds nothing, and the command finds what is broken."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.torture.mutations import MUTATIONS
from tests.torture.nemesis import plan
from tests.torture.project import Project, running
from tests.torture.run import torture

pytestmark = pytest.mark.xdist_group("torture")

SEED = "1"
SECONDS = 4.0
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def project() -> Iterator[Project]:
    """A stack for all."""
    with running() as project:
        yield project


def test_a_seed_finds_nothing(project: Project, tmp_path: Path) -> None:
    run = torture(project, SEED, SECONDS, tmp_path / "history")
    assert run.findings == [], "\n".join(
        [*map(str, run.strokes), *map(str, run.findings[:20]), run.summary()]
    )
    # What finds nothing must have looked at something.
    assert len(run.strokes) >= 6
    assert len(run.history.chunks) >= 30
    asked = {each.function for each in run.history.operations if each.ok}
    assert {
        "complete_chunk_job_safe",
        "complete_chunk_jobs_safe",
        "claim_chunk_jobs_safe",
        "observe",
    } <= asked
    assert any(each.id.startswith("functions:") for each in run.history.operations)


def test_the_command_finds_a_queue_without_the_fence_and_keeps_its_history(tmp_path: Path) -> None:
    options = ["--seed", SEED, "--seconds", f"{SECONDS:g}", "--bound", "1", "--mutate", "no-fence"]
    code, text = command(*options, "--keep", str(tmp_path))
    assert code == 1, text
    found = set(re.findall(r"^  (\w+): ", text, re.MULTILINE))
    assert found & MUTATIONS["no-fence"].found_by, text
    assert str(plan(SEED, SECONDS)[0]) in text
    assert (
        f'make torture ARGS="--seed {SEED} --seconds 4 --mutate no-fence"; its history: {tmp_path / "seed-1"}'
        in text
    )
    code, again = command("--check", str(tmp_path / "seed-1"))
    assert (code, set(re.findall(r"^  (\w+): ", again, re.MULTILINE))) == (1, found)


def command(*options: str) -> tuple[int, str]:
    """What `make torture` runs."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_mutation_can_be_made_and_taken_back(project: Project, name: str) -> None:
    before = _functions(project)
    with MUTATIONS[name].made(project.stack.db_url):
        assert _functions(project) != before
    assert _functions(project) == before


def _functions(project: Project) -> list[tuple[str, str]]:
    with psycopg.connect(project.stack.db_url) as admin:
        query = (
            "select p.oid::regprocedure::text, p.prosrc from pg_proc p"
            " where p.pronamespace in ('public'::regnamespace, 'chunk_private'::regnamespace, 'torture'::regnamespace) order by 1"
        )
        return admin.execute(query).fetchall()


def test_a_seed_is_a_plan() -> None:
    assert plan("7", 30) == plan("7", 30) != plan("8", 30)
