"""The short form of `make torture`: one seed finds nothing, and with one thing broken the same seed finds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.torture.mutations import MUTATIONS
from tests.torture.nemesis import plan
from tests.torture.project import Project, running
from tests.torture.run import torture

SEED = "1"
SECONDS = 4.0


@pytest.fixture(scope="session")
def project() -> Iterator[Project]:
    """A stack for both."""
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


def test_a_queue_without_the_fence_is_found(project: Project, tmp_path: Path) -> None:
    mutation = MUTATIONS["no-fence"]
    with mutation.made(project.stack.db_url):
        run = torture(project, SEED, SECONDS, tmp_path / "history", bound=1)
    assert {finding.check for finding in run.findings} & mutation.found_by, run.summary()


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
