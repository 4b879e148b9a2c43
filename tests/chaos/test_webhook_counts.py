"""How many webhooks a job costs: one where an invocation must begin, and none for anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.conftest import CHUNKS_PER_INVOCATION

if TYPE_CHECKING:
    from tests.chaos.trial import Trial

# Webhooks that an accident of timing may add.
FEW = 4


def test_one_for_each_chunk_and_each_retry(chained: Trial) -> None:
    chained.start(chunks=60, failures=lambda n: int(n % 6 == 0))
    chained.comes_home(within=60)
    assert 60 <= chained.webhooks() <= 60 + 10 + FEW


def test_about_one_an_invocation_when_draining(trial: Trial) -> None:
    trial.start(chunks=500)
    trial.comes_home(within=60)
    assert trial.invocations() >= 500 / CHUNKS_PER_INVOCATION
    assert trial.webhooks() <= trial.invocations() + FEW


def test_heartbeats_and_reads_send_none(chained: Trial) -> None:
    chained.start(chunks=1, ms=3000)
    heartbeats = set()
    while not chained.progress().ended:
        chained.job.chunks()
        chained.client.jobs()
        chained.client.health()
        heartbeats.add(chained.locked_until())
    assert len(heartbeats - {None}) >= 3
    chained.comes_home(within=10)
    assert chained.webhooks() == 1


def test_a_handful_waits_in_pg_net_however_long_the_queue(chained: Trial) -> None:
    # A sender that sleeps between its batches, as the real one does, so that there is something to see.
    chained.stack.set_webhooks(pace=0.02)
    chained.start(chunks=500)
    seen = []
    while not chained.progress().ended:
        seen.append(chained.waiting_webhooks())
    assert len(seen) >= 20
    assert 1 <= max(seen) <= 8
    chained.comes_home(within=60)
    assert chained.webhooks() <= 500 + FEW
