"""The nemesis: which faults come when is drawn from the seed before anything starts, and so can be read and had again."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.torture import faults
from tests.torture.faults import Apply, Field
from tests.torture.recorder import Recorder
from tests.torture.steps import LEASE

_BRIEF, _BEYOND_THE_LEASE = (0.1, 0.3), (LEASE + 0.3, LEASE + 0.8)
_SNAPSHOT = "select count(*) from public.sync_jobs"


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: What it is, in words.
        seconds: How long it lasts, at least and at most.
        apply: Does it.
    """

    name: str
    seconds: tuple[float, float]
    apply: Apply


# Those of one lane come one after the other, beside those of the others.
LANES: dict[str, tuple[Fault, ...]] = {
    "processes": (
        Fault("PostgreSQL is killed", (0.2, 0.6), faults.kill("postgres")),
        Fault("a backend is killed", (0.3, 0.6), faults.kill_backend),
        Fault("backends are frozen", (0.3, 0.9), faults.freeze("backends")),
        Fault("the postmaster is frozen", (0.3, 0.7), faults.freeze("postgres")),
        Fault("backends are ended", _BRIEF, faults.end_backends),
        Fault("running statements are stopped", _BRIEF, faults.stop_statements),
        Fault("PostgREST is killed", _BRIEF, faults.kill("postgrest")),
        Fault("PostgREST is frozen", (0.3, 0.9), faults.freeze("postgrest")),
    ),
    "clients": (
        Fault("the functions are killed", _BRIEF, faults.kill("functions")),
        Fault("the functions are frozen beyond their leases", _BEYOND_THE_LEASE, faults.freeze("functions")),
        Fault("a client is killed", _BRIEF, faults.kill_client),
        Fault("two clients are frozen beyond their leases", _BEYOND_THE_LEASE, faults.freeze_clients),
    ),
    "pace": (Fault("backends stutter", (0.6, 1.5), faults.stutter),),
    "conditions": (
        Fault("answers to clients are lost", (0.6, 1.2), faults.misbehave("clients", lose_answers=0.4)),
        Fault(
            "requests of clients are lost or late",
            (0.6, 1.2),
            faults.misbehave("clients", lose_requests=0.2, delay=0.3),
        ),
        Fault("answers to functions are lost", (0.6, 1.2), faults.misbehave("functions", lose_answers=0.4)),
        Fault("webhooks are swallowed", (0.6, 1.2), faults.misbehave("webhooks", swallow=0.7)),
        Fault(
            "webhooks are cut", (0.6, 1.2), faults.misbehave("webhooks", lose_requests=0.4, lose_answers=0.3)
        ),
        Fault(
            "webhooks come late and twice", (0.8, 1.6), faults.misbehave("webhooks", double=0.8, delay=0.8)
        ),
        Fault("a job's gate is held", (0.6, 1.6), faults.hold(faults.GATE)),
        Fault("an old snapshot is held", (1.0, 3.0), faults.hold(_SNAPSHOT, isolation="repeatable read")),
        Fault("statements have 20 ms", (0.5, 1.0), faults.default("statement_timeout", "20ms")),
        Fault(
            "transactions are serializable by default",
            (0.5, 1.0),
            faults.default("default_transaction_isolation", "serializable"),
        ),
        Fault(
            "transactions are read-only by default",
            (0.4, 0.8),
            faults.default("default_transaction_read_only", "on"),
        ),
    ),
}


@dataclass(frozen=True)
class Stroke:
    """One fault of a plan: when it begins, how long it lasts, and the seed of what is chosen when it comes."""

    lane: str
    at: float
    seconds: float
    fault: Fault
    seed: str

    def __str__(self) -> str:
        return f"{self.at:6.2f} s  {self.fault.name}, for {self.seconds:.2f} s"


def plan(seed: str, seconds: float) -> list[Stroke]:
    """What comes within so many seconds: in each lane all faults in a drawn order, then again in another."""
    draw = random.Random(f"{seed} nemesis")
    strokes: list[Stroke] = []
    for lane, kinds in LANES.items():
        at = draw.uniform(0.2, 0.5)
        for fault in _in_turn(draw, kinds):
            stroke = Stroke(lane, at, draw.uniform(*fault.seconds), fault, f"{seed} {lane} {at}")
            if at > seconds - 0.3:
                break
            # What does not fit any more would come after the end.
            if at + stroke.seconds <= seconds:
                strokes.append(stroke)
                at += stroke.seconds
            at += draw.uniform(0.3, 0.8)
    return sorted(strokes, key=lambda stroke: stroke.at)


def _in_turn(draw: random.Random, all_faults: Sequence[Fault]) -> Iterator[Fault]:
    while True:
        yield from draw.sample(all_faults, len(all_faults))


def strike(field: Field, strokes: list[Stroke], recorder: Recorder) -> None:
    """Do all of it; afterwards everything is whole again."""
    began = time.monotonic()
    lanes = [[stroke for stroke in strokes if stroke.lane == lane] for lane in LANES]
    threads = [threading.Thread(target=_strike, args=(field, lane, recorder, began)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    field.project.stack.wait_until_ready()
    faults.whole(field)


def _strike(field: Field, strokes: list[Stroke], recorder: Recorder, began: float) -> None:
    for stroke in strokes:
        time.sleep(max(0.0, began + stroke.at - time.monotonic()))
        operation = recorder.begin("fault", {"name": stroke.fault.name})
        with stroke.fault.apply(field, random.Random(stroke.seed)):
            time.sleep(stroke.seconds)
        recorder.ok(operation, None)
