"""Installing: by the project's owner, in one transaction, into whatever the project has; again; and over a former release."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from supabase_chunks.local import migrations, platform
from tests.sql import invariants
from tests.sql.database import Database, Session
from tests.sql.install.schema import RELEASES, install, schema
from tests.sql.server import BIN_DIR_15, KINDS, MIGRATIONS, Cluster, running
from tests.sql.threads import until

FILES = sorted(MIGRATIONS.glob("*.sql"))
VERSIONS = ["cluster", "cluster_15"]


def works(database: Database) -> None:
    """A job goes through."""
    session = database.connect()
    session.call("save_sync_kind", kind="plain", max_concurrency=3)
    job = session.start(chunks=[{}] * 7)["id"]
    assert session.drain(job) == 7
    assert session.progress(job)["status"] == "completed"
    session.cleanup()
    invariants.check(session)


@pytest.fixture(params=VERSIONS)
def empty(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database without anything, on each version."""
    cluster: Cluster = request.getfixturevalue(request.param)
    with cluster.database(template=None) as made:
        yield made


@pytest.mark.parametrize("with_net", [True, False])
@pytest.mark.parametrize("with_cron", [True, False])
def test_with_and_without_cron_and_net(empty: Database, with_net: bool, with_cron: bool) -> None:
    platform.install(empty.dsn, with_net=with_net, with_cron=with_cron)
    install(empty, FILES)
    works(empty)
    session = empty.connect()
    health = session.call("chunk_system_health")
    assert (health["extensions"]["pg_net"] is not None) is with_net
    assert health["watchdog"]["scheduled"] is with_cron
    # Without pg_net a handler's chunks are still claimable.
    session.call("save_sync_kind", kind="web", handler="do-it")
    assert (
        session.complete(session.claimed(session.start("web", chunks=[{}])["id"], kinds=None))["job_status"]
        == "completed"
    )


def test_an_older_server_is_refused_before_anything_is_made(empty: Database) -> None:
    """There is none here, so that the one that is says it is older: in the text, since the setting is read-only."""
    platform.install(empty.dsn)
    text = FILES[0].read_text(encoding="utf-8")
    version = "current_setting('server_version_num')"
    assert version in text.partition("create schema")[0]
    with psycopg.connect(empty.dsn) as connection:
        with pytest.raises(
            psycopg.errors.FeatureNotSupported, match="needs PostgreSQL 15 or newer"
        ) as caught:
            connection.execute(text.replace(version, "'140013'", 1).encode())
        assert "Upgrade the project's database first" in str(caught.value.diag.message_hint)


def test_without_a_vault(empty: Database) -> None:
    platform.install(empty.dsn, with_vault=False)
    install(empty, FILES)
    works(empty)
    session = empty.connect()
    assert session.call("chunk_system_health")["configured"]["project_url"] is False
    with pytest.raises(psycopg.Error) as caught:
        session.call(
            "configure_chunk_processing", project_url="http://a.example", processor_key="sb_secret_abcdefgh"
        )
    assert caught.value.sqlstate == "SC006"


def test_into_an_older_project_that_grants_everything_by_default(empty: Database) -> None:
    platform.install(empty.dsn)
    with psycopg.connect(empty.dsn) as connection:
        connection.execute("set role postgres")
        for objects in ("tables", "sequences", "functions"):
            connection.execute(
                f"alter default privileges in schema public grant all on {objects} to anon, authenticated, service_role"
            )
    install(empty, FILES)
    admin = empty.connect("supabase_admin")
    anon = "select has_function_privilege('anon', p.oid, 'execute') as granted from pg_proc p"
    assert not any(
        row["granted"] for row in admin.rows(anon + " where p.pronamespace = 'public'::regnamespace")
    )
    tables = "select has_table_privilege('anon', c.oid, 'select, insert, update, delete') as granted from pg_class c"
    found = admin.rows(tables + " where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v')")
    assert not any(row["granted"] for row in found)


def test_twice_keeps_the_data_and_changes_nothing(empty: Database) -> None:
    platform.install(empty.dsn)
    install(empty, FILES)
    admin = empty.connect("supabase_admin")
    service = empty.connect()
    filled = fill(service)
    before = schema(admin)
    install(empty, FILES)
    assert schema(admin) == before
    check_filled(service, filled)
    works(empty)


@pytest.mark.parametrize("release", [*RELEASES])
def test_over_a_former_release(empty: Database, tmp_path: Path, release: str) -> None:
    """The files up to a release, its data, and then all files as the CLI applies them: the data is kept and goes on."""
    names = [
        name for known in list(RELEASES)[: list(RELEASES).index(release) + 1] for name in RELEASES[known]
    ]
    former = [path for path in FILES if path.stem in names]
    assert len(former) == len(names), "a file of a release has gone"
    platform.install(empty.dsn)
    old = tmp_path / "old"
    old.mkdir()
    for path in former:
        shutil.copy(path, old)
    migrations.apply(empty.dsn, old)
    service = empty.connect()
    filled = fill(service)
    assert migrations.apply(empty.dsn, MIGRATIONS) == [
        path.stem.partition("_")[0] for path in FILES if path not in former
    ]
    check_filled(empty.connect(), filled)
    works(empty)


def test_the_next_release_is_written_down() -> None:
    """Every migration belongs to a release."""
    assert [path.stem for path in FILES] == sorted(name for names in RELEASES.values() for name in names)


def test_postgrest_is_told_to_look_again(cluster: Cluster) -> None:
    with cluster.database(template=None) as database:
        platform.install(database.dsn)
        listening = database.connect("supabase_admin")
        listening.execute("listen pgrst")
        install(database, FILES)
        heard = [note.payload for note in listening.connection.notifies(timeout=5, stop_after=1)]
        assert heard == ["reload schema"]


@pytest.mark.parametrize("by_itself", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_with_the_real_pg_cron_the_watchdog_is_scheduled(by_itself: bool) -> None:
    """A lost worker's chunk comes back: by the command that pg_cron has; or, waiting a minute for it, by itself."""
    if not (BIN_DIR_15.parent / "lib" / "pg_cron.so").exists():
        pytest.skip("pg_cron for PostgreSQL 15 is missing")
    preload = {
        "shared_preload_libraries": "pg_cron",
        "cron.database_name": "postgres",
        "cron.use_background_workers": "on",
    }
    with running(BIN_DIR_15, **preload) as cluster, Database(cluster.server, "postgres") as database:
        platform.install(database.dsn)
        install(database, FILES)
        service = database.connect()
        admin = database.connect("supabase_admin")
        admin.execute(KINDS)
        watchdog = service.call("chunk_system_health")["watchdog"]
        # pg_cron before 1.5 knows no seconds.
        assert watchdog["schedule"] in ("30 seconds", "* * * * *")
        job = service.start(chunks=[{}])["id"]
        service.claimed(job)
        service.pass_time(timedelta(minutes=11))
        if by_itself:
            until(lambda: service.progress(job)["pending_chunks"] == 1, seconds=90)
            until(
                lambda: service.call("chunk_system_health")["watchdog"]["last_run"]["status"] == "succeeded"
            )
        else:
            (scheduled,) = admin.rows(
                "select command, username from cron.job where jobname = 'supabase-chunks-watchdog'"
            )
            database.connect(scheduled["username"]).execute(scheduled["command"])
            assert service.progress(job)["pending_chunks"] == 1


def fill(session: Session) -> dict[str, object]:
    """Jobs in each state, and chunks in each."""
    session.connection.execute(KINDS.encode())
    done = session.start(chunks=[{"n": 1}], job_key="done")["id"]
    session.complete(session.claimed(done), result={"kept": True})
    failed = session.start(chunks=[{}], max_retries=0)["id"]
    session.fail(session.claimed(failed), "kept too")
    running_job = session.start(chunks=[{"n": n} for n in range(5)], max_concurrency=2)["id"]
    session.fail(session.claimed(running_job), retry_after_seconds=0)
    held = session.claimed(running_job)
    paused = session.start(chunks=[{}] * 3, sealed=False)["id"]
    session.control("pause_sync_job", paused)
    session.call("save_sync_kind", kind="email", handler="sync-emails", max_concurrency=9)
    return {
        "done": done,
        "failed": failed,
        "running": running_job,
        "held": held,
        "paused": paused,
        "rows": rows(session),
    }


def rows(session: Session) -> list[object]:
    """Everything that must not change."""
    return [
        session.rows(
            "select to_jsonb(q) - 'updated_at' as q from public.chunk_processing_queue q order by q.id"
        ),
        session.rows("select to_jsonb(j) as j from public.sync_jobs j order by j.id"),
        session.rows("select to_jsonb(k) as k from public.sync_kinds k order by k.kind"),
        session.rows("select to_jsonb(a) as a from chunk_private.chunk_attempts a order by a.id"),
    ]


def check_filled(session: Session, filled: dict[str, object]) -> None:
    """All is as it was, and goes on."""
    if filled["rows"] is not None:
        kept = rows(session)
        assert kept == filled["rows"]
    invariants.check(session)
    assert session.complete(filled["held"])["outcome"] == "completed"  # type: ignore[arg-type]
    assert session.drain(str(filled["running"])) == 4
    assert session.progress(str(filled["running"]))["status"] == "completed"
    assert session.control("resume_sync_job", str(filled["paused"]))["status"] == "pending"
    assert session.control("retry_failed_chunks", str(filled["failed"]))["status"] == "running"
    invariants.check(session)
