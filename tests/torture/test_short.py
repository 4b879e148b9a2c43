"""The short form of `make torture`: one seed finds nothing, and with one thing broken the same seed finds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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
    mutation.apply(project.stack.db_url)
    try:
        run = torture(project, SEED, SECONDS, tmp_path / "history", bound=1)
    finally:
        mutation.restore(project.stack.db_url)
    assert {finding.check for finding in run.findings} & mutation.found_by, run.summary()


def test_a_seed_is_a_plan() -> None:
    assert plan("7", 30) == plan("7", 30) != plan("8", 30)
