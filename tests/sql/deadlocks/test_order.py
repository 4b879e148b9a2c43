"""The order of locks is the one that docs/architecture.md gives, function by function."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.documents import functions_on_the_wall
from tests.sql.cleanup.hooks import KEY, URL, configure
from tests.sql.database import Database, Row, Session, reports
from tests.sql.deadlocks.locks import NAMES, Holders, Subject, held
from tests.sql.server import Cluster

LATER = 3600


@dataclass
class Scene:
    """A job of eight chunks and five slots: of each kind of row something."""

    session: Session
    job: str
    job_key: str = ""
    claims: list[Row] = field(default_factory=list)
    user: str | None = None
    claim_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    limit_key: str | None = None
    account: str | None = None

    @property
    def subject(self) -> Subject:
        """Whose locks are looked at."""
        return Subject(
            self.job,
            self.job_key,
            self.claim_id,
            self.user or str(uuid.uuid4()),
            self.limit_key or str(uuid.uuid4()),
            self.account or str(uuid.uuid4()),
        )


def with_mail(session: Session) -> Scene:
    """An account has a message."""
    account = session.call(
        "save_email_account", name=f"mail-{uuid.uuid4()}", host="h", username="u", password="p"
    )
    scene = Scene(session, session.start("web", chunks=[{}])["id"], account=str(account))
    save_mail(session, scene)
    return scene


def save_mail(session: Session, scene: Scene) -> object:
    """Store a message."""
    return mail(session, scene, "save_synced_emails", emails=Jsonb([{"uid": 1}]))


def mail(session: Session, scene: Scene, function: str, **arguments: object) -> object:
    """Call a function on a folder of the account."""
    return session.call(function, account_id=scene.account, folder="INBOX", uidvalidity=7, **arguments)


def fresh(session: Session) -> Scene:
    """Nobody has claimed a chunk."""
    return Scene(session, session.start("web", chunks=[{}] * 8, max_concurrency=5)["id"])


def busy(session: Session) -> Scene:
    """Chunk 0 has failed, 1 waits for its retry, 2 to 4 are processing, 5 and 6 wait to be claimed, 7 is fresh.

    3 and 4 are the last open ones of their stripes. The worker of 4 is lost, and it has no further attempt.
    """
    scene = fresh(session)
    scene.claims = [session.claimed(scene.job, kinds=None) for _ in range(5)]
    session.fail(scene.claims[0], retryable=False)
    session.fail(scene.claims[1], retry_after_seconds=LATER)
    session.execute(
        "update public.chunk_processing_queue set locked_until = now() - interval '1 s', max_retries = 0 where id = %s",
        scene.claims[4]["chunk_id"],
    )
    return scene


def limited(make: Callable[[Session], Scene]) -> Callable[[Session], Scene]:
    """A scene whose job has a limit key."""

    def made(session: Session) -> Scene:
        scene = make(session)
        scene.limit_key = str(uuid.uuid4())
        session.call("save_sync_limit", key=scene.limit_key, max_concurrency=100)
        for table, column in (("public.sync_jobs", "id"), ("chunk_private.slots", "job_id")):
            session.execute(
                f"update {table} set limit_key = %s where {column} = %s", scene.limit_key, scene.job
            )
        return scene

    return made


def parked(session: Session) -> Scene:
    """Limited and busy, and a slot sleeps though there is room."""
    scene = limited(busy)(session)
    session.execute(
        "update chunk_private.slots set parked = true where job_id = %s and chunk_index = 6", scene.job
    )
    return scene


def retry_due(session: Session) -> Scene:
    """The same, and the retry of 1 is due."""
    scene = busy(session)
    session.execute("update chunk_private.returned_chunks set ready_at = now() where job_id = %s", scene.job)
    return scene


def at_its_end(session: Session) -> Scene:
    """The last chunk of a job that leaves a state is processing."""
    scene = Scene(session, "", job_key=str(uuid.uuid4()))
    session.execute("select public.save_sync_state('web', %s, '{}')", scene.job_key)
    scene.job = session.start("web", chunks=[{}] * 4, job_key=scene.job_key)["id"]
    scene.claims = [session.claimed(scene.job, kinds=None) for _ in range(4)]
    for index in (0, 1, 2):
        session.complete(scene.claims[index], next_state={"page": index})
    return scene


def not_sealed(session: Session) -> Scene:
    """All chunks of a job that leaves a state are done, and it is not sealed."""
    scene = at_its_end(session)
    session.execute("update public.sync_jobs set sealed = false where id = %s", scene.job)
    session.complete(scene.claims[3])
    return scene


def end_missed(session: Session) -> Scene:
    """The same, sealed; nobody has looked whether it is done."""
    scene = not_sealed(session)
    session.execute("update public.sync_jobs set sealed = true where id = %s", scene.job)
    session.execute(
        "update chunk_private.job_counters set last_activity_at = now() - interval '1 h', items_processed = 7"
    )
    return scene


def checkpointed(session: Session) -> Scene:
    """Busy, and of a chunk that is processing a part is done."""
    scene = busy(session)
    session.extend(scene.claims[3], checkpoint={"page": 1}, items_processed=5)
    return scene


def given_back(session: Session) -> Scene:
    """Every chunk that waits to be claimed has been claimed before."""
    scene = fresh(session)
    for chunk in [session.claimed(scene.job, kinds=None) for _ in range(5)]:
        session.give_back(chunk)
    session.execute(
        "update public.sync_jobs set status = 'pending', started_at = null where id = %s", scene.job
    )
    return scene


def with_free_slots(session: Session) -> Scene:
    """Busy, with more slots than are used; one that is used is that of a retry in backoff. Nothing moves since long."""
    scene = busy(session)
    session.execute("update public.sync_jobs set max_concurrency = 40 where id = %s", scene.job)
    session.execute("update chunk_private.job_counters set last_activity_at = now() - interval '1 h'")
    session.execute(
        "update chunk_private.slots set ready_at = now() + interval '1 h' where job_id = %s and chunk_index = 5",
        scene.job,
    )
    session.execute(
        "update public.chunk_processing_queue set locked_until = now() + interval '1 h' where locked_until < now()"
    )
    return scene


def paused(session: Session) -> Scene:
    """The same, and then paused."""
    scene = with_free_slots(session)
    session.control("pause_sync_job", scene.job)
    return scene


def of_a_user(session: Session) -> Scene:
    """A user's paused job, not sealed."""
    user = str(uuid.uuid4())
    scene = Scene(session, session.start(chunks=[{}], owner_id=user, sealed=False)["id"], user=user)
    session.control("pause_sync_job", scene.job)
    return scene


def failed(session: Session) -> Scene:
    """A user's job that has failed."""
    user = str(uuid.uuid4())
    scene = Scene(session, session.start(chunks=[{}], owner_id=user)["id"], user=user)
    session.fail(session.claimed(scene.job), retryable=False)
    return scene


def ended(session: Session) -> Scene:
    """A job that is done."""
    scene = fresh(session)
    session.drain(scene.job, kinds=None)
    return scene


Act = Callable[[Session, Scene], Any]


def control(s: Session, scene: Scene, name: str) -> Any:
    return s.control(name, scene.job)


def append(s: Session, scene: Scene) -> Any:
    chunks: list[dict[str, int]] = [{}] * 5 if scene.claims[4:] else []
    return s.call(
        "append_sync_chunks", parent_sync_job_id=scene.job, chunks=chunks, request_id=uuid.uuid4(), seal=True
    )


def insert_rows(s: Session, scene: Scene) -> Any:
    return s.execute("insert into public.pages select %s from generate_series(1, 5)", scene.job)


def save_account(s: Session, _scene: Scene) -> Any:
    login = {"host": "imap.example.com", "username": "me", "password": "secret"}
    return s.call("save_email_account", name=str(uuid.uuid4()), **login)


def report_many(s: Session, scene: Scene, **arguments: Any) -> Any:
    items = [item | arguments for item in reports(scene.claims[2:4])]
    return s.call("complete_chunk_jobs_safe", completions=items)


def of_scene(scene: Scene) -> dict[str, Any]:
    return {"worker_id": "w", "parent_sync_job_id": scene.job, "claim_id": scene.claim_id}


# What each row of the table is tried with: the act, and the scenes in which, taken together, all its locks occur.
Trial = tuple[Act, list[Callable[[Session], Scene]]]
TRIED: dict[str, Trial] = {
    "start_sync_job": (
        lambda s, scene: s.start(chunks=[{}], limit_key=scene.limit_key),
        [failed, limited(busy)],
    ),
    "append_sync_chunks": (append, [with_free_slots, not_sealed, of_a_user, limited(busy)]),
    "enqueue_chunks_from_rows": (insert_rows, [with_free_slots, of_a_user, limited(busy)]),
    "claim_next_chunk_job_safe": (
        lambda s, scene: s.call_rows("claim_next_chunk_job_safe", **of_scene(scene)),
        [fresh, given_back, limited(fresh)],
    ),
    "claim_chunk_jobs_safe": (
        lambda s, scene: s.call("claim_chunk_jobs_safe", batch_size=3, **of_scene(scene)),
        [given_back, limited(fresh)],
    ),
    "complete_chunk_job_safe": (
        lambda s, scene: s.complete(scene.claims[3]),
        [busy, retry_due, at_its_end, limited(busy)],
    ),
    "complete_chunk_job_safe, next_chunks": (
        lambda s, scene: s.complete(scene.claims[3], next_chunks=[{}] * 5),
        [busy, with_free_slots, limited(busy)],
    ),
    "complete_chunk_jobs_safe": (report_many, [busy, retry_due, at_its_end, limited(busy)]),
    "complete_chunk_jobs_safe, next_chunks": (
        lambda s, scene: report_many(s, scene, next_chunks=[{}] * 5),
        [busy, with_free_slots, limited(busy)],
    ),
    "extend_chunk_lease": (lambda s, scene: s.extend(scene.claims[3]), [busy]),
    "extend_chunk_leases": (
        lambda s, scene: s.call("extend_chunk_leases", leases=reports(scene.claims)),
        [busy],
    ),
    "release_chunk_job": (lambda s, scene: s.give_back(scene.claims[3]), [busy, checkpointed, limited(busy)]),
    "get_sync_job_progress_safe": (lambda s, scene: s.progress(scene.job), [busy]),
    "cancel_sync_job": (lambda s, scene: control(s, scene, "cancel_sync_job"), [busy, limited(busy)]),
    "pause_sync_job": (lambda s, scene: control(s, scene, "pause_sync_job"), [busy, limited(busy)]),
    "resume_sync_job": (
        lambda s, scene: control(s, scene, "resume_sync_job"),
        [paused, of_a_user, limited(busy)],
    ),
    "retry_failed_chunks": (
        lambda s, scene: control(s, scene, "retry_failed_chunks"),
        [with_free_slots, failed, limited(busy)],
    ),
    "trigger_next_chunk_processing": (lambda s, scene: s.call("trigger_next_chunk_processing"), [busy]),
    "cleanup_stuck_chunks": (lambda s, scene: s.cleanup(), [busy, retry_due, parked]),
    "cleanup_stuck_chunks, healing": (
        lambda s, scene: s.cleanup(),
        [with_free_slots, end_missed, limited(with_free_slots)],
    ),
    "save_sync_limit": (
        lambda s, scene: s.call("save_sync_limit", key=scene.limit_key, max_concurrency=50),
        [limited(with_free_slots)],
    ),
    "block_sync_limit": (
        lambda s, scene: s.call("block_sync_limit", key=scene.limit_key, seconds=60),
        [limited(busy)],
    ),
    "save_sync_state": (
        lambda s, scene: s.call("save_sync_state", kind="web", job_key=scene.job_key, state={}),
        [at_its_end],
    ),
    "save_email_account": (save_account, [of_a_user]),
    "save_synced_emails": (save_mail, [with_mail]),
    "plan_email_folder": (
        lambda s, scene: mail(
            s, scene, "plan_email_folder", present=Jsonb([]), present_count=0, mark_deleted=True
        ),
        [with_mail],
    ),
    "update_email_folder": (
        lambda s, scene: mail(
            s,
            scene,
            "update_email_folder",
            highestmodseq="9",
            present_count=0,
            changed=Jsonb([]),
            vanished=Jsonb([[1, 1]]),
        ),
        [with_mail],
    ),
    "save_email_folders": (
        lambda s, scene: s.call(
            "save_email_folders", account_id=scene.account, folders=Jsonb([{"folder": "Sent"}])
        ),
        [with_mail],
    ),
    "adopt_moved_emails": (
        lambda s, scene: mail(s, scene, "adopt_moved_emails", emails=Jsonb([])),
        [with_mail],
    ),
    "purge_sync_jobs": (lambda s, scene: s.call("purge_sync_jobs", older_than=timedelta(0)), [ended]),
    "configure_chunk_processing": (
        lambda s, scene: s.call("configure_chunk_processing", project_url=URL, processor_key=KEY),
        [busy],
    ),
    "save_chunk_settings": (lambda s, _scene: s.call("save_chunk_settings", settings={}), [busy]),
    "chunk_system_health": (lambda s, scene: s.call("chunk_system_health"), [busy]),
}
ON_THE_WALL = {row.name: row.locks for row in functions_on_the_wall()}
# What goes with a job, in the order of PostgreSQL's own triggers.
WITH_THE_JOB = {"purge_sync_jobs": {"stripe", "counter"}}

OWN_TABLE = """
create table public.pages (parent_sync_job_id uuid);
grant all on public.pages to service_role, authenticated;
create trigger pages_become_chunks after insert on public.pages referencing new table as new_rows
for each statement execute function public.enqueue_chunks_from_rows();
"""


@pytest.fixture(scope="module")
def db(cluster: Cluster) -> Iterator[Database]:
    """One database for all: each test has its own job."""
    with cluster.database() as made:
        made.connect("supabase_admin").execute(OWN_TABLE)
        configure(made.connect())
        yield made


@pytest.fixture(scope="module")
def holders(db: Database) -> Holders:
    """Others that hold locks."""
    return Holders(db)


def test_each_function_with_locks_is_tried() -> None:
    assert {name for name, locks in ON_THE_WALL.items() if locks} <= set(TRIED) <= set(ON_THE_WALL)


@pytest.mark.parametrize("name", TRIED)
def test_a_function_takes_its_locks_in_the_order_given(db: Database, holders: Holders, name: str) -> None:
    act, scenes = TRIED[name]
    order = ON_THE_WALL[name]
    waited_for = [lock.removesuffix(" alone") for lock in order if not lock.startswith("(")]
    passed_over = {lock.strip("()").removesuffix(" alone") for lock in order} - set(waited_for)
    blocking = set(NAMES) - passed_over - WITH_THE_JOB.get(name, set())
    service = db.connect()
    taken: set[str] = set()
    waited: set[str] = set()
    for make in scenes:
        service.execute("delete from public.sync_jobs")
        scene = make(service)
        session = db.connect(
            "authenticated" if scene.user else "service_role", user=scene.user, autocommit=False
        )
        pid = session.connection.info.backend_pid
        act(session, scene)
        taken |= held(holders.admin, pid, scene.subject)
        session.connection.rollback()
        found = holders.waits(blocking, scene.subject, pid, partial(act, session, scene))
        session.connection.close()
        assert found == [lock for lock in waited_for if lock in found]
        waited |= set(found)
    assert taken - WITH_THE_JOB.get(name, set()) == {lock.strip("()") for lock in order}
    assert waited == set(waited_for)
